"""What is done: one JSON line for each finished cell, so that a tournament can go on after any end."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from zocore.errors import InputError

CELLS = "cells.jsonl"
Kind = Literal["tune", "final"]
Point = tuple[float, float, float]  # forward cost, loss and accuracy on dev


@dataclass(frozen=True)
class Cell:
    """One run: an entry on a task with a seed and a rate, to find the rate or to be compared."""

    kind: Kind
    entry: str
    task: str
    seed: int
    lr: float | None  # None for a reference that takes none
    cost: float  # the budget, in plain forwards

    def __str__(self) -> str:
        rate = "" if self.lr is None else f" at {self.lr:g}"
        return f"{self.entry} on {self.task}, seed {self.seed}{rate}"


@dataclass(frozen=True)
class Done:
    """What a cell came to. A run that finds a rate is judged on dev, a final one on the test split."""

    cell: Cell
    status: str  # finished or failed
    reason: str
    date: str
    loss: float = float("nan")
    accuracy: float = float("nan")
    loss_before: float = float("nan")
    accuracy_before: float = float("nan")
    examples: int = 0  # looked at for loss and accuracy
    commonest: float = float("nan")  # share of the commonest label among them
    steps: int = 0
    forward_passes: int = 0
    forward_cost: float = 0.0
    seconds: float = 0.0  # of training
    wall_seconds: float = 0.0  # with loading and evaluating
    curve: tuple[Point, ...] = ()
    fingerprint: str = ""  # of the base weights

    @property
    def finished(self) -> bool:
        """Whether it ran to its end and its figures count."""
        return self.status == "finished"

    def to_json(self) -> str:
        """Return one line of JSON; losses that are no numbers are NaN."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(line: str) -> "Done":
        """Return the record of a line. Raises ValueError, KeyError or TypeError when it is torn."""
        values = json.loads(line)
        values["cell"] = Cell(**values["cell"])
        values["curve"] = tuple(tuple(point) for point in values["curve"])
        names = {field.name for field in fields(Done)}
        return Done(**{name: value for name, value in values.items() if name in names})


def append(folder: Path, done: Done) -> None:
    """Add a finished cell as one line, written and flushed at once."""
    path = folder / CELLS
    line = done.to_json() + "\n"
    if path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size:
        line = "\n" + line  # after a torn line, which readers skip
    with path.open("a", encoding="utf-8") as file:
        file.write(line)


def read_cells(folder: Path) -> dict[Cell, Done]:
    """Return the finished cells of a folder; torn lines are left out. Raises InputError where there are none."""
    path = folder / CELLS
    if not path.exists():
        raise InputError(f"{folder} holds no tournament: {CELLS} is missing")
    return {done.cell: done for done in _records(path)}


def _records(path: Path) -> Iterator[Done]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield Done.from_json(line)
        except (ValueError, KeyError, TypeError):
            continue
