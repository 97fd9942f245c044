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
                pairs.append((_read(at(+eps), direction), _read(at(-eps), direction)))
        plus, minus = (torch.cat(side) for side in zip(*pairs, strict=True))
        return Measured(plus, minus, (plus - minus) / (2 * eps))

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
                pairs.append((_read(at(+eps), direction), _read(base, direction)))
        plus, minus = (torch.cat(side) for side in zip(*pairs, strict=True))
        return Measured(plus, minus, (plus - minus) / eps)

    def passes(self, directions: int) -> int:
        """One per direction and the base."""
        return directions + 1


def _read(losses: Tensor, direction: AnyDirection) -> Tensor:
    """(B,) losses as float64 on the host: their mean (1,) under a shared direction, else one per example (B,)."""
    values = losses.detach().double().cpu()
    return values.mean().reshape(1) if direction.shared else values
