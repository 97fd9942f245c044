"""A run's events as lines of text for a terminal."""

import time
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any, Protocol

from zocore.runs.best_point import BestPoint
from zocore.runs.events import (
    CompletionsShown,
    EstimatorMeasured,
    EvalDone,
    Event,
    RunEnded,
    RunStarted,
    SampleShown,
    StepDone,
    Warned,
)

REDRAW = 0.2  # seconds between two drawings of the live line
PLAIN_EVERY = 10.0  # seconds between progress lines where the output is no terminal


class Out(Protocol):
    """What the lines go to."""

    def write(self, text: str, /) -> object:
        """Take some text."""

    def flush(self) -> object:
        """Show it."""

    def isatty(self) -> bool:
        """Return whether a line can be drawn over."""


@dataclass
class Progress:
    """Writes events to a stream; a terminal gets one live line, a file a line every few seconds."""

    out: Out
    folder: Path
    steps: int = 0
    _drawn: float = 0.0
    _live: bool = False
    _evaluations: list[EvalDone] = field(default_factory=list)
    _samples: list[SampleShown] = field(default_factory=list)
    _written: list[CompletionsShown] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)

    def show(self, event: Event) -> None:
        """Write the lines of one event."""
        match event:
            case RunStarted():
                self._start(event)
            case StepDone():
                self._step(event)
            case EvalDone():
                self._evaluation(event)
            case SampleShown():
                self._samples.append(event)
            case CompletionsShown():
                self._written.append(event)
            case EstimatorMeasured():
                self._line(_estimator(event))
            case Warned():
                self._line(f"step {event.step}: {event.message}")
            case RunEnded():
                self._end(event)

    def _start(self, event: RunStarted) -> None:
        self._names, config = event.labels, event.config
        self.steps = config["steps"]
        self._line(
            f"{config['method']} on {event.model} ({event.kind}, {event.parameters / 1e6:.1f} M parameters, "
            f"{event.trainable / 1e6:.3g} M move), {event.device}, {event.dtype}"
        )
        self._line(
            f"task {config['data'] or config['task']}: {event.examples['train']} train, {event.examples['test']} test"
            + (f", labels {_listed(event.labels)}" if event.labels else "")
        )
        self._line(
            f"lr {config['lr']:g} ({config['schedule']}), eps {config['eps']:g}, batch {config['batch_size']}, "
            f"seed {config['seed']}, {event.passes_per_step:.3g} forward passes a step (cost {event.cost_per_step:.3g})"
        )
        if event.rate_search:
            self._line(_search(event.rate_search))
        for note in event.notes:
            self._line(f"note: {note}")
        if event.frozen:
            self._line(f"not read by the loss, so left alone: {', '.join(event.frozen)}")
        if event.frozen_blocks:
            self._line(f"the first {event.frozen_blocks} of {event.blocks} blocks stay as they are and are run once")
        if event.resumed_at:
            self._line(f"resumed after step {event.resumed_at}")

    def _step(self, event: StepDone) -> None:
        now, last = time.monotonic(), event.step == self.steps
        if now - self._drawn < (REDRAW if self.out.isatty() else PLAIN_EVERY) and not last:
            return
        self._drawn = now
        minutes, seconds = divmod(int((self.steps - event.step) / max(event.steps_per_second, 1e-9)), 60)
        slopes = event.projected_grads
        slope = f"g {sum(slopes) / len(slopes):+.3f}  " if slopes else ""
        text = (
            f"step {event.step}/{self.steps}  loss {event.loss:.4f}  {slope}"
            f"{event.forward_passes} forwards  {event.steps_per_second:.1f} steps/s  ETA {minutes}:{seconds:02d}"
        )
        if self.out.isatty():
            self.out.write("\r\x1b[K" + text)
            self.out.flush()
            self._live = True
        else:
            self._line(text)

    def _evaluation(self, event: EvalDone) -> None:
        self._evaluations.append(event)
        self._line(f"{event.split} after step {event.step}: " + _told(event) + f" ({event.examples} examples)")

    def _end(self, event: RunEnded) -> None:
        tests = [e for e in self._evaluations if e.split == "test"]
        self._line(f"{event.status}: {event.reason}")
        if len(tests) == 2:
            before, after = tests
            self._line(
                "held-out "
                + ", ".join(
                    f"{name} {old:{form}} -> {new:{form}}"
                    for (name, old, form), (_, new, _) in zip(_judged(before), _judged(after), strict=True)
                )
                + f", {event.forward_passes} forward passes, {event.seconds:.1f} s of training, "
                f"{event.steps_per_second:.1f} steps/s"
            )
        best = BestPoint.of(self._evaluations).best
        if best is not None and best.step < event.steps:
            self._line(
                f"the dev loss was lowest after step {best.step}: {_told(best)}; "
                f"zocore export {self.folder} --step best takes that step"
            )
        if len(self._samples) >= 2:
            self._answers(self._samples[0], self._samples[-1])
        if len(self._written) >= 2:
            self._completions(self._written[0], self._written[-1])
        self._line(f"run folder: {self.folder}")

    def _answers(self, before: SampleShown, after: SampleShown) -> None:
        width = max(map(len, self._names))
        for text, label, old, new in zip(
            before.texts, before.labels, before.probabilities, after.probabilities, strict=True
        ):
            change = f"{self._likeliest(old, width)} -> {self._likeliest(new, width)}"
            self._line(f"  {change}  (true: {label:{width}})  {_shortened(text)}")

    def _completions(self, before: CompletionsShown, after: CompletionsShown) -> None:
        """Prompts with what was written after them, at first and in the end."""
        for number, prompt in enumerate(after.prompts):
            wanted = f"  (wanted: {_shortened(after.wanted[number], 40)})" if after.wanted else ""
            self._line(f"  {_shortened(prompt)}{wanted}")
            for when, event in (("before", before), ("after", after)):
                score = f" [{event.scores[number]:.2f}]" if event.scores else ""
                self._line(f"    {when:6}{score} {_shortened(event.completions[number], 100)}")

    def _likeliest(self, probabilities: list[float], width: int) -> str:
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return f"{self._names[best]:{width}} {probabilities[best]:.2f}"

    def _line(self, text: str) -> None:
        self.out.write(("\n" if self._live else "") + text + "\n")
        self.out.flush()
        self._live = False


def _search(search: dict[str, Any]) -> str:
    first, last = search["tried"][0][0], search["tried"][-1][0]
    return (
        f"lr {search['lr']:g} found by {len(search['tried'])} steps at rates from {first} to {last}, "
        f"{search['forward_passes']} forward passes (cost {search['forward_cost']:.3g}), which count"
    )


def _told(event: EvalDone) -> str:
    return ", ".join(f"{name} {value:{form}}" for name, value, form in _judged(event))


def _judged(event: EvalDone) -> list[tuple[str, float, str]]:
    """What an evaluation found, by name, with the form in which it is shown."""
    accuracy = [] if isnan(event.accuracy) else [("accuracy", event.accuracy, ".3f")]
    scores = [(name, value, ".4g") for name, value in (event.scores or {}).items()]
    return [*accuracy, ("loss", event.loss, ".4f"), *scores]


def _estimator(event: EstimatorMeasured) -> str:
    line = f"estimator after step {event.step}: variance {event.variance:.4g}, length {event.norm:.4g}"
    if event.cosine is not None:
        line += f", cosine to the gradient {event.cosine:.2e}, length over the gradient's {event.norm_ratio:.1f}"
    return line


def _listed(names: list[str], most: int = 8) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _shortened(text: str, width: int = 70) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
