"""Reading a recording line by line: what is good, where it is damaged, and whether it is sealed.

A line counts once its line end is there: what a killed process left of its last line is no damage, only not yet
written. Everything else that does not fit is damage, and tells the last step that is still good.
"""

from base64 import b64decode
from dataclasses import dataclass, field
from math import isfinite, prod
from pathlib import Path
from typing import Any, get_args

from zocore.config import RunConfig
from zocore.directions.pushes import Tie
from zocore.runs.events import Event, RunStarted, StepDone
from zocore.runs.seal import NONE, chained, unsealed

SETTINGS = ("method", "task", "data", "steps", "batch_size", "lr", "eps", "schedule", "seed")  # of every header
CHANGED = "its seal does not fit: this line was changed, or a line before it was added, moved or taken out"


@dataclass(frozen=True)
class Damage:
    """The first line of a file that does not fit."""

    path: Path
    line: int
    reason: str
    step: int  # the last good one, 0 where no step is

    def __str__(self) -> str:
        """One sentence."""
        return f"{self.path}, line {self.line} is damaged ({self.reason}): the recording is good up to step {self.step}"


@dataclass
class Reading:
    """The good lines of a file, in order, and the first that is damaged."""

    path: Path
    events: list[Event] = field(default_factory=list)
    damage: Damage | None = None
    lines: int = 0  # that are good
    sealed: int = 0  # of these, lines with a seal
    seal: str = NONE  # after the last good line
    size: int = 0  # bytes of the good lines
    unfinished: int = 0  # bytes after the last line end
    _done: int = 0  # the last good step
    _header: RunStarted | None = None

    @classmethod
    def of(cls, path: Path) -> "Reading":
        """Read a file up to its end or the first damaged line."""
        reading = cls(path)
        *lines, rest = path.read_bytes().split(b"\n")
        reading.unfinished = len(rest)
        for number, line in enumerate(lines, start=1):
            try:
                reading._take(line.removesuffix(b"\r"))
            except ValueError as error:
                reading.damage = Damage(path, number, str(error), reading._done)
                break
            reading.lines, reading.size = number, reading.size + len(line) + 1
        return reading

    def _take(self, line: bytes) -> None:
        body, seal = unsealed(line)
        expected = chained(self.seal, body)
        if self.sealed and seal == NONE:
            raise ValueError("it has no seal, as the lines before it have")
        if seal not in (NONE, expected):
            raise ValueError(CHANGED)
        if line.strip():
            event = Event.from_json(body)
            self._fit(event)
            self.events.append(event)
        self.seal = expected
        self.sealed += seal != NONE

    def _fit(self, event: Event) -> None:
        """Take an event in where it follows from those before it."""
        if self._header is None and not isinstance(event, RunStarted):
            raise ValueError("the recording does not begin with the start of a run")
        if isinstance(event, RunStarted):
            check_header(event)
            if event.resumed_at != self._done:
                raise ValueError(f"it goes on after step {event.resumed_at}, which does not follow step {self._done}")
            self._header = self._header or event
        if isinstance(event, StepDone):
            if event.step != self._done + 1:
                raise ValueError(f"it is step {event.step}, which does not follow step {self._done}")
            assert self._header is not None
            check_step(event, self._header)
            self._done = event.step


def check_header(header: RunStarted) -> None:
    """Raise ValueError when a header could not start a run."""
    missing = [name for name in SETTINGS if name not in header.config]
    if missing:
        raise ValueError(f"its settings lack {missing[0]}")
    config = RunConfig.from_json(header.config)
    if config.lr is None or config.eps is None:
        raise ValueError("its settings lack a learning rate or eps")
    for leaf in header.leaves:
        if [type(part) for part in leaf] != [int, str, list] or not all(type(n) is int and n >= 0 for n in leaf[2]):
            raise ValueError("its leaves must each be [id, name, shape]")


def check_step(event: StepDone, header: RunStarted) -> None:
    """Raise ValueError when a step's coefficients, directions and table rows do not go together."""
    if not (isfinite(event.lr) and isfinite(event.eps)):
        raise ValueError("its lr and eps must be finite numbers")
    expected = sum(_coefficients(form, header.config["batch_size"]) for form in event.directions)
    if event.coefficients and len(event.coefficients) != expected:
        raise ValueError(f"it has {len(event.coefficients)} coefficients for {expected} directions")
    if event.responses is not None:
        check_tensor(event.responses)
    rows = {str(leaf[0]): leaf[2][0] for leaf in header.leaves if leaf[2]} if event.touched else {}
    for leaf, examples in (event.touched or {}).items():
        if leaf not in rows or any(not 0 <= row < rows[leaf] for example in examples for row in example):
            raise ValueError(f"it looked up rows of {leaf[:40]!r} which no table of the run has")
        if len(examples) != expected:
            raise ValueError(f"it has looked-up rows of {len(examples)} examples, not of {expected}")


def check_tensor(recorded: dict[str, Any]) -> None:
    """Raise ValueError when a recorded tensor's shape and values do not go together."""
    shape, values = recorded.get("shape"), recorded.get("float32")
    if list(recorded) != ["shape", "float32"] or not isinstance(shape, list) or not isinstance(values, str):
        raise ValueError("a tensor must be {shape, float32}")
    if not all(type(length) is int and length >= 0 for length in shape) or len(_bytes(values)) != 4 * prod(shape):
        raise ValueError("a tensor's values do not fit its shape")


def _bytes(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise ValueError("a tensor's values are not base64") from None


def _coefficients(form: Any, batch: int) -> int:
    """How many coefficients a recorded direction takes: one, or one per example."""
    if isinstance(form, dict):
        count = form.get("examples")
        if list(form) == ["examples"] and type(count) is int and count > 0:
            return count
        if list(form) == ["pushes", "tie"] and _is_number(form["pushes"]) and form["tie"] in get_args(Tie):
            return batch
    elif _is_number(form) or (isinstance(form, list) and form and all(_is_term(term) for term in form)):
        return 1
    raise ValueError("a direction must be a number, a combination of [weight, number], {examples} or {pushes, tie}")


def _is_number(form: Any) -> bool:
    return type(form) is int and 0 <= form < 2**32


def _is_term(term: Any) -> bool:
    return isinstance(term, list) and len(term) == 2 and type(term[0]) in (int, float) and _is_number(term[1])
