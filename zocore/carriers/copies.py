"""Probes in a displaced copy of every weight: for parameters whose modules are not known.

The stored weights are never written to, as with `scratch.py`, and any forward that reads the parameter objects sees
the copy, whichever module or function it runs in. The price is one more copy of all that moves.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zocore.carriers.carrier import MoveTo
from zocore.carriers.layout import Layout
from zocore.carriers.scratch import write_displaced
from zocore.directions.laws import SharedDirection
from zocore.weights.leaf import Leaf


@dataclass
class Copies:
    """Carries directions that the whole batch shares."""

    leaves: Sequence[Leaf]
    layout: Layout | None = None  # unused: a shared direction is the same for every row
    _copies: dict[int, Tensor] = field(default_factory=dict)

    @contextmanager
    def along(self, direction: SharedDirection) -> Iterator[MoveTo]:
        """Yield `move_to(offset)`: until the block ends, the parameters show theta + offset * z."""
        try:
            yield lambda offset: self._show(direction, offset)
        finally:
            for leaf in self.leaves:
                for site in leaf.sites:
                    site.hide()

    def cost(self, direction: SharedDirection) -> float:
        """A displaced forward does the arithmetic of a plain one; the noise is not counted as a forward."""
        return 1.0

    def _show(self, direction: SharedDirection, offset: float) -> None:
        views = [(leaf, self._copy(leaf).view(leaf.matrix.shape)) for leaf in self.leaves]
        write_displaced(views, direction, offset)
        for leaf in self.leaves:
            for site in leaf.sites:
                site.show(self._copy(leaf))

    def _copy(self, leaf: Leaf) -> Tensor:
        """The leaf's copy, in the dtype that is read; kept between steps."""
        if leaf.id not in self._copies:
            self._copies[leaf.id] = torch.empty_like(leaf.tensor, dtype=leaf.dtype)
        return self._copies[leaf.id]
