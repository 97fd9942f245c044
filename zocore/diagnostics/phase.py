"""One part of a traced step, and how its numbers and lines are shown."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

ROWS, COLUMNS = 8, 32  # of a picture
SHOWN = 3  # numbers and directions shown one by one; the rest share one line


@dataclass(frozen=True)
class Phase:
    """One part of a step: a title, its result in words, and the lines of code that ran."""

    title: str
    text: str
    code: str
    loss: float | None = None
    moved: float = 0.0  # distance of the weights the model now sees from where the step began
    picture: list[list[float]] = field(default_factory=list)  # numbers to be seen at once, row by row
    rows: str = ""  # what the rows and columns of the picture are


def corner(values: Tensor) -> list[list[float]]:
    """Return the first rows and columns of a matrix, to three digits: enough to see."""
    return [[float(f"{value:.3g}") for value in row] for row in values[:ROWS, :COLUMNS].tolist()]


def some(values: Sequence[float]) -> str:
    """Return the first few numbers as text."""
    shown = ", ".join(f"{value:.5g}" for value in values[:SHOWN])
    return shown + (", ..." if len(values) > SHOWN else "")


def lines_of(function: Callable[..., object]) -> str:
    """The body of a function without its docstring: the lines that ran."""
    source = inspect.cleandoc(inspect.getsource(function)).split("\n")
    start = next((i for i, line in enumerate(source) if line.strip().startswith('"""')), -1) + 1
    while 0 < start < len(source) and source[start - 1].count('"""') == 1 and '"""' not in source[start]:
        start += 1
    return inspect.cleandoc("\n".join(source[start:]))
