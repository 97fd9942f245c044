"""One step of learned feedback, traced: the parts of `Feedback.step` in their order, each with what it found."""

from collections.abc import Iterator

from torch import Tensor

from zocore.diagnostics.phase import Phase, lines_of, some
from zocore.runs.session import Session
from zocore.runs.snapshot import Snapshot
from zocore.step.feedback import Feedback
from zocore.step.jacobian import Jacobian
from zocore.step.losses import Losses


def trace_feedback(session: Session, method: Feedback, number: int) -> Iterator[Phase]:
    """Do step `number` on the session's weights and feedback, and yield its parts."""
    eps, lr, key = session.config.eps, session.lr(number), session.key(number)
    assert eps is not None
    losses, before = session.losses(number), Snapshot.of(session)
    lesson, measured = method.ask(losses, key, eps)
    scores = method.readout.log_probs(lesson.answers)
    loss = float(-scores.gather(1, lesson.labels.unsqueeze(1)).double().mean())
    wrong = some(lesson.mistakes.abs().amax(1).tolist())
    text = f"the model answers as it is; the largest error of each example's label probabilities is {wrong}"
    yield Phase("Clean forward", text, lines_of(Losses.clean), loss)
    layers = len(lesson.seen.sites)
    text = (
        f"the outputs of {layers} layers are pushed by eps xi, random signs of each example's own; what is read of the "
        f"first example responds by {some(lesson.responses[0, 0].tolist())}"
    )
    pushed = float(measured.plus.mean()) if measured.finite else None
    yield Phase("Push and forward", text, lines_of(Feedback.ask), pushed)
    if not measured.finite:
        yield Phase("Skip", "an answer was not a finite number, so weights and feedback stay", lines_of(Feedback.step))
        return
    jacobian = lesson.jacobian(session.state)
    left = share(jacobian.residuals(lesson.pushes, lesson.responses), lesson.responses)
    text = f"what earlier pushes have taught foresaw {max(0.0, 1 - left):.0%} of these responses"
    yield Phase("Foresee", text, lines_of(Jacobian.respond))
    method.apply(session.leaves, lesson, key, lr, session.state)
    moved = before.distance(session)
    text = (
        "each example's error is carried back to the layers and multiplied by what they read: the weights moved by "
        f"{moved:.2e} in all (lr {lr:.2g})"
    )
    yield Phase("Carry back and update", text, lines_of(Feedback.estimate), moved=moved)
    after = share(jacobian.residuals(lesson.pushes, lesson.responses), lesson.responses)
    text = f"the feedback takes a step towards these responses: it would now foresee {max(0.0, 1 - after):.0%} of them"
    yield Phase("Learn", text, lines_of(Jacobian.learn), moved=moved)


def share(residuals: list[Tensor], responses: Tensor) -> float:
    """Return |r|^2 / |dh|^2."""
    left = sum(float(residual.double().square().sum()) for residual in residuals)
    return left / max(float(responses.double().square().sum()), 1e-300)
