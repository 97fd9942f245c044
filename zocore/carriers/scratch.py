"""Probes that never write to the weights: each module reads theta + offset * z from a buffer of one layer.

Before a module runs, a hook fills the buffer and points the module at it; after, a hook points it back. The
stored weights stay bitwise what they were in every dtype, whatever happens inside the forward, so there is
no drift to measure and nothing to restore. Costs one buffer as large as the largest module's leaves,
and another for each depth at which a module with leaves runs inside a module with leaves.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from zocore.carriers.carrier import MoveTo
from zocore.carriers.layout import Layout
from zocore.directions.laws import SharedDirection
from zocore.weights.displaced import Job, displace_all, wide
from zocore.weights.leaf import Leaf, Site, by_module


@dataclass
class Scratch:
    """Carries directions that the whole batch shares. Raises RuntimeError when a forward misses a leaf."""

    leaves: Sequence[Leaf]
    layout: Layout | None = None  # unused: a shared direction is the same for every row
    _buffers: dict[tuple[torch.dtype, torch.device, int], Tensor] = field(default_factory=dict)

    @contextmanager
    def along(self, direction: SharedDirection) -> Iterator[MoveTo]:
        """Yield `move_to(offset)`: until the block ends, forwards see theta + offset * z."""
        probe = _Probe(direction, self._buffer)
        handles = [handle for module, sites in _sites(self.leaves) for handle in probe.attach(module, sites)]
        try:
            yield probe.move_to
        finally:
            for handle in handles:
                handle.remove()
            for leaf in self.leaves:
                for site in leaf.sites:
                    site.hide()
        probe.check(self.leaves)

    def cost(self, direction: SharedDirection) -> float:
        """A displaced forward does the arithmetic of a plain one; the noise is not counted as a forward."""
        return 1.0

    def _buffer(self, elements: int, dtype: torch.dtype, device: torch.device, depth: int) -> Tensor:
        """A flat buffer of at least `elements`, kept between steps; each depth of nested modules has its own."""
        held = self._buffers.get((dtype, device, depth))
        if held is None or held.numel() < elements:
            held = self._buffers[dtype, device, depth] = torch.empty(elements, dtype=dtype, device=device)
        return held[:elements]


@dataclass
class _Probe:
    """The hooks of one `along` block."""

    direction: SharedDirection
    buffer: Callable[[int, torch.dtype, torch.device, int], Tensor]
    offset: float = 0.0
    moved: bool = False
    reached: set[int] = field(default_factory=set)
    depth: int = 0  # modules that now read a buffer: one inside another must not write over the outer's

    def move_to(self, offset: float) -> None:
        self.offset = offset
        self.moved = self.moved or offset != 0

    def attach(self, module: nn.Module, sites: list[tuple[Leaf, Site]]) -> list[RemovableHandle]:
        if looks_up_rows(module) and len(sites) == 1:
            leaf = sites[0][0]
            return [module.register_forward_hook(lambda _, args, output: self._add_rows(leaf, args[0], output))]
        return [
            module.register_forward_pre_hook(lambda *_: self._show(sites)),
            # always_call: pointed back even when the module's forward raises
            module.register_forward_hook(lambda *_: self._hide(sites), always_call=True),
        ]

    def check(self, leaves: Sequence[Leaf]) -> None:
        missed = [leaf.name for leaf in leaves if leaf.id not in self.reached]
        if self.moved and missed:
            raise RuntimeError(
                f"the forward pass never read {', '.join(missed[:3])} through its own module: leave it out of the "
                "subspace, or carry the probe in place"
            )

    def _show(self, sites: list[tuple[Leaf, Site]]) -> None:
        if self.offset == 0:
            return
        self.depth += 1
        buffers: dict[torch.dtype, Tensor] = {}
        for dtype in {leaf.dtype for leaf, _ in sites}:
            elements = sum(leaf.tensor.numel() for leaf, _ in sites if leaf.dtype == dtype)
            buffers[dtype] = self.buffer(elements, dtype, sites[0][0].tensor.device, self.depth)
        views = []
        for leaf, _ in sites:
            count = leaf.tensor.numel()
            view, buffers[leaf.dtype] = buffers[leaf.dtype][:count], buffers[leaf.dtype][count:]
            views.append((leaf, view.view(leaf.matrix.shape)))
        write_displaced(views, self.direction, self.offset)
        for (leaf, site), (_, view) in zip(sites, views, strict=True):
            site.show(view.view(leaf.tensor.shape))
            self.reached.add(leaf.id)

    def _hide(self, sites: list[tuple[Leaf, Site]]) -> None:
        self.depth = max(self.depth - 1, 0)
        for _, site in sites:
            site.hide()

    def _add_rows(self, leaf: Leaf, ids: Tensor, output: Tensor) -> Tensor | None:
        """A looked-up table needs noise only for the rows in use."""
        self.reached.add(leaf.id)
        if self.offset == 0:
            return None
        numbers, inverse = looked_up(ids.to(leaf.tensor.device))
        rows = leaf.matrix[numbers].to(wide(leaf.tensor.dtype))
        self.direction.displace(rows, rows, leaf, self.offset, numbers)
        return functional.embedding(inverse, rows.to(output.dtype))


def write_displaced(views: Sequence[tuple[Leaf, Tensor]], direction: SharedDirection, offset: float) -> None:
    """Write theta + offset * z of each leaf into its view (rows, width) of any float dtype, with one rounding."""
    jobs = []
    for leaf, out in views:
        shift = direction.shift(leaf)
        if shift is not None:
            jobs.append(Job(out, leaf.matrix, shift))
        else:
            _write_in_tiles(leaf, out, direction, offset)
    displace_all(jobs, offset)


def _write_in_tiles(leaf: Leaf, out: Tensor, direction: SharedDirection, offset: float) -> None:
    if out.dtype == leaf.tensor.dtype == wide(out.dtype):
        return direction.displace(out, leaf.matrix, leaf, offset)
    for tile in leaf.tiles():
        base = leaf.matrix[tile].to(wide(leaf.tensor.dtype))
        work = base if leaf.tensor.itemsize == 2 else torch.empty_like(base)  # a wide base is the leaf itself
        direction.displace(work, base, leaf, offset, tile.start)
        out[tile].copy_(work)


def looked_up(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return row numbers (n,) of a table and, for each id, where its number stands among them.

    On a CPU each number once, which saves noise; elsewhere as they come, since counting them would stop the
    device until it is done.
    """
    if ids.device.type == "cpu":
        numbers, inverse = torch.unique(ids, return_inverse=True)
        return numbers, inverse
    return ids.flatten(), torch.arange(ids.numel(), device=ids.device).view(ids.shape)


def looks_up_rows(module: nn.Module) -> bool:
    """Whether the module is a plain table look-up: its output is the rows of its weight that its input names."""
    return isinstance(module, nn.Embedding) and type(module).forward is nn.Embedding.forward and module.max_norm is None


def unreached(leaves: Sequence[Leaf], forward: Callable[[], Any]) -> list[str]:
    """Return the names of the leaves whose module does not run in `forward` (a pooler that nothing reads, say)."""
    ran: set[int] = set()
    handles = [
        module.register_forward_pre_hook(lambda *_, sites=sites: ran.update(leaf.id for leaf, _ in sites))
        for module, sites in _sites(leaves)
    ]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return [leaf.name for leaf in leaves if leaf.id not in ran]


def _sites(leaves: Sequence[Leaf]) -> list[tuple[nn.Module, list[tuple[Leaf, Site]]]]:
    return by_module((site.module, (leaf, site)) for leaf in leaves for site in leaf.sites)
