"""A run on disk: config.json, events.jsonl and summary.json. The events are the checkpoint.

A step is rebuilt from its learning rate, its coefficients and the addresses of its directions; the JSON keeps
every float bit for bit. Directions are written by number within the step:

    3                          a direction
    [[0.5, 2], [-0.5, 0]]      a combination, weight and number of each term
    {"examples": 16}           one direction per example
    {"pushes": 0, "tie": ...}  pushes on the outputs of layers

Tensors that a replay needs, such as the responses of label scores to pushes, are float32 in base64 with their shape.
"""

import base64
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch

from zocore.config import RunConfig
from zocore.directions.laws import Combination, Direction, Law
from zocore.directions.per_example import PerExample, Touched
from zocore.directions.pushes import Pushes
from zocore.errors import InputError
from zocore.noise.addressed import Key
from zocore.runs.events import EvalDone, Event, RunEnded, RunStarted, StepDone
from zocore.step.losses import AnyDirection
from zocore.step.step import Recorded

EVENTS, CONFIG, SUMMARY = "events.jsonl", "config.json", "summary.json"

# what a summary says of a run that has no more than begun
CUT_OFF = {"status": "interrupted", "reason": "the process ended before the run did", "weights_fingerprint": ""}
COUNTS = {"steps": 0, "forward_passes": 0, "forward_cost": 0.0, "seconds": 0.0, "steps_per_second": 0.0, "skipped": 0}
FOUND, WHEN = ("loss", "accuracy"), ("before", "after")


@dataclass(frozen=True)
class Recording:
    """A run folder, read: its header and its steps, a torn last line left out."""

    folder: Path
    events: tuple[Event, ...]

    @property
    def header(self) -> RunStarted:
        """The first start of the run."""
        return next(event for event in self.events if isinstance(event, RunStarted))

    @property
    def config(self) -> RunConfig:
        """The run's settings; where its GPU is not here, it is rebuilt (to rounding) and goes on on the CPU."""
        config = RunConfig.from_json(self.header.config)
        gone = str(config.device).startswith("cuda") and not torch.cuda.is_available()
        return replace(config, device="cpu") if gone else config

    @property
    def steps(self) -> list[StepDone]:
        """The steps in order."""
        return [event for event in self.events if isinstance(event, StepDone)]

    @property
    def end(self) -> RunEnded | None:
        """How the run ended, or None when it was cut off or went on since."""
        for event in reversed(self.events):
            if isinstance(event, RunEnded | StepDone):
                return event if isinstance(event, RunEnded) else None
        return None


def claim(folder: Path) -> None:
    """Make a new run folder. Raises InputError when it already holds a run or cannot be made.

    An empty recording is what a run leaves that was killed while it loaded: nothing is lost by starting over.
    """
    events = folder / EVENTS
    if (events.exists() and events.stat().st_size) or (folder / CONFIG).exists():
        raise InputError(f"{folder} already holds a run: choose another --out, or go on with `zocore resume {folder}`")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the run folder {folder}: {error.strerror}") from None


def record(events: Iterable[Event], folder: Path) -> Iterator[Event]:
    """Pass events through, each written and flushed first; the summary follows every end, also an exception."""
    summary = Summary.of(folder)
    with (folder / EVENTS).open("a", encoding="utf-8") as file:
        _mend_torn_line(file, folder / EVENTS)
        try:
            for event in events:
                file.write(event.to_json() + "\n")
                file.flush()
                if isinstance(event, RunStarted) and not event.resumed_at:
                    _write_json(folder / CONFIG, event.config)
                summary.add(event)
                yield event
        finally:
            _write_json(folder / SUMMARY, summary.to_json())


def read_recording(folder: str | Path) -> Recording:
    """Read a run folder. Raises InputError when it is no run folder or its header is missing."""
    folder = Path(folder).expanduser()
    path = folder / EVENTS
    if not path.is_file():
        raise InputError(f"{folder} is not a run folder: it has no {EVENTS}")
    events = tuple(_events(path))
    if not any(isinstance(event, RunStarted) for event in events):
        raise InputError(f"{path} has no header: the run was cut off before it started")
    return Recording(folder, events)


def _events(path: Path) -> Iterator[Event]:
    *lines, _cut_off = path.read_bytes().split(b"\n")  # a line counts once its newline is there
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                yield Event.from_json(line.decode("utf-8"))
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path}, line {number} is damaged ({error}): the recording cannot be used") from None


def _mend_torn_line(file: IO[str], path: Path) -> None:
    """Cut a last line without its newline, so that what is appended stands on lines of its own."""
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    """Write whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


@dataclass
class Summary:
    """summary.json as it stands: the run's outcome in one flat record."""

    values: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> "Summary":
        """The summary of what a folder holds already, nothing for a new one."""
        found = dict.fromkeys(f"{what}_{when}" for when in WHEN for what in FOUND)
        summary = cls({**CUT_OFF, **COUNTS, "peak_memory_bytes": 0, **found})
        if (folder / EVENTS).is_file():
            for event in _events(folder / EVENTS):
                summary.add(event)
        return summary

    def add(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted(config=config, model=model, fingerprint=fingerprint, labels=labels):
                names = {"method": config["method"], "task": config["data"] or config["task"], "seed": config["seed"]}
                self.values |= {"model": model, **names, "labels": labels, "base_fingerprint": fingerprint}
                self.values |= {"lr": config["lr"], "eps": config["eps"], "steps_planned": config["steps"]}
                self.values |= {"processes": event.processes}
            case StepDone():
                self.values |= {"steps": event.step, "forward_passes": event.forward_passes}
                self.values |= {"forward_cost": event.forward_cost, "seconds": event.seconds}
                peak = max(self.values["peak_memory_bytes"], event.memory_bytes)
                self.values |= {"steps_per_second": event.steps_per_second, "peak_memory_bytes": peak}
                self.values |= {"wire_bytes": event.wire_bytes}
                self.values |= {**CUT_OFF, **dict.fromkeys(f"{what}_after" for what in FOUND)}  # as in a resumed run
            case EvalDone(split="test"):
                when = "before" if event.step == 0 and self.values["loss_before"] is None else "after"
                self.values |= {f"loss_{when}": event.loss, f"accuracy_{when}": event.accuracy}
            case RunEnded():
                peak = max(self.values["peak_memory_bytes"], event.peak_memory_bytes)
                self.values |= {name: getattr(event, name) for name in (*CUT_OFF, *COUNTS)}
                self.values |= {"weights_fingerprint": event.weights_fingerprint, "peak_memory_bytes": peak}

    def to_json(self) -> dict[str, Any]:
        """Return the record."""
        return self.values


def encode_directions(directions: Iterable[AnyDirection]) -> list[Any]:
    """Return directions as recorded: see the top of this file."""
    return [_encode(direction) for direction in directions]


def decode_directions(recorded: Iterable[Any], key: Key, law: Law) -> list[AnyDirection]:
    """Return the directions of a step from their recorded form."""
    return [_decode(form, key, law) for form in recorded]


def decode_step(event: StepDone, key: Key, law: Law) -> Recorded:
    """Return what a step's event holds for doing it again."""
    return Recorded(
        event.lr,
        tuple(decode_directions(event.directions, key, law)),
        tuple(event.coefficients),
        decode_touched(event),
        None if event.responses is None else decode_tensor(event.responses),
    )


def encode_tensor(tensor: torch.Tensor) -> dict[str, Any]:
    """Return a tensor as its shape and its float32 values in base64, bit for bit."""
    values = tensor.detach().float().cpu().contiguous()
    return {"shape": list(values.shape), "float32": base64.b64encode(values.numpy().tobytes()).decode("ascii")}


def decode_tensor(recorded: dict[str, Any]) -> torch.Tensor:
    """Return the tensor of `encode_tensor`. Raises ValueError when shape and values do not fit."""
    values = torch.frombuffer(bytearray(base64.b64decode(recorded["float32"], validate=True)), dtype=torch.float32)
    return values.view(recorded["shape"])


def decode_touched(event: StepDone) -> Touched | None:
    """Return the looked-up table rows of a step as tensors."""
    if event.touched is None:
        return None
    return {int(leaf): [torch.tensor(rows) for rows in examples] for leaf, examples in event.touched.items()}


def _encode(direction: AnyDirection) -> Any:
    if isinstance(direction, PerExample):
        return {"examples": direction.count}
    if isinstance(direction, Pushes):
        return {"pushes": direction.key.direction, "tie": direction.tie}
    if isinstance(direction, Combination):
        return [[weight, _encode(term)] for weight, term in direction.terms]
    return direction.key.direction


def _decode(form: Any, key: Key, law: Law) -> Any:
    if isinstance(form, dict) and "pushes" in form:
        return Pushes(replace(key, direction=form["pushes"]), form["tie"])
    if isinstance(form, dict):
        return PerExample(key, law, form["examples"])
    if isinstance(form, list):
        return Combination(tuple((weight, _decode(term, key, law)) for weight, term in form))
    return Direction(replace(key, direction=form), law)
