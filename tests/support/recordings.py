"""Recordings for the tests of their seals: a short run made once, its lines, and folders with other lines."""

from functools import cache
from pathlib import Path
from typing import Any

from tests.support.short_runs import home, settings
from zocore.runs.loop import run
from zocore.runs.recording import EVENTS, claim, record
from zocore.runs.seal import unsealed


def recorded(folder: Path, **changes: Any) -> list[Any]:
    """Run and record."""
    claim(folder)
    return list(record(run(settings(**changes)), folder))


@cache
def six_steps(method: str) -> Path:
    """A finished run of six steps with evaluations, which has every kind of line."""
    folder = home() / f"six steps of {method}"
    recorded(folder, method=method, steps=6, eval_every=2, measure_every=4)
    return folder


def lines_of(folder: Path) -> list[bytes]:
    """A recording's lines, line ends included."""
    return (folder / EVENTS).read_bytes().splitlines(keepends=True)


def plain(lines: list[bytes]) -> list[bytes]:
    """The same lines as they were written before there were seals."""
    return [unsealed(line.rstrip(b"\n"))[0] + b"\n" for line in lines]


def folder_with(folder: Path, lines: list[bytes]) -> Path:
    """A run folder with these lines."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EVENTS).write_bytes(b"".join(lines))
    return folder


def number_of(lines: list[bytes], step: int) -> int:
    """Which line, from 0, holds a step."""
    return next(n for n, line in enumerate(lines) if b'"event":"StepDone","step":%d,' % step in line)
