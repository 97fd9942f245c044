"""From directions to numbers: where the loss is evaluated, and the directional derivative that follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zocore.step.losses import AnyDirection, Losses


@dataclass(frozen=True)
class Measured:
    """What the forward passes measured: one entry per direction, or per example where each has its own.

    `plus` and `minus` are losses; a one-sided difference has the base loss in `minus`. All are (K,) float64.
    """

    plus: Tensor
    minus: Tensor
    projected_grad: Tensor  # the directional derivative z . grad L, estimated
    moved: float = 1.0  # share of the examples' values that differ between the two points

    @property
    def finite(self) -> bool:
        """Whether every loss and difference is a finite number."""
        return bool(torch.isfinite(torch.cat([self.plus, self.minus, self.projected_grad])).all())


class Difference(Protocol):
    """Evaluates the loss along directions and takes differences."""

    def __call__(self, losses: Losses, directions: Sequence[AnyDirection], eps: float) -> Measured:
        """Return what was measured along the directions, with probes at a distance of eps."""

    def passes(self, directions: int) -> int:
        """Forward passes for so many directions."""

    @property
    def asks_base(self) -> bool:
        """Whether one of them is at the weights as they stand."""


@dataclass(frozen=True)
class Central:
    """(L(theta + eps z) - L(theta - eps z)) / (2 eps): SPSA's two-sided difference.

    The second-order terms cancel, so the error is eps^2 / 6 times the third derivative along z.
    """

    asks_base = False

    def __call__(self, losses: Losses, directions: Sequence[AnyDirection], eps: float) -> Measured:
        """Evaluate two points per direction; the difference is taken in float64."""
        pairs = []
        for direction in directions:
            with losses.along(direction) as at:
                pairs.append((at(+eps), at(-eps)))
        plus, minus, moved = _read(pairs, directions)
        return Measured(plus, minus, (plus - minus) / (2 * eps), moved)

    def passes(self, directions: int) -> int:
        """Two per direction."""
        return 2 * directions


@dataclass(frozen=True)
class Forward:
    """(L(theta + eps z) - L(theta)) / eps with one shared base loss; its bias is O(eps)."""

    asks_base = True

    def __call__(self, losses: Losses, directions: Sequence[AnyDirection], eps: float) -> Measured:
        """Evaluate the base point once and one point per direction; the difference is taken in float64."""
        base = losses()
        pairs = []
        for direction in directions:
            with losses.along(direction) as at:
                pairs.append((at(+eps), base))
        plus, minus, moved = _read(pairs, directions)
        return Measured(plus, minus, (plus - minus) / eps, moved)

    def passes(self, directions: int) -> int:
        """One per direction and the base."""
        return directions + 1


def _read(pairs: Sequence[tuple[Tensor, Tensor]], directions: Sequence[AnyDirection]) -> tuple[Tensor, Tensor, float]:
    """Two losses (B,) of each direction as float64 on the host: (K,), or (B,) where each example has its own.

    The third is the share of all losses that differ between the two.

    All are fetched at once, after the last forward: fetching each would stop a GPU between two forwards.
    """
    values = torch.stack([loss.detach() for pair in pairs for loss in pair]).cpu().double()  # (2 K, B)
    plus, minus = values[0::2], values[1::2]
    moved = float((plus != minus).double().mean())
    if directions[0].shared:
        return torch.stack([row.mean() for row in plus]), torch.stack([row.mean() for row in minus]), moved
    return plus.flatten(), minus.flatten(), moved
