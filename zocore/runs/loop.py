"""A run as one generator of events. It prints nothing and knows no method by name."""

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version

import torch

from zocore.carriers.scratch import Scratch
from zocore.config import RunConfig
from zocore.defaults import estimates
from zocore.models.objectives.evaluation import evaluate
from zocore.noise import addressed
from zocore.runs.estimator import measure
from zocore.runs.events import EstimatorMeasured, EvalDone, Event, RunEnded, RunStarted, SampleShown, StepDone, Warned
from zocore.runs.peak_memory import PeakMemory
from zocore.runs.recording import Recording, decode_directions, decode_touched, encode_directions
from zocore.runs.session import Session, data_fingerprint, open_session
from zocore.runs.warnings import MAX_SKIPPED, Watch
from zocore.step.step import Method, Step

Stop = Callable[[], bool]
SAMPLES = 5  # sentences shown before and after
NAMED = ("torch", "transformers", "bitsandbytes", "numba")


def run(config: RunConfig, stop: Stop = lambda: False, recording: Recording | None = None) -> Iterator[Event]:
    """Yield the events of a run, or of the rest of a recorded one; `stop` is asked before each step.

    Raises ValueError before the first event when the settings cannot work. A failure inside a step leaves the
    weights where the step began, yields RunEnded with the reason, and is raised again.
    """
    session = open_session(config, recording.header.frozen if recording else None)
    course = _Course(session, stop)
    if recording:
        check_base(session, recording)
        check_data(session, recording)
        replay(session, recording.steps)
        course.take_up(recording.steps)
    yield course.started(recording)
    yield from course.events()


def run_session(session: Session, stop: Stop = lambda: False) -> Iterator[Event]:
    """Yield the events of a run of a session that somebody else put together, from its first step."""
    course = _Course(session, stop)
    yield course.started(None)
    yield from course.events()


def replay(session: Session, steps: list[StepDone], until: int | None = None) -> None:
    """Bring a fresh session's weights to where the recorded steps left them, without a forward pass.

    Bitwise equal to the live run on the same device, unless probes were carried in place. Raises ValueError
    when the method cannot be replayed.
    """
    method = session.method
    if not isinstance(method, Method):
        raise ValueError(f"{method.name} and replay do not go together: its gradients are not in the recording")
    for event in steps:
        if (until is None or event.step <= until) and event.coefficients:
            key = session.key(event.step)
            directions = decode_directions(event.directions, key, method.sampler.law)
            touched = decode_touched(event)
            method.apply(session.leaves, directions, event.coefficients, touched, key, event.lr, session.state)


def check_base(session: Session, recording: Recording) -> None:
    """Raise ValueError when the base model or the noise is not the one the recording was made with."""
    header = recording.header
    if header.fingerprint != session.loaded.fingerprint:
        raise ValueError(
            f"the weights of {header.model} are not those the run started from: its recording does not fit"
        )
    if header.versions.get("noise") != str(addressed.VERSION):
        raise ValueError("the recording was made with another version of the noise: its directions cannot be rebuilt")


def check_data(session: Session, recording: Recording) -> None:
    """Raise ValueError when the training data is not what the recorded steps drew their batches from."""
    if data_fingerprint(session.task) != recording.header.data_fingerprint:
        raise ValueError("the training data, template or label words have changed since the run: it cannot go on")


@dataclass
class _Course:
    """The state of a running run."""

    session: Session
    stop: Stop
    done: int = 0
    passes: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    peak: int = 0
    watch: Watch = field(default_factory=Watch)

    def __post_init__(self) -> None:
        self.memory = PeakMemory(torch.device(self.session.config.device or "cpu"), self.session.tensors)

    def take_up(self, steps: list[StepDone]) -> None:
        """Go on counting where the recorded steps ended; what loading and replaying took is not a step's memory."""
        self.memory.reset()
        for event in steps:
            self.watch.add(event)
            self.peak = max(self.peak, event.memory_bytes)
        if steps:
            last = steps[-1]
            self.done, self.passes, self.cost, self.seconds = (
                last.step,
                last.forward_passes,
                last.forward_cost,
                last.seconds,
            )

    def events(self) -> Iterator[Event]:
        try:
            if self.done == 0:
                yield from self._look(0)
            reason = None
            while reason is None:
                reason = self._over()
                if reason is None:
                    yield from self._advance()
            yield from self._look(self.done)
            yield self._ended(*reason)
        except Exception as error:
            yield self._ended("failed", sentence(error))
            raise

    def _over(self) -> tuple[str, str] | None:
        """Whether the run is over: (status, reason)."""
        if self.watch.skipped_in_row >= MAX_SKIPPED:
            return "failed", (
                f"the loss was not a finite number in {MAX_SKIPPED} steps in a row: the learning rate or eps is too "
                "large, or the dtype too narrow"
            )
        if self.done >= self.session.config.steps:
            return "finished", f"all {self.done} steps done"
        return ("stopped", f"stopped after step {self.done}") if self.stop() else None

    def _advance(self) -> Iterator[Event]:
        config, number = self.session.config, self.done + 1
        if config.measure_every and (number - 1) % config.measure_every == 0:
            yield from self._measure(number)
        event = self._step(number)
        yield event
        yield from self.watch.add(event)
        if config.eval_every and number % config.eval_every == 0 and number < config.steps:
            yield self._evaluate(number, "dev")
            yield self._sample(number)

    def _step(self, number: int) -> StepDone:
        session, started = self.session, time.perf_counter()
        losses, lr, eps = session.losses(number), session.lr(number), session.config.eps
        assert eps is not None
        with self.memory.step(losses.positions):
            step = session.method.step(session.leaves, losses, session.key(number), lr, eps, session.state)
        self.done, self.seconds = number, self.seconds + time.perf_counter() - started
        self.passes, self.cost = self.passes + losses.forward_passes, self.cost + losses.forward_cost
        self.peak = max(self.peak, self.memory.peak())
        return self._told(step, lr, eps)

    def _told(self, step: Step, lr: float, eps: float) -> StepDone:
        told = step.measured
        touched = {str(leaf): [rows.tolist() for rows in seen] for leaf, seen in (step.touched or {}).items()}
        return StepDone(
            self.done,
            step.loss,
            told.plus.tolist() if told else [],
            told.minus.tolist() if told else [],
            told.projected_grad.tolist() if told else [],
            list(step.coefficients),
            encode_directions(step.directions),
            lr,
            eps,
            self.passes,
            self.cost,
            self.seconds,
            self.done / max(self.seconds, 1e-9),
            self.memory.peak(),
            step.skipped,
            touched or None,
        )

    def _measure(self, number: int) -> Iterator[Event]:
        """Measure the estimator with forwards of its own, where the method draws directions at all."""
        session, eps = self.session, self.session.config.eps
        if not isinstance(session.method, Method) or eps is None:
            return
        plain = all(leaf.shown_dtype is None and leaf.floor is None for leaf in session.leaves)
        with self.memory.apart():
            # never in place: a measurement must not leave even a rounding behind
            losses = replace(session.losses(number), shared=Scratch(session.leaves))
            reading = measure(session.method, session.leaves, losses, session.key(number), eps, backprop=plain)
        if reading is None:
            yield Warned(number, "the estimator could not be measured: a loss was not a finite number")
        else:
            r = reading
            yield EstimatorMeasured(
                number - 1, r.estimates, r.variance, r.norm, r.cosine, r.norm_ratio, r.forward_passes
            )

    def _look(self, step: int) -> Iterator[Event]:
        """Accuracy and a few answers on held-out examples, before the first step and after the last."""
        yield self._evaluate(step, "test")
        yield self._sample(step)

    def _sample(self, step: int) -> SampleShown:
        """The model's answers on the first few test examples."""
        shown = self.session.task.test[:SAMPLES]
        with self.memory.apart(), torch.no_grad():
            log_probs = self.session.objective.log_probs(self.session.objective.batch(list(shown)))
        names = self.session.task.label_names
        texts = ["\n".join(example.fields.values()) for example in shown]
        return SampleShown(step, texts, [names[example.label] for example in shown], log_probs.exp().tolist())

    def _evaluate(self, step: int, split: str) -> EvalDone:
        started, config = time.perf_counter(), self.session.config
        examples = getattr(self.session.task, split)[: config.eval_examples]
        with self.memory.apart():
            found = evaluate(self.session.objective, examples, batch_size=4 * config.batch_size)
        return EvalDone(step, split, found.loss, found.accuracy, len(examples), time.perf_counter() - started)

    def started(self, recording: Recording | None) -> RunStarted:
        s = self.session
        task = s.task
        return RunStarted(
            s.config.to_json(),
            s.loaded.name,
            s.loaded.kind,
            s.loaded.fingerprint,
            data_fingerprint(task),
            str(self.memory.device),
            s.config.dtype or "",
            sum(p.numel() for p in s.loaded.model.parameters()),
            s.trainable,
            [[leaf.id, leaf.name, list(leaf.tensor.shape)] for leaf in s.leaves],
            list(s.frozen),
            list(task.label_names),
            {"train": len(task.train), "dev": len(task.dev), "test": len(task.test)},
            s.method.forward_passes(),
            s.cost_per_step,
            self.memory.kind,
            [*s.loaded.notes, *estimates(s.config)],
            {"noise": str(addressed.VERSION), "python": platform.python_version()}
            | {name: version(name) for name in NAMED},
            recording.steps[-1].step if recording and recording.steps else 0,
        )

    def _ended(self, status: str, reason: str) -> RunEnded:
        return RunEnded(
            status,
            reason,
            self.done,
            self.passes,
            self.cost,
            self.seconds,
            self.done / max(self.seconds, 1e-9),
            self.peak,
            self.watch.skipped,
            self.session.fingerprint(),
        )


def sentence(error: Exception) -> str:
    """Return what went wrong in a run, for people."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return "out of memory: take a smaller --micro-batch or --max-tokens, or a model in fewer bits"
    return f"{type(error).__name__}: {error}"
