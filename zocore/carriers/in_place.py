"""Probes that move the weights themselves, as MeZO does: no extra memory, but restoring is a rounding.

Going to +eps, to -eps and back leaves a float32 weight about one part in 10^8 from where it was. In 16 bits
that is a random walk of 1.5 % (float16) or 12 % (bfloat16) of the weights in 1,000 steps, so half precision
is refused here; `scratch.py` never moves a weight and is the default.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from zocore.carriers.carrier import MoveTo
from zocore.carriers.layout import Layout
from zocore.directions.laws import SharedDirection
from zocore.weights.leaf import Leaf


@dataclass
class InPlace:
    """Carries directions that the whole batch shares by moving float32 or float64 weights.

    Raises ValueError for 16-bit leaves and for laws that read the weights while these are moved.
    """

    leaves: Sequence[Leaf]
    layout: Layout | None = None  # unused: a shared direction is the same for every row

    def __post_init__(self) -> None:
        for leaf in self.leaves:
            if leaf.tensor.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"in-place probes drift in {leaf.tensor.dtype} ({leaf.name}): use the scratch carrier or float32"
                )

    @contextmanager
    def along(self, direction: SharedDirection) -> Iterator[MoveTo]:
        """Yield `move_to(offset)`; the way back is taken whatever ends the block, tensor by tensor."""
        if direction.reads_weights:
            raise ValueError("a sparse law reads the weights, which in-place probes move: use the scratch carrier")
        position = {leaf.id: 0.0 for leaf in self.leaves}

        def move_to(offset: float) -> None:
            for leaf in self.leaves:
                # remembered per tensor, so an interrupt between two tensors of a move is undone too
                direction.displace(leaf.matrix, leaf.matrix, leaf, offset - position[leaf.id])
                position[leaf.id] = offset
                leaf.commit()

        try:
            yield move_to
        finally:
            move_to(0.0)

    def cost(self, direction: SharedDirection) -> float:
        """A displaced forward does the arithmetic of a plain one."""
        return 1.0
