"""One zeroth-order step, traced: the parts of `Method.step` in their order, each with its result."""

from collections.abc import Iterator
from math import sqrt

import torch

from zocore.diagnostics.feedback_trace import trace_feedback
from zocore.diagnostics.phase import ROWS, SHOWN, Phase, corner, lines_of, some
from zocore.directions.pushes import Pushes
from zocore.runs.session import Session
from zocore.runs.snapshot import Snapshot
from zocore.step.difference import Measured
from zocore.step.feedback import Feedback
from zocore.step.losses import AnyDirection, Losses
from zocore.step.step import Method


def trace(session: Session, number: int) -> Iterator[Phase]:
    """Do step `number` on the session's weights and yield its parts. Raises ValueError for backprop."""
    method = session.method
    if isinstance(method, Feedback):
        yield from trace_feedback(session, method, number)
    elif isinstance(method, Method):
        yield from _trace(session, method, number)
    else:
        raise ValueError(f"{method.name} takes a gradient: only steps from forward passes can be traced")


def _trace(session: Session, method: Method, number: int) -> Iterator[Phase]:
    eps, lr = session.config.eps, session.lr(number)
    assert eps is not None
    losses, key, before = session.losses(number), session.key(number), Snapshot.of(session)
    directions = tuple(method.sampler(key, losses, eps))
    picture, rows = _pushed(session, directions[0], losses)
    yield Phase(
        "Choose", _chosen(directions, losses), lines_of(type(method.sampler).__call__), picture=picture, rows=rows
    )
    yield from _probes(session, method, losses, directions, eps)
    left = losses.trace(directions)  # as the forwards left it: entering the carrier again starts a new list
    measured = method.difference(losses, directions, eps)  # every point was evaluated above: no forward runs again
    coefficients = tuple(method.shaping(measured).tolist()) if measured.finite else ()
    yield Phase("Difference", _differences(measured, eps), lines_of(type(method.difference).__call__))
    drift = before.distance(session)
    yield Phase(
        "Restore",
        f"the weights are {drift:.1e} from where the step began",
        lines_of(type(losses.shared).along),
        moved=drift,
    )
    if not coefficients:
        yield Phase("Skip", "a loss was not a finite number, so the weights stay", lines_of(Method.step))
        return
    method.apply(session.leaves, directions, coefficients, left, key, lr, session.state)
    moved = before.distance(session)
    text = f"shaped to {some(coefficients)}; every weight moved along z, by {moved:.2e} in all (lr {lr:.2g})"
    yield Phase("Update", text, lines_of(Method.apply), moved=moved)


def _probes(
    session: Session, method: Method, losses: Losses, directions: tuple[AnyDirection, ...], eps: float
) -> Iterator[Phase]:
    """Evaluate the points of the difference, in its order; `losses` remembers them."""
    far = eps * sqrt(session.trainable)
    for count, direction in enumerate(directions):
        name = f" {count + 1} of {len(directions)}" if len(directions) > 1 else ""
        with losses.along(direction) as at:
            for sign in (1.0,) if method.difference.asks_base else (1.0, -1.0):
                value = float(at(sign * eps).double().mean())
                if count < SHOWN:
                    side = "+" if sign > 0 else "-"
                    text = (
                        f"the outputs of the layers that move are pushed by {side} eps xi, random signs of each "
                        "example's own, and each example answers with its loss"
                        if method.pushes
                        else f"the model reads theta {side} eps z, about {far:.2g} away, and answers with one loss"
                    )
                    yield Phase(
                        f"Perturb {side} and forward{name}", text, lines_of(type(losses.shared).along), value, far
                    )
    if len(directions) > SHOWN:
        yield Phase("More directions", f"the same for the other {len(directions) - SHOWN}", lines_of(Losses.along))


def _pushed(session: Session, direction: AnyDirection, losses: Losses) -> tuple[list[list[float]], str]:
    """The first signs of a push on the outputs of the first layer; nothing where weights are moved."""
    if not isinstance(direction, Pushes) or session.outputs is None:
        return [], ""
    site = session.outputs.sites[0]
    numbers = torch.arange(min(ROWS, losses.count), device=session.objective.device)
    signs = direction.signs(site.id, numbers, 1, site.width).squeeze(1)
    rows = "examples" if direction.tie == "tokens" else "tokens"
    return corner(signs), f"xi of the first {rows} (rows) on the first of {site.width} outputs of one layer"


def _chosen(directions: tuple[AnyDirection, ...], losses: Losses) -> str:
    count = losses.count if not directions[0].shared else len(directions)
    kind = (
        "one direction for each example"
        if not directions[0].shared
        else "one direction"
        if count == 1
        else "directions"
    )
    spent = f"; {losses.forward_passes} forward passes went into choosing" if losses.forward_passes else ""
    return f"{count} {kind} z, named by the seed and the step: nothing is stored{spent}"


def _differences(measured: Measured, eps: float) -> str:
    plus, minus = some(measured.plus.tolist()), some(measured.minus.tolist())
    slopes = some(measured.projected_grad.tolist())
    return f"loss {plus} against {minus}, so z · gradient is about {slopes} (eps {eps:.2g})"
