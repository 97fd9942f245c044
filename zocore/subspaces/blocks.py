"""The blocks of a model: where they are, what writes into the stream between them, and subspaces made of the last.

`top:2` moves all weights of the last two blocks and of what follows them, `writers:2` the two linear maps of each
that add to the hidden state, `writers` those of all blocks. Below the first block that moves, nothing changes all
run long: `models/prefix.py` makes use of that.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zocore.subspaces.by_name import all_weights
from zocore.weights.leaf import Leaf
from zocore.weights.linear import is_linear, outputs_of

WORD = re.compile(r"(top|writers)(?::(.*))?")


def of_blocks(word: str) -> tuple[str, int | None] | None:
    """Return ("top", 2) for "top:2", ("writers", None) for "writers", None for a subspace of another kind.

    Raises ValueError when the number of blocks is missing or makes no sense.
    """
    match = WORD.fullmatch(word)
    if match is None:
        return None
    name, number = match.groups()
    if number is None and name == "writers":
        return name, None
    if not (number or "").isdecimal() or int(number) < 1:
        raise ValueError(f"the subspace {word!r} needs a number of blocks from 1 on, as in {name}:2")
    return name, int(number)


def last_blocks(model: nn.Module, word: str, master: bool = False) -> list[Leaf]:
    """Return the leaves of `top:k`, `writers` or `writers:k`. Raises ValueError when the model cannot give them."""
    asked = of_blocks(word)
    assert asked is not None, word
    name, count = asked
    return top(model, count or 0, master) if name == "top" else writers(model, count, master)


def top(model: nn.Module, count: int, master: bool = False) -> list[Leaf]:
    """Return all weights of the last `count` blocks and of what follows them.

    A tensor that an earlier module reads too, such as an embedding that is also the head, stays where it is.
    """
    inside = {module for block in _last(model, count) for module in block.modules()}
    seen, blocks = trace(model, lambda: _run_briefly(model)), len(blocks_of(model))
    moves = inside | {module for module, finished in seen.finished.items() if finished == blocks}
    return [leaf for leaf in all_weights(model, master) if all(site.module in moves for site in leaf.sites)]


def writers(model: nn.Module, count: int | None = None, master: bool = False) -> list[Leaf]:
    """Return weights and offsets of the linear maps that write into the hidden state in the last `count` blocks."""
    inside = {module for writer in residual_writers(model, count) for module in writer.modules()}
    leaves = [leaf for leaf in all_weights(model, master) if any(site.module in inside for site in leaf.sites)]
    if not leaves:
        raise ValueError(f"the maps that write into the hidden state of {type(model).__name__} have no float weights")
    return leaves


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the blocks in order: the heaviest list of modules of one class. Raises ValueError without any."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    alike = [modules for modules in lists if len({type(module) for module in modules}) == 1]
    if not alike:
        raise ValueError(f"{type(model).__name__} has no list of blocks: name what moves by a pattern instead")
    return max(alike, key=lambda modules: sum(p.numel() for module in modules for p in module.parameters()))


def residual_writers(model: nn.Module, count: int | None = None) -> list[nn.Module]:
    """Return, in order, the linear maps that write into the hidden state in the last `count` blocks (all by default).

    In each part of a block (its attention, its MLP) that is the last map as wide as the hidden state: `o_proj` and
    `down_proj` of Llama. An adapted map is the whole of it, base and adapter. Raises ValueError when there is none.
    """
    config: Any = model.config
    width = config.hidden_size
    maps = [writer for block in _last(model, count) for writer in _writers(block, width)]
    if not maps:
        raise ValueError(f"no linear map in the blocks of {type(model).__name__} is as wide as its hidden state")
    return maps


def _last(model: nn.Module, count: int | None) -> list[nn.Module]:
    blocks = blocks_of(model)
    if count is not None and not 1 <= count <= len(blocks):
        raise ValueError(f"the model has {len(blocks)} blocks, so the last {count} cannot be taken: ask for fewer")
    return blocks[-count:] if count else blocks


def _writers(block: nn.Module, width: int) -> list[nn.Module]:
    parts: dict[nn.Module, list[nn.Module]] = {}
    for child in block.children():  # maps that are the block's own children make one part: OPT's MLP
        parts.setdefault(block if _outputs(child) else child, []).extend(_linear_maps(child))
    wide = ([linear for linear in part if _outputs(linear) == width] for part in parts.values())
    return [part[-1] for part in wide if part]


def _linear_maps(module: nn.Module) -> Iterator[nn.Module]:
    if _outputs(module):
        yield module
        return
    for child in module.children():
        yield from _linear_maps(child)


def _outputs(module: nn.Module) -> int:
    """How many outputs a linear map has; 0 for other modules."""
    if is_linear(module):
        return outputs_of(module)
    base = getattr(module, "base_layer", None)  # where PEFT keeps what it adapts
    return _outputs(base) if isinstance(base, nn.Module) else 0


@dataclass
class Trace:
    """What one forward did, module by module."""

    finished: dict[nn.Module, int] = field(default_factory=dict)  # blocks that had finished when it first ran
    products: dict[nn.Module, int] = field(default_factory=dict)  # multiplications of its matrix product

    def frozen_below(self, leaf: Leaf) -> int:
        """How many of the first blocks give the same output wherever the leaf moves; 0 for one never seen."""
        return min((self.finished.get(site.module, 0) for site in leaf.sites), default=0)


def trace(model: nn.Module, forward: Callable[[], Any]) -> Trace:
    """Return what `forward` does in the model.

    Raises ValueError when its blocks do not run one after the other, once each (ALBERT's shared ones, say).
    """
    blocks, seen = blocks_of(model), Trace()
    order: list[nn.Module] = []

    def begin(module: nn.Module, _: Any) -> None:
        seen.finished.setdefault(module, len(order))

    def count(module: Any, _: Any, output: Tensor) -> None:
        width = module.in_features if isinstance(module, nn.Linear) else module.nx
        seen.products[module] = seen.products.get(module, 0) + output.numel() * width

    handles = [module.register_forward_pre_hook(begin) for module in model.modules()]
    handles += [m.register_forward_hook(count) for m in model.modules() if is_linear(m)]
    handles += [block.register_forward_hook(partial(_note, order)) for block in blocks]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    if order != list(blocks):
        raise ValueError(f"the blocks of {type(model).__name__} do not run one after the other, once each")
    return seen


def _note(order: list[nn.Module], block: nn.Module, *_: Any) -> None:
    order.append(block)


def _run_briefly(model: nn.Module) -> None:
    """Run the model on two tokens: enough to see in which order its modules come."""
    ids = torch.zeros(1, 2, dtype=torch.int64, device=next(model.parameters()).device)
    model(input_ids=ids, attention_mask=torch.ones_like(ids))


def shares(blocks: Sequence[nn.Module], seen: Trace) -> float:
    """Return which part of a forward's multiplications is done inside some blocks, from 0 to 1."""
    inside = {module for block in blocks for module in block.modules()}
    return sum(n for module, n in seen.products.items() if module in inside) / max(sum(seen.products.values()), 1)
