"""How many bytes of tensors some code holds at once: exact on a CPU, where no allocator counts them.

    with TensorPeak() as peak:
        loss.backward()
    peak.most  # the most bytes that storages made inside the block held at any one time

Storages that existed before the block do not count, nor does memory that operations use inside themselves.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorPeak(TorchDispatchMode):
    """Counts the storages made inside a `with` block; `now` are alive, `most` were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.most = 0
        self._storages: dict[int, Any] = {}  # storage address -> weak reference

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it made."""
        kwargs = kwargs or {}
        before = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        made = func(*args, **kwargs)
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in before and storage._cdata not in self._storages:
                    self._count(storage)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()

        def gone(_: Any) -> None:
            self._storages.pop(address, None)
            self.now -= size

        self._storages[address] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)
