"""Checks of a session's own machinery, each a number and, where that is bad, one sentence on what to do.

A sound engine passes the first two with any settings; `broken_runs.py` breaks it on purpose.
"""

from dataclasses import replace
from math import sqrt

import torch
from torch import Tensor

from zocore.diagnostics.loss_slices import direction
from zocore.directions.laws import Combination, Direction
from zocore.runs.session import Session
from zocore.runs.snapshot import Snapshot

TRIAL = 2**21  # the step number of the checks' own noise
ROUNDING = 1e-6  # relative movement that in-place float32 probes leave by rounding
DROWNED = 3.0  # largest ratio of the slopes at eps to those at ten times eps
TOO_FAR = 0.3  # most by which the loss at the probes may exceed that at the weights, relative to it


def restore_drift(session: Session) -> float:
    """Return how far one probe leaves the weights from where they were, relative to their length; 0 when restored."""
    before, losses = Snapshot.of(session), session.losses(1)
    with losses.along(_trial(session)) as at:
        at(session.config.eps or 1e-3)
    drift = before.distance(session) / max(before.length(), 1e-12)
    before.restore(session)
    return drift


def update_alignment(session: Session, step: int) -> float:
    """Return |cosine| between the move of one step and the direction its probes measured: 1 for one direction.

    The step is undone.
    """
    before, key = Snapshot.of(session), session.key(step)
    assert session.config.eps is not None
    done = session.method.step(
        session.leaves, session.losses(step), key, session.lr(step), session.config.eps, session.state
    )
    inner = moved = length = 0.0
    for leaf, old in zip(session.leaves, before.tensors, strict=True):
        move = (leaf.tensor - old).double()
        z = sum((_tensor(d, leaf).double() for d in done.directions), torch.zeros_like(move))
        inner, moved, length = (
            inner + float((move * z).sum()),
            moved + float(move.square().sum()),
            length + float(z.square().sum()),
        )
    before.restore(session)
    return abs(inner) / sqrt(moved * length) if moved and length else 1.0


def curvature_excess(session: Session, step: int) -> float:
    """Return by how much the mean loss of the two probes exceeds that of the weights, relative to the latter."""
    losses, eps = session.losses(step), session.config.eps or 1e-3
    base = float(losses().double().mean())
    with losses.along(_trial(session)) as at:
        sides = [float(at(side * eps).double().mean()) for side in (1, -1)]
    return (sum(sides) / 2 - base) / max(base, 1e-12)


def rounding_share(session: Session, step: int, directions: int = 4) -> float:
    """Return the root mean square slope at eps over that at ten times eps: 1 for true slopes, 10 for rounding noise."""
    losses, eps = session.losses(step), session.config.eps or 1e-3
    sums = [0.0, 0.0]
    for number in range(directions):
        along = replace(_trial(session), key=replace(session.key(TRIAL), direction=number + 1))
        with losses.along(along) as at:
            for place, offset in enumerate((eps, 10 * eps)):
                slope = float((at(offset).double() - at(-offset).double()).mean()) / (2 * offset)
                sums[place] += slope**2
    return sqrt(sums[0] / sums[1]) if sums[1] else 1.0


def find_fault(session: Session, step: int) -> str | None:
    """Return the first thing that is wrong with the session, or None."""
    if restore_drift(session) > ROUNDING:
        return (
            "a probe left the weights away from where they were: each step adds noise that nobody measured; "
            "take the way back whatever happens, as both carriers of the engine do"
        )
    if update_alignment(session, step) < 0.5:
        return (
            "the update moved along another direction than the probes measured: the seed was lost between the two; "
            "address the noise by run seed and step, as the engine does, and draw it from there both times"
        )
    if curvature_excess(session, step) > TOO_FAR:
        return (
            "the probes see a much higher loss than the weights have, so the difference is not the slope here: "
            "eps is too large, try a tenth of it"
        )
    if rounding_share(session, step) > DROWNED:
        return (
            "ten times the eps gives a several times smaller slope, so most of the difference is rounding: "
            "eps is too small for this dtype, try a hundred times as much"
        )
    return None


def _trial(session: Session) -> Direction:
    return Direction(session.key(TRIAL), direction(session).law)


def _tensor(direction: object, leaf: object) -> Tensor:
    if not isinstance(direction, Direction | Combination):
        raise ValueError("the check needs directions that the whole batch shares")
    return direction.tensor(leaf)  # type: ignore[arg-type]
