"""Tables as text: Markdown for files and pages, aligned columns for a terminal."""

from collections.abc import Sequence


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first and last columns are flush left and all others flush right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(_cells(cells, widths)) for cells in lines)


def _cells(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *numbers, last = cells
    inner = [number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True)]
    return [first.ljust(widths[0]), *inner, last]
