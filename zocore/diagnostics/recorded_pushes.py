"""One recorded step of a method that pushes the outputs of layers, opened layer by layer: what was pushed, and why.

Everything is found again from the recording: the weights before the step, its pushes from their addresses, and what
layers read from a clean forward on the step's batch. Learned feedback adds what its matrices J foresaw by themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from zocore.carriers.outputs import OutputSite, Seen
from zocore.diagnostics.feedback_trace import share
from zocore.diagnostics.phase import corner
from zocore.directions.pushes import Pushes
from zocore.errors import InputError
from zocore.runs.events import StepDone
from zocore.runs.recording import decode_step
from zocore.runs.timeline import Timeline
from zocore.step.feedback import Feedback
from zocore.step.jacobian import Jacobian
from zocore.step.lesson import Lesson
from zocore.step.outer import pushed


@dataclass(frozen=True)
class PushedLayer:
    """One layer in one step."""

    name: str
    width: int  # outputs
    rows: int  # pushed, each by noise of its own: examples, or with --tie none their tokens; 0 without a push
    noise: list[list[float]]  # xi of the first rows on the first outputs; empty without a push
    projected: list[list[float]]  # gy, what the step made of the answers, for the same rows and outputs
    length: float  # of gy over the whole batch
    feedback: float | None = None  # |J| before the step; None where nothing is learned
    learned: float | None = None  # |J| after it
    foreseen: float | None = None  # share of the responses that this layer's J explains by itself, before the step


@dataclass(frozen=True)
class PushedStep:
    """A recorded step and its layers."""

    step: int
    eps: float
    examples: int
    layers: list[PushedLayer]
    foreseen: float | None = None  # share of the responses that all J together explain, before the step


def open_step(timeline: Timeline, number: int) -> PushedStep:
    """Return a recorded step layer by layer; the timeline is left after it.

    Raises InputError for methods that push nothing, and for steps that are not recorded or were skipped.
    """
    session = timeline.session
    event, method = _event(timeline, number), session.method
    timeline.go(number - 1)
    recorded, losses = decode_step(event, session.key(number), method.law), session.losses(number)
    pushes = [push for push in recorded.directions if isinstance(push, Pushes)]
    if not isinstance(method, Feedback):
        seen = losses.trace(pushes)
        assert isinstance(seen, Seen)
        estimate = pushed(pushes, recorded.coefficients, seen)
        layers = [_layer(site, seen, pushes[0], estimate.gradients) for site in seen.sites]
        timeline.go(number)
        return PushedStep(number, recorded.eps, losses.count, layers)
    lesson = method.recall(recorded, losses, session.key(number), session.state)
    jacobian = lesson.jacobian(session.state)
    residuals = jacobian.residuals(lesson.pushes, lesson.responses)
    estimate = method.estimate(lesson, jacobian, residuals)
    push = pushes[0] if pushes else None
    layers = [
        _foreseeing(_layer(site, lesson.seen, push, estimate.gradients), site, lesson, jacobian)
        for site in lesson.seen.sites
    ]
    foreseen = _explained(residuals, lesson.responses) if pushes else None
    timeline.go(number)
    learned = [float(jacobian.of(site).norm()) for site in lesson.seen.sites]
    layers = [replace(one, learned=size) for one, size in zip(layers, learned, strict=True)]
    return PushedStep(number, recorded.eps, losses.count, layers, foreseen)


def _event(timeline: Timeline, number: int) -> StepDone:
    """The event of a step that can be opened."""
    method = timeline.session.method
    if method.pushes is None:
        raise InputError(f"{method.name} moves weights, not the outputs of layers: there are no pushes to look at")
    event = next((event for event in timeline.recording.steps if event.step == number), None)
    if event is None:
        raise InputError(f"the recording has steps 1 to {timeline.last}: there is no step {number} to open")
    if event.skipped:
        raise InputError(f"step {number} was skipped, as an answer was no finite number: nothing came of its pushes")
    return event


def _layer(site: OutputSite, seen: Seen, push: Pushes | None, gradients: Callable[[OutputSite], Tensor]) -> PushedLayer:
    """What every method that pushes has: noise on the outputs, and what the step made of the answers."""
    gy, leaf = gradients(site), site.weight or site.bias
    assert leaf is not None
    if push is None:
        return PushedLayer(leaf.name, site.width, 0, [], corner(gy), float(gy.norm()))
    counted = seen.counted[site.id]
    xi = push.signs(site.id, seen.numbers, counted.shape[1], site.width)
    if push.tie == "none":
        xi = xi * counted.unsqueeze(-1)  # padding is not pushed
    rows = int(counted.sum()) if push.tie == "none" else len(counted)
    noise, projected = corner(xi.reshape(-1, site.width)), corner(gy)
    return PushedLayer(leaf.name, site.width, rows, noise, projected, float(gy.norm()))


def _foreseeing(layer: PushedLayer, site: OutputSite, lesson: Lesson, jacobian: Jacobian) -> PushedLayer:
    """The layer with what its J is, and what it foresees by itself."""
    alone = replace(jacobian, seen=replace(jacobian.seen, sites=[site]))
    residuals = alone.residuals(lesson.pushes, lesson.responses)
    foreseen = _explained(residuals, lesson.responses) if residuals else None
    return replace(layer, feedback=float(jacobian.of(site).norm()), foreseen=foreseen)


def _explained(residuals: list[Tensor], responses: Tensor) -> float:
    """1 - |r|^2 / |dh|^2, and 0 where that is less: J then foresees worse than nothing."""
    return max(0.0, 1 - share(residuals, responses))
