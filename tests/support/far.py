"""An accelerator that does not exist: tensors with real values that say they live on a device of their own.

    with far.Device() as device:
        model = far.sent(model, "meta:0")
        ...                # any operation that mixes devices raises, as on a GPU
    device.waits           # operations that would have waited for the device, in order

The values are kept on the CPU beside; to torch the tensors are on "meta", the only other device that every
build of torch knows, so code must never ask for their values but through operations that a GPU has too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
# what a GPU cannot answer before it has done all that was asked of it
WAITING = {"_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "equal", "masked_select", "is_nonzero"}
# tensors of two devices may meet here: copies, and indices that lie on the CPU
COPIES = {"copy_", "_to_copy", "index", "index_put_", "index_put"}


class Far(Tensor):
    """A tensor on a device that does not exist; `near` holds its values."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor, device: torch.device) -> "Far":
        """Wrap values."""
        far = Tensor._make_wrapper_subclass(
            cls, near.shape, dtype=near.dtype, device=device, strides=near.stride(), storage_offset=0
        )
        far.near = near
        return far

    @property
    def data(self) -> Tensor:  # torch's own would lose the values
        """The tensor without its history."""
        return Far(self.near.detach(), self.device)

    @data.setter  # type: ignore[override]
    def data(self, other: "Far") -> None:
        assert other.device == self.device
        self.near = other.near

    def data_ptr(self) -> int:
        """Where the values are."""
        return self.near.data_ptr()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Outside a Device block nothing can be done with such a tensor."""
        return _run(func, args, kwargs or {}, lambda name: None)


class Device(TorchDispatchMode):
    """The block in which tensors can be made on the device; remembers where it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        return _run(func, args, kwargs or {}, self.waits.append)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], wait: Callable[[str], None]) -> Any:
    name = func._schema.name.split("::")[1]
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    devices = {t.device for t in given if isinstance(t, Far)}
    asked = kwargs.get("device")
    to = torch.device(asked) if asked is not None else next(iter(devices), torch.device("cpu"))
    if devices and name not in COPIES:
        apart = {t.device for t in given if t.ndim or isinstance(t, Far)}
        if len(apart) > 1:
            raise RuntimeError(f"{name} mixes tensors of {', '.join(sorted(map(str, apart)))}")
    if name == "copy_":
        to = args[0].device
        if args[0].device != args[1].device and not kwargs.get("non_blocking", len(args) > 2 and args[2]):
            wait("copy_")
    elif devices and name in WAITING:
        wait(name)
    elif name == "_to_copy" and given[0].device != to and not kwargs.get("non_blocking"):
        wait(f"copy to {to}")
    near_args, near_kwargs = tree_map(lambda t: t.near if isinstance(t, Far) else t, (args, kwargs))
    if asked is not None:
        near_kwargs["device"] = "cpu"
    made = func(*near_args, **near_kwargs)
    if to.type != "meta":
        return made
    return _wrapped(made, to, {id(t.near): t for t in given if isinstance(t, Far)})


def _wrapped(made: Any, device: torch.device, known: dict[int, Far]) -> Any:
    """Results of operations in place are the tensors that were given."""

    def wrapped(found: Any) -> Any:
        if not isinstance(found, Tensor):
            return found
        return known[id(found)] if id(found) in known else Far(found, device)

    return tree_map(wrapped, made)


def sent(model: nn.Module, device: str = "meta:0", places: Callable[[str], str] | None = None) -> nn.Module:
    """Put a model's parameters and buffers on the device (or each where `places` says, by its name), ties kept."""
    seen: dict[int, Any] = {}
    for prefix, module in model.named_modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in list(held.items()):
                if tensor is not None:
                    where = torch.device(places(f"{prefix}.{name}") if places else device)
                    if id(tensor) not in seen:
                        far = Far(tensor.detach(), where)
                        seen[id(tensor)] = nn.Parameter(far, requires_grad=False) if held is module._parameters else far
                    held[name] = seen[id(tensor)]
    return model


def near(tensor: Tensor) -> Tensor:
    """The values of a tensor wherever it is."""
    return tensor.near if isinstance(tensor, Far) else tensor
