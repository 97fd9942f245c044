"""A run on disk: config.json, events.jsonl and summary.json. The events are the checkpoint.

Every line of events.jsonl is sealed (`seal.py`) and read back with care (`reading.py`). A step is rebuilt from its
learning rate, its coefficients and the addresses of its directions; the JSON keeps every float bit for bit.
Directions are written by number within the step:

    3                          a direction
    [[0.5, 2], [-0.5, 0]]      a combination, weight and number of each term
    {"examples": 16}           one direction per example
    {"pushes": 0, "tie": ...}  pushes on the outputs of layers

Tensors that a replay needs, such as the responses of label scores to pushes, are float32 in base64 with their shape.

From these lines alone come the steps of methods that move weights. Methods that push outputs read the inputs of
layers too: `replay_passes` in the header is how many forward passes a step's replay takes, for which the training
data of the run must be there. Responses of features to pushes are too many to keep: their probes are made again.
"""

import base64
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
from zocore.runs.events import Event, RunEnded, RunStarted, StepDone
from zocore.runs.reading import Damage, Reading
from zocore.runs.seal import sealed
from zocore.runs.sole_writer import sole_writer
from zocore.runs.summary import Summary, write_json
from zocore.runs.typed import parsed
from zocore.step.losses import AnyDirection
from zocore.step.step import Recorded

EVENTS, CONFIG, SUMMARY = "events.jsonl", "config.json", "summary.json"
SUMS = "2"  # goes into every header: 1, which is not told, left the order of some sums to the machine's library


@dataclass(frozen=True)
class Recording:
    """A run folder, read: its events up to the first damage, an unfinished last line left out."""

    folder: Path
    events: tuple[Event, ...]
    damage: Damage | None = None
    sealed: bool = True  # whether every line has a seal; recordings made before there were seals have none
    unfinished: bool = False  # whether the last line was being written when the process was killed

    @property
    def header(self) -> RunStarted:
        """The first start of the run."""
        return next(event for event in self.events if isinstance(event, RunStarted))

    @property
    def config(self) -> RunConfig:
        """The run's settings; where its GPU is not here, it is rebuilt (to rounding) and goes on on the CPU."""
        settings = self.header.config
        if "split_seed" not in settings:  # made when --seed also split a single file
            settings = settings | {"split_seed": settings["seed"]}
        if "push_every" not in settings and settings["method"] == "feedback":  # made when every step had pushes
            settings = settings | {"push_every": 1}
        config = RunConfig.from_json(settings)
        gone = str(config.device).startswith("cuda") and not torch.cuda.is_available()
        return replace(config, device="cpu") if gone else config

    @property
    def rebuilt_to_rounding(self) -> bool:
        """Whether the run's own code summed in another order: plain moves of full rank came out equal all the same."""
        if not any(isinstance(event, RunStarted) for event in self.events):
            return False
        config = self.config
        return self.header.versions.get("sums", "1") != SUMS and (
            config.update in ("momentum", "adam") or config.rank > 0
        )

    @property
    def steps(self) -> list[StepDone]:
        """The steps in order."""
        return [event for event in self.events if isinstance(event, StepDone)]

    @property
    def last(self) -> int:
        """The last recorded step, 0 where there is none."""
        return self.steps[-1].step if self.steps else 0

    def until(self, step: int | None) -> "Recording":
        """The recording up to a step, itself without one."""
        if step is None:
            return self
        return replace(self, events=tuple(event for event in self.events if getattr(event, "step", 0) <= step))

    @property
    def end(self) -> RunEnded | None:
        """How the run ended, or None when it was cut off or went on since."""
        for event in reversed(self.events):
            if isinstance(event, RunEnded | StepDone):
                return event if isinstance(event, RunEnded) else None
        return None


def claim(folder: Path, config: RunConfig | None = None) -> None:
    """Make a new run folder and note what the run is asked to do, so that a kill before its header loses nothing.

    Raises InputError when the folder holds a run that has begun or cannot be made. What a start left behind
    that was killed before its header was whole is no run: it is begun anew.
    """
    if begun(folder):
        raise InputError(f"{folder} already holds a run: choose another --out, or go on with `zocore resume {folder}`")
    if (folder / CONFIG).exists() and asked(folder) is None:
        raise InputError(f"{folder} holds a {CONFIG} of something else: choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the run folder {folder}: {error.strerror}") from None
    if config is not None:
        write_json(folder / CONFIG, config.to_json())


def begun(folder: Path) -> bool:
    """Return whether the folder holds a run's header, damaged or not: a first line with its line end."""
    path = folder / EVENTS
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline().endswith(b"\n")


def asked(folder: Path) -> RunConfig | None:
    """Return what a run was asked to do before it began, None where nothing was noted."""
    try:
        return RunConfig.from_json(parsed((folder / CONFIG).read_bytes()))
    except (OSError, ValueError):
        return None


def take_up(folder: Path) -> tuple[RunConfig, "Recording | None"]:
    """Return the settings with which a run goes on, and its recording where it has begun.

    Raises InputError when the recording is damaged, or when nothing was noted of the run.
    """
    if begun(folder):
        recording = read_recording(folder)
        return recording.config, recording
    config = asked(folder)
    if config is None:
        raise InputError(f"{folder} is not a run folder: it has neither an {EVENTS} with a header nor a {CONFIG}")
    return config, None


def record(events: Iterable[Event], folder: Path) -> Iterator[Event]:
    """Pass events through, each sealed, written and flushed first; the summary follows every end, also an exception.

    Raises InputError when the recording so far is damaged or somebody else is writing it.
    """
    with (folder / EVENTS).open("ab") as file, sole_writer(file, folder):
        before = _mended(folder / EVENTS, file)
        summary, seal = Summary.of(before.events), before.seal
        try:
            for event in events:
                line, seal = sealed(event.to_json(), seal)
                file.write(line)
                file.flush()
                if isinstance(event, RunStarted) and not event.resumed_at:
                    write_json(folder / CONFIG, event.config)
                summary.add(event)
                yield event
        finally:
            write_json(folder / SUMMARY, summary.values)


def examine(folder: str | Path) -> Recording:
    """Read the good part of a run folder, with its damage if it has any. Raises InputError when it is none."""
    folder = Path(folder).expanduser()
    path = folder / EVENTS
    if not path.is_file():
        raise InputError(f"{folder} is not a run folder: it has no {EVENTS}")
    reading = Reading.of(path)
    if not reading.events and reading.damage is None:
        raise InputError(
            f"{path} has no header yet: the run was killed as it started; `zocore resume {folder}` starts it again"
        )
    whole = 0 < reading.sealed == reading.lines
    return Recording(folder, tuple(reading.events), reading.damage, whole, reading.unfinished > 0)


def read_recording(folder: str | Path, step: int | None = None) -> Recording:
    """Read a run folder. Raises InputError when it is none, or is damaged before `step` (by default anywhere)."""
    recording = examine(folder)
    damage = recording.damage
    if damage and (not recording.events or step is None or step > damage.step):
        raise InputError(f"{damage}{_way_on(recording)}")
    return recording


def _way_on(recording: Recording) -> str:
    damage, folder = recording.damage, recording.folder
    if damage is None or not recording.events:
        return ", so nothing of it can be used"
    return (
        f"; `zocore replay {folder} --step {damage.step}` and export still work there, and with lines 1 to "
        f"{damage.line - 1} alone in the file the run can go on"
    )


def _mended(path: Path, file: IO[bytes]) -> Reading:
    """Cut off a last line that was not finished, so that what is appended stands on lines of its own."""
    reading = Reading.of(path)
    if reading.damage:
        raise InputError(f"{reading.damage}: nothing is written behind it")
    if reading.unfinished:
        file.truncate(reading.size)
    return reading


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
        event.eps,
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
