"""A run as one generator of events. It prints nothing and knows no method by name."""

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from math import nan
from pathlib import Path

import torch

from zocore.config import RunConfig
from zocore.defaults import estimates
from zocore.errors import InputError
from zocore.noise import addressed
from zocore.parallel.ranks import Ranks
from zocore.runs.best_point import BestPoint
from zocore.runs.events import (
    CompletionsShown,
    EvalDone,
    Event,
    RunEnded,
    RunStarted,
    SampleShown,
    StepDone,
    Warned,
)
from zocore.runs.kept_weights import after, keep, put_away, restore, take_back
from zocore.runs.measuring import estimator_measured, rounding_told
from zocore.runs.opening import open_session
from zocore.runs.peak_memory import PeakMemory
from zocore.runs.rate_search import RateSearch, with_found_rate
from zocore.runs.rebuilding import check_base, check_data, replay
from zocore.runs.recording import SUMS, Recording, encode_directions, encode_tensor
from zocore.runs.session import Session
from zocore.runs.task import data_fingerprint
from zocore.runs.warnings import MAX_SKIPPED, Watch
from zocore.step.step import Step

Stop = Callable[[], bool]
SAMPLES = 5  # sentences shown before and after
IN_PLACE = (
    "in-place probes leave roundings in the weights that no recording holds: from here the run goes on from weights "
    "equal to the interrupted ones to rounding, not bit for bit"
)
NAMED = ("torch", "transformers", "bitsandbytes", "numba")


def run(
    config: RunConfig,
    stop: Stop = lambda: False,
    recording: Recording | None = None,
    ranks: Ranks | None = None,
    folder: Path | None = None,
    sentences: Sequence[str] = (),
    weights: Path | None = None,
) -> Iterator[Event]:
    """Yield the events of a run, or of the rest of a recorded one; `stop` is asked before each step.

    Snapshots of the weights go to `folder`, where the settings ask for them; with `weights`, that file keeps those of
    the last step when the generator is left. Either spares a replay of the steps before. `sentences` are asked first
    wherever a few test examples are; they have no true label, and are prompts where text is written. With `ranks`,
    several processes share each batch, and each of them has to go through the events.
    Raises ValueError before the first event when the settings cannot work. A failure inside a step leaves the
    weights where the step began, yields RunEnded with the reason, and is raised again.
    """
    ranks = ranks or Ranks()
    search = None
    if config.searches:
        config, search = with_found_rate(config, stop)
    session = open_session(config, recording.header.frozen if recording else None, ranks=ranks)
    session.objective.ready()
    if sentences and session.objective.written(sentences) is None:
        session.objective.probabilities(sentences)  # what cannot be asked is told before the first event
    course = _Course(session, lambda: ranks.stopping, folder, tuple(sentences))
    ranks.stop = lambda: stop() or course.late
    damaged: list[str] = []
    if recording:
        check_base(session, recording)
        check_data(session, recording)
        begin, damaged = restore(session, recording)
        replay(session, take_back(session, weights, after(recording.steps, begin)))
        course.take_up(recording)
    yield course.started(recording, search)
    for damage in damaged:
        yield Warned(course.done, damage)
    if recording and recording.steps and config.carrier == "in-place":
        yield Warned(recording.last, IN_PLACE)
    try:
        yield from course.events()
    finally:
        if weights and course.last:
            put_away(session, course.last, weights)


def run_session(session: Session, stop: Stop = lambda: False) -> Iterator[Event]:
    """Yield the events of a run of a session that is already open, from its first step."""
    course = _Course(session, stop)
    yield course.started(None)
    yield from course.events()


@dataclass
class _Course:
    """A run under way: its session and its counts so far."""

    session: Session
    stop: Stop
    folder: Path | None = None  # of snapshots
    sentences: Sequence[str] = ()
    done: int = 0
    passes: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    forward_seconds: float = 0.0
    peak: int = 0
    last: StepDone | None = None  # done since the run began or went on
    watch: Watch = field(default_factory=Watch)
    dev: BestPoint = field(default_factory=BestPoint)

    def __post_init__(self) -> None:
        self.began, self.sitting = time.monotonic(), 0
        self.memory = PeakMemory(self.session.objective.device, self.session.tensors, self.session.kept_bytes)

    def take_up(self, recording: Recording) -> None:
        """Continue the counts of the recorded steps; the memory of loading and replaying is left out."""
        self.memory.reset()
        self.dev, steps = BestPoint.of(recording.events), recording.steps
        for event in steps:
            self.watch.add(event)
            self.peak = max(self.peak, event.memory_bytes)
        if steps:
            last = steps[-1]
            self.session.ranks.wire_bytes = last.wire_bytes
            self.done, self.passes, self.cost = last.step, last.forward_passes, last.forward_cost
            self.seconds, self.forward_seconds = last.seconds, last.forward_seconds

    def events(self) -> Iterator[Event]:
        try:
            if self.done == 0:
                yield from self._test(0)
                with self.memory.apart():
                    warning = rounding_told(self.session)
                yield from warning
            reason = None
            while reason is None:
                reason = self._over()
                if reason is None:
                    yield from self._advance()
            yield from self._test(self.done)
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
        patience, best = self.session.config.patience, self.dev.best
        if best is not None and 0 < patience <= self.dev.since:
            looks = f"{self.dev.since} evaluation{'s' * (self.dev.since > 1)}"
            return "finished", f"the dev loss has not fallen in {looks}: it was lowest after step {best.step}"
        if not self.stop():
            return None
        why = f"the {self.session.config.hours:g} hours are over; `zocore resume` goes on" if self.late else ""
        return "stopped", f"stopped after step {self.done}" + (f": {why}" if why else "")

    @property
    def late(self) -> bool:
        """Whether the hours of this sitting are over; it does one step at least."""
        hours = self.session.config.hours
        return bool(hours and self.sitting and time.monotonic() - self.began >= 3600 * hours)

    def _advance(self) -> Iterator[Event]:
        session, number = self.session, self.done + 1
        config = session.config
        if config.measure_every and (number - 1) % config.measure_every == 0:
            with self.memory.apart():
                reading = estimator_measured(session, number)
            yield from reading
        event = self.last = self._step(number)
        yield event
        yield from self.watch.add(event)
        if config.snapshot_every and number % config.snapshot_every == 0 and self.folder:
            yield keep(session, number, self.folder)
        if config.eval_every and number % config.eval_every == 0:
            look = self._evaluate(number, "dev")
            self.dev.add(look)
            yield look
            if number < config.steps:
                yield self._sample(number)

    def _step(self, number: int) -> StepDone:
        session, started = self.session, time.perf_counter()
        losses, lr, eps = session.losses(number), session.lr(number), session.config.eps
        assert eps is not None
        with self.memory.step(losses.positions):
            step = session.method.step(session.leaves, losses, session.key(number), lr, eps, session.state)
        self.sitting += 1
        self.done, self.seconds = number, self.seconds + time.perf_counter() - started
        self.passes, self.cost = self.passes + losses.forward_passes, self.cost + losses.forward_cost
        self.forward_seconds += losses.seconds
        self.peak = max(self.peak, self.memory.peak())
        return self._event(step, lr, eps)

    def _event(self, step: Step, lr: float, eps: float) -> StepDone:
        measured, seconds = step.measured, round(self.seconds, 6)
        touched = {str(leaf): [rows.tolist() for rows in examples] for leaf, examples in (step.touched or {}).items()}
        return StepDone(
            self.done,
            step.loss,
            measured.plus.tolist() if measured else [],
            measured.minus.tolist() if measured else [],
            measured.projected_grad.tolist() if measured else [],
            list(step.coefficients),
            encode_directions(step.directions),
            lr,
            eps,
            self.passes,
            self.cost,
            seconds,
            round(self.done / max(seconds, 1e-6), 6),
            self.memory.peak(),
            step.skipped,
            touched or None,
            None if step.responses is None else encode_tensor(step.responses),
            step.unexplained,
            self.session.ranks.wire_bytes,
            round(self.forward_seconds, 6),
            measured.moved if measured else 1.0,
        )

    def _test(self, step: int) -> Iterator[Event]:
        """Accuracy and a few answers on held-out examples, before the first step and after the last."""
        yield self._evaluate(step, "test")
        yield self._sample(step)

    def _sample(self, step: int) -> SampleShown | CompletionsShown:
        """The model's answers on sentences of one's own, and on the first few test examples."""
        shown, objective, sentences = self.session.task.test[:SAMPLES], self.session.objective, self.sentences
        with self.memory.apart():
            answers, written = objective.show(shown), objective.written(sentences)
            own = objective.probabilities(sentences).tolist() if sentences and written is None else []
        if answers.probabilities is None:
            wanted = [*("" for _ in sentences), *answers.wanted] if answers.wanted else []
            scores = [*(nan for _ in sentences), *answers.scores] if answers.scores else []
            prompts, completions = [*sentences, *answers.prompts], [*(written or []), *answers.completions]
            return CompletionsShown(step, prompts, completions, wanted, scores)
        names = self.session.task.label_names
        texts = [*sentences, *("\n".join(example.fields.values()) for example in shown)]
        labels = [*("" for _ in own), *(names[example.label] for example in shown)]
        return SampleShown(step, texts, labels, [*own, *answers.probabilities])

    def _evaluate(self, step: int, split: str) -> EvalDone:
        session, started, config = self.session, time.perf_counter(), self.session.config
        examples = getattr(session.task, split)[: config.eval_examples]
        with self.memory.apart():
            judged = session.objective.evaluate(examples, 4 * config.batch_size, session.asked)
        seconds, scores = time.perf_counter() - started, dict(judged.scores) if judged.scores else None
        return EvalDone(step, split, judged.loss, judged.accuracy, len(examples), seconds, scores)

    def started(self, recording: Recording | None, search: RateSearch | None = None) -> RunStarted:
        s = self.session
        if search:
            self.passes, self.cost = search.forward_passes, search.forward_cost
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
            s.method.forward_passes(s.config.steps) / s.config.steps,
            s.cost_per_step,
            self.memory.kind,
            [*s.notes, *estimates(s.config)],
            {"noise": str(addressed.VERSION), "sums": SUMS, "python": platform.python_version()}
            | s.objective.versions
            | {name: version_of(name) for name in NAMED},
            recording.last if recording else 0,
            len(s.prefix.blocks) if s.prefix else 0,
            s.prefix.of if s.prefix else 0,
            s.ranks.count,
            s.method.replay_passes(s.config.steps) / s.config.steps,
            search.to_json() if search else None,
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
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
