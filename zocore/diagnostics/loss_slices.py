"""Slices of the loss at fixed weights: what a probe sees along one direction, and the slope it finds at each eps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from zocore.directions.laws import Direction
from zocore.directions.pushes import Pushes
from zocore.runs.session import Session

FIRST = 2**20  # step number of the slices' own noise: no run is that long


@dataclass(frozen=True)
class Slice:
    """Mean loss of one batch along one direction, and the derivative there."""

    offsets: list[float]
    losses: list[float]
    slope: float | None  # z . grad L by backprop, None along pushes and where a leaf is no ordinary parameter


@dataclass(frozen=True)
class Secant:
    """The line through the losses at plus and minus eps: what a central difference sees."""

    eps: float
    plus: float
    minus: float

    @property
    def slope(self) -> float:
        """(plus - minus) / (2 eps)."""
        return (self.plus - self.minus) / (2 * self.eps)


def direction(session: Session, number: int = 0) -> Direction:
    """Return the slices' direction `number`, of the law the method draws from."""
    method = session.method
    if not method.zeroth_order:
        raise ValueError(f"{method.name} draws no directions: choose a zeroth-order method")
    return Direction(replace(session.key(FIRST), direction=number), method.law)


def probe(session: Session, number: int = 0) -> Direction | Pushes:
    """Return what the method's own probes move along: a direction in the weights, or noise on the outputs of layers."""
    tie = session.method.pushes
    if tie is None:
        return direction(session, number)
    return Pushes(replace(session.key(FIRST), direction=number), tie)


def slice_along(session: Session, along: Direction | Pushes, offsets: Sequence[float]) -> Slice:
    """Return the loss of the first batch at each offset along a direction; the weights stay."""
    losses = session.losses(1)
    with losses.along(along) as at:
        means = [float(at(offset).double().mean()) for offset in offsets]
    return Slice(list(offsets), means, slope_along(session, along))


def slope_along(session: Session, along: Direction | Pushes) -> float | None:
    """Return z . grad L on the first batch by backprop, None where that is not possible: backprop stops at weights."""
    if isinstance(along, Pushes):
        return None
    try:
        truth = session.losses(1).gradient()[1]
    except ValueError:
        return None
    return sum(float((along.tensor(leaf).double() * truth[leaf.id].double()).sum()) for leaf in session.leaves)


def secants(session: Session, along: Direction | Pushes, eps: Sequence[float]) -> list[Secant]:
    """Return the secant at each eps on the first batch."""
    losses, lines = session.losses(1), []
    with losses.along(along) as at:
        for distance in eps:
            plus, minus = (float(at(sign * distance).double().mean()) for sign in (1, -1))
            lines.append(Secant(distance, plus, minus))
    return lines
