"""What passes between the server and its child processes: one line each, written and read here alone.

An event travels as the line that the recording holds, after the number of its lane; all else is a name and JSON:

    0 {"event":"StepDone","step":1,...}
    Over {"problem":"the model is a file: give the folder that holds it"}
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from zocore.runs.events import Event

MOST = 8_000_000  # characters of a line


@dataclass(frozen=True)
class Message:
    """One line that is not an event."""

    kinds: ClassVar[dict[str, type["Message"]]] = {}

    def __init_subclass__(cls) -> None:
        Message.kinds[cls.__name__] = cls


@dataclass(frozen=True)
class Work(Message):
    """To the child: do a job, one run a lane."""

    kind: str  # "run", "race" or the name of a run that is broken on purpose
    configs: list[dict[str, Any]]
    folders: list[str]
    resumed: bool = False
    seconds: float = 0.0  # of processor time; 0 for any
    sentence: str = ""  # of the visitor's own, asked before the test examples
    weights: bool = False  # whether each lane keeps its weights in a file, from which it goes on


@dataclass(frozen=True)
class Ask(Message):
    """To the child: answer one of `questions.QUESTIONS`."""

    question: str
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Stop(Message):
    """To the child: end the job after its step."""


@dataclass(frozen=True)
class Ready(Message):
    """From the child: everything is imported and compiled."""


@dataclass(frozen=True)
class Lost(Message):
    """From the child: a lane dropped out, and why."""

    lane: int
    problem: str


@dataclass(frozen=True)
class Over(Message):
    """From the child: the job has ended; with a problem, it could not begin or go on."""

    problem: str = ""


@dataclass(frozen=True)
class Slept(Message):
    """From a slice of a job: its time is over, the job is not."""


@dataclass(frozen=True)
class Answer(Message):
    """From the child: what a question found, or why it found nothing."""

    value: Any = None
    problem: str = ""


@dataclass(frozen=True)
class Happened:
    """From the child: an event of a lane."""

    lane: int
    event: Event


def write(message: Message | Happened) -> str:
    """Return the line of a message."""
    if isinstance(message, Happened):
        return f"{message.lane} {message.event.to_json()}\n"
    return f"{type(message).__name__} {json.dumps(asdict(message), separators=(',', ':'))}\n"


def read(line: str) -> Message | Happened:
    """Return the message of a line. Raises ValueError when it is none, or is torn."""
    name, _, text = line.rstrip("\n").partition(" ")
    if name.isdigit():
        return Happened(int(name), Event.from_json(text))
    if name not in Message.kinds:
        raise ValueError("the line is no message")
    try:
        return Message.kinds[name](**json.loads(text))
    except TypeError as error:
        raise ValueError(f"the line is no {name}: {error}") from None
