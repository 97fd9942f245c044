"""One step of learned feedback, traced: the parts of `Feedback.step` in their order, each with what it found."""

from collections.abc import Iterator
from math import isfinite

import torch
from torch import Tensor

from zocore.diagnostics.phase import Phase, corner, lines_of, some
from zocore.runs.session import Session
from zocore.runs.snapshot import Snapshot
from zocore.step.feedback import Feedback
from zocore.step.jacobian import Jacobian
from zocore.step.lesson import Lesson
from zocore.step.losses import Losses


def trace_feedback(session: Session, method: Feedback, number: int) -> Iterator[Phase]:
    """Do step `number` on the session's weights and feedback, and yield its parts."""
    eps, lr, key = session.config.eps, session.lr(number), session.key(number)
    assert eps is not None
    losses, before = session.losses(number), Snapshot.of(session)
    lesson, measured = method.ask(losses, key, eps, session.state)
    jacobian = lesson.jacobian(session.state)
    scores = method.readout.log_probs(lesson.answers)
    loss = float(-scores.gather(1, lesson.labels.unsqueeze(1)).double().mean())
    wrong = some(lesson.mistakes.abs().amax(1).tolist())
    text = f"the model answers as it is; the largest error of each example's label probabilities is {wrong}"
    yield Phase("Clean forward", text, lines_of(Losses.clean), loss)
    if lesson.pushes:
        yield _pushed(lesson, jacobian, float(measured.plus.mean()) if measured.finite else None)
    else:
        text = "no outputs are pushed in this step: what earlier pushes have taught is trusted as it stands"
        yield Phase("No push", text, lines_of(Feedback.asks))
    if not (isfinite(loss) and measured.finite):
        yield Phase("Skip", "an answer was not a finite number, so weights and feedback stay", lines_of(Feedback.step))
        return
    if lesson.pushes:
        yield _foreseen(lesson, jacobian)
    method.apply(session.leaves, lesson, key, lr, session.state)
    moved = before.distance(session)
    text = (
        "each example's error is carried back to the layers and multiplied by what they read: the weights moved by "
        f"{moved:.2e} in all (lr {lr:.2g})"
    )
    yield Phase("Carry back and update", text, lines_of(Feedback.estimate), moved=moved)
    if lesson.pushes:
        yield _learned(lesson, jacobian, moved)


def _pushed(lesson: Lesson, jacobian: Jacobian, loss: float | None) -> Phase:
    text = (
        f"the outputs of {len(lesson.seen.sites)} layers are pushed by eps xi, random signs of each example's own; "
        f"what is read of the first example responds by {some(lesson.responses[0, 0].tolist())}"
    )
    site = lesson.seen.sites[0]
    xi = jacobian.signs(lesson.pushes[0], site).flatten(0, -2)
    rows = f"xi of the first examples (rows) on the first of {site.width} outputs of one layer"
    return Phase("Push and forward", text, lines_of(Feedback.ask), loss, picture=corner(xi), rows=rows)


def _foreseen(lesson: Lesson, jacobian: Jacobian) -> Phase:
    left = share(jacobian.residuals(lesson.pushes, lesson.responses), lesson.responses)
    text = f"what earlier pushes have taught foresaw {max(0.0, 1 - left):.0%} of these responses"
    foreseen = torch.stack([lesson.responses[0, 0], jacobian.respond(lesson.pushes[0])[0]])
    rows = "how the first example responded (above) and what was foreseen (below), in the first numbers of its answer"
    return Phase("Foresee", text, lines_of(Jacobian.respond), picture=corner(foreseen), rows=rows)


def _learned(lesson: Lesson, jacobian: Jacobian, moved: float) -> Phase:
    left = share(jacobian.residuals(lesson.pushes, lesson.responses), lesson.responses)
    text = f"the feedback takes a step towards these responses: it would now foresee {max(0.0, 1 - left):.0%} of them"
    rows = "the learned feedback J of that layer: the first answers (rows) by the first outputs; it grows step by step"
    picture = corner(jacobian.of(lesson.seen.sites[0]))
    return Phase("Learn", text, lines_of(Jacobian.learn), moved=moved, picture=picture, rows=rows)


def share(residuals: list[Tensor], responses: Tensor) -> float:
    """Return |r|^2 / |dh|^2."""
    left = sum(float(residual.double().square().sum()) for residual in residuals)
    return left / max(float(responses.double().square().sum()), 1e-300)
