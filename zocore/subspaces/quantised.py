"""Quantisation scales as leaves: QZO's subspace (arXiv 2505.13430), for bitsandbytes NF4, FP4 and int8.

`prepare` takes three traps out of the way, and has to run before the model's first forward:

    4 bits on a CPU with AVX512-BF16    the first forward would pack the scales into bfloat16: switched off
    double quantisation                 scales are 8-bit themselves: un-nested once, to the same numbers
    int8                                activations would be quantised too, and their rounding hides a probe:
                                        on a CPU these layers stay in train mode, where only the weight is
                                        quantised; elsewhere they get a forward that does the same

The authors' code perturbs the scales as the kernel holds them (float16), where a step of the paper's size is
lost; here a float32 master moves and the layer reads a copy. Their zero floor is 1e-7 here as in their code.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from zocore.subspaces.by_name import name_pattern
from zocore.subspaces.quantised_sites import FourBitScales, RowScales, refuse_packed
from zocore.weights.leaf import Leaf

FLOOR = 1e-7  # a scale below this would cut its weights off for good


def is_four_bit(module: nn.Module) -> bool:
    """Whether the module is a `Linear4bit`, recognised by what its weight carries."""
    return isinstance(module, nn.Linear) and hasattr(module.weight, "quant_state")


def is_int8(module: nn.Module) -> bool:
    """Whether the module is a `Linear8bitLt`, recognised by what its state carries."""
    return isinstance(module, nn.Linear) and hasattr(getattr(module, "state", None), "SCB")


def prepare(model: nn.Module) -> None:
    """Make the scales of every quantised layer perturbable, before any forward; twice does no harm.

    Raises RuntimeError when a layer was packed by an earlier forward, ValueError when one is not quantised.
    """
    for name, module in quantised(model):
        if is_four_bit(module):
            _prepare_four_bit(name, module)
        else:
            _prepare_int8(name, module)


def quant_scales(model: nn.Module, pattern: str = "", floor: float = FLOOR) -> list[Leaf]:
    """Prepare the model and return the scales of its quantised layers whose name matches, one leaf a layer.

    Shapes: 4 bits (N, K / block), or (blocks,) where a block straddles rows; int8 (N,). Ids follow those of
    all parameters and do not depend on the pattern. Raises ValueError when nothing is quantised or matches.
    """
    matches = name_pattern(pattern)
    prepare(model)
    leaves = _leaves(model, floor)
    if not leaves:
        raise ValueError(_nothing_to_tune(model))
    matching = [leaf for leaf in leaves if matches(leaf.name)]
    if not matching:
        names = ", ".join(leaf.name for leaf in leaves[:4])
        raise ValueError(f"no quantised layer matches {pattern!r}; their scales have names like {names}")
    return matching


def quantised(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the name and module of each quantised linear layer."""
    return ((name, module) for name, module in model.named_modules() if is_four_bit(module) or is_int8(module))


def live_scales(module: Any) -> Tensor:
    """Return the scales that a quantised layer's forward reads."""
    scales: Tensor = module.weight.quant_state.absmax if is_four_bit(module) else module.state.SCB
    return scales


def _prepare_four_bit(name: str, module: Any) -> None:
    state = module.weight.quant_state
    if state is None:
        raise ValueError(_not_yet(name))
    refuse_packed(state)
    module.support_avx512bf16_for_cpu = False  # on the layer, as a later .eval() cannot undo it
    if state.nested:
        from bitsandbytes.functional import dequantize_blockwise

        # in place: the weight and the layer hold the same state
        state.absmax = (dequantize_blockwise(state.absmax, state.state2) + state.offset).float()
        state.nested, state.state2, state.offset = False, None, None


def _prepare_int8(name: str, module: Any) -> None:
    if module.weight.CB is not None:
        module.init_8bit_state()  # as its first forward would do
    if module.state.has_fp16_weights or module.state.SCB is None:
        raise ValueError(_not_yet(name))
    if module.state.CB.device.type != "cpu":
        module.forward = partial(exact_int8, module)
        return
    if _keep_exact not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_keep_exact)
    module.train()


def exact_int8(module: Any, x: Tensor) -> Tensor:
    """A `Linear8bitLt`'s forward with the weight alone quantised: x (codes * scale / 127)^T + bias, in x's dtype."""
    x = x.to(module.state.CB.device)
    weight = module.state.CB.to(x.dtype).mul_(module.state.SCB.unsqueeze(1).mul(1.0 / 127.0))
    bias = None if module.bias is None else module.bias.to(x.dtype)
    return functional.linear(x, weight, bias)


def _keep_exact(module: nn.Module, _: Any) -> None:
    """Undo a `model.eval()` in this layer, which has nothing else that depends on the mode."""
    if not module.training:
        module.train()


def _leaves(model: nn.Module, floor: float) -> list[Leaf]:
    """One leaf for each scale tensor, shared ones once."""
    tied: dict[int, list[tuple[str, Any]]] = {}
    for name, module in quantised(model):
        tied.setdefault(live_scales(module).data_ptr(), []).append((name, module))
    first = len(list(model.parameters()))
    return [_leaf(first + number, group, floor) for number, group in enumerate(tied.values())]


def _leaf(number: int, group: list[tuple[str, Any]], floor: float) -> Leaf:
    name, module = group[0]
    if not is_four_bit(module):
        master = module.state.SCB.float().clone()
        sites = tuple(RowScales(other, master) for _, other in group)
        return Leaf(f"{name}.SCB", number, master, sites, decay=False, floor=floor, products=0)
    state = module.weight.quant_state
    rows, width = state.shape
    master = state.absmax.clone()
    if width % state.blocksize == 0:
        master = master.view(rows, width // state.blocksize)
    blocks = tuple(FourBitScales(other, master) for _, other in group)
    return Leaf(f"{name}.weight.absmax", number, master, blocks, decay=False, floor=floor, products=rows * width)


def _not_yet(name: str) -> str:
    return f"the weight of {name} is not quantised yet: load the model in few bits, or move it to its device"


def _nothing_to_tune(model: nn.Module) -> str:
    settings = getattr(getattr(model, "config", None), "quantization_config", None)
    method = getattr(settings, "quant_method", None)
    supported = "bitsandbytes NF4, FP4 and int8"
    if method is None:
        return f"the model has no quantisation scales: load it in few bits ({supported})"
    name = getattr(method, "value", method)
    return f"the scales of models quantised by {name} are not supported: {supported} are"
