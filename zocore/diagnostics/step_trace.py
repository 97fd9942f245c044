"""One zeroth-order step, traced: the parts of `Method.step` in their order, each with what it found."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt

from zocore.runs.session import Session
from zocore.runs.snapshot import Snapshot
from zocore.step.difference import Measured
from zocore.step.losses import AnyDirection, Losses
from zocore.step.step import Method

SHOWN = 3  # directions shown one by one; the rest share one line


@dataclass(frozen=True)
class Phase:
    """One part of a step: what it does, what it found, and the lines that ran."""

    title: str
    text: str
    code: str
    loss: float | None = None
    moved: float = 0.0  # distance of the weights the model now sees from where the step began


def trace(session: Session, number: int) -> Iterator[Phase]:
    """Do step `number` on the session's weights and yield its parts. Raises ValueError for backprop."""
    method, eps, lr = session.method, session.config.eps, session.lr(number)
    if not isinstance(method, Method) or eps is None:
        raise ValueError(f"{method.name} takes a gradient: only steps from forward passes can be traced")
    losses, key, before = session.losses(number), session.key(number), Snapshot.of(session)
    directions = tuple(method.sampler(key, losses, eps))
    yield Phase("Choose", _chosen(directions, losses), _lines(type(method.sampler).__call__))
    yield from _probes(session, losses, directions, eps)
    touched = losses.touched  # as the forwards left it: entering the carrier again starts a new list
    measured = method.difference(losses, directions, eps)  # every point was asked above: no forward is run again
    coefficients = tuple(method.shaping(measured).tolist()) if measured.finite else ()
    yield Phase("Difference", _differences(measured, eps), _lines(type(method.difference).__call__))
    drift = before.distance(session)
    yield Phase(
        "Restore",
        f"the weights are {drift:.1e} from where the step began",
        _lines(type(losses.shared).along),
        moved=drift,
    )
    if not coefficients:
        yield Phase("Skip", "a loss was not a finite number, so the weights stay", _lines(Method.step))
        return
    method.apply(session.leaves, directions, coefficients, touched, key, lr, session.state)
    moved = before.distance(session)
    text = f"shaped to {_some(coefficients)}; every weight moved along z, by {moved:.2e} in all (lr {lr:.2g})"
    yield Phase("Update", text, _lines(Method.apply), moved=moved)


def _probes(session: Session, losses: Losses, directions: tuple[AnyDirection, ...], eps: float) -> Iterator[Phase]:
    """Ask the points of the difference, in its order; they are remembered by `losses`."""
    assert isinstance(session.method, Method)
    one_sided = session.method.difference.passes(1) == session.method.difference.passes(0) + 1
    far = eps * sqrt(session.trainable)
    for count, direction in enumerate(directions):
        name = f" {count + 1} of {len(directions)}" if len(directions) > 1 else ""
        with losses.along(direction) as at:
            for sign in (1.0,) if one_sided else (1.0, -1.0):
                value = float(at(sign * eps).double().mean())
                if count < SHOWN:
                    side = "+" if sign > 0 else "-"
                    text = f"the model reads theta {side} eps z, about {far:.2g} away, and answers with one loss"
                    yield Phase(
                        f"Perturb {side} and forward{name}", text, _lines(type(losses.shared).along), value, far
                    )
    if len(directions) > SHOWN:
        yield Phase("More directions", f"the same for the other {len(directions) - SHOWN}", _lines(Losses.along))


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
    plus, minus = _some(measured.plus.tolist()), _some(measured.minus.tolist())
    slopes = _some(measured.projected_grad.tolist())
    return f"loss {plus} against {minus}, so z · gradient is about {slopes} (eps {eps:.2g})"


def _some(values: list[float] | tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:.5g}" for value in values[:SHOWN])
    return shown + (", ..." if len(values) > SHOWN else "")


def _lines(function: Callable[..., object]) -> str:
    """The body of a function without its docstring: the lines that ran."""
    source = inspect.cleandoc(inspect.getsource(function)).split("\n")
    start = next((i for i, line in enumerate(source) if line.strip().startswith('"""')), -1) + 1
    while 0 < start < len(source) and source[start - 1].count('"""') == 1 and '"""' not in source[start]:
        start += 1
    return inspect.cleandoc("\n".join(source[start:]))
