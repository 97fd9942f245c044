"""The loss over the plane through three points of a run: its start, its middle and its end."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zocore.data.tasks import Example
from zocore.models.objectives.evaluation import evaluate
from zocore.runs.session import Session
from zocore.runs.snapshot import Snapshot


@dataclass(frozen=True)
class Plane:
    """A point of weight space and two orthogonal unit vectors, all flat (d,)."""

    origin: Tensor
    x: Tensor
    y: Tensor

    @classmethod
    def through(cls, start: Tensor, middle: Tensor, end: Tensor) -> "Plane":
        """Return the plane of three points: x from the start to the end, y towards the middle."""
        x = (end - start) / (end - start).norm()
        aside = (middle - start) - ((middle - start) @ x) * x
        return cls(start, x, aside / aside.norm())

    def place(self, point: Tensor) -> tuple[float, float]:
        """Return where the shadow of a point falls."""
        return float((point - self.origin) @ self.x), float((point - self.origin) @ self.y)

    def shadow(self, direction: Tensor) -> tuple[float, float]:
        """Return the part of a direction that lies in the plane."""
        return float(direction @ self.x), float(direction @ self.y)


def weights(session: Session) -> Tensor:
    """Return a copy of everything that moves as one flat tensor (d,)."""
    return torch.cat([leaf.tensor.detach().flatten().float() for leaf in session.leaves])


def heights(
    session: Session, plane: Plane, xs: Sequence[float], ys: Sequence[float], examples: Sequence[Example]
) -> list[list[float]]:
    """Return the loss of the examples at each place of a plane, one row for each y; the weights stay."""
    before = Snapshot.of(session)
    try:
        return [[_height(session, plane.origin + x * plane.x + y * plane.y, examples) for x in xs] for y in ys]
    finally:
        before.restore(session)


def _height(session: Session, point: Tensor, examples: Sequence[Example]) -> float:
    first = 0
    with torch.no_grad():
        for leaf in session.leaves:
            count = leaf.tensor.numel()
            leaf.tensor.copy_(point[first : first + count].view_as(leaf.tensor))
            leaf.commit()
            first += count
    return evaluate(session.objective, examples, len(examples)).loss
