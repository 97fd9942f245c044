"""Reading tables of text from files: CSV, TSV and JSON Lines, with one clear sentence for whatever is wrong.

Files are read line by line, never whole before their size was checked.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zocore.errors import InputError

MAX_BYTES = 100_000_000
MAX_CHARS = 100_000  # of one line
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
SIGNATURES = {  # how files of other kinds begin
    b"PK\x03\x04": "a zip archive or a spreadsheet: save it as CSV",
    b"\x1f\x8b": "compressed: unpack it first",
    b"PAR1": "a Parquet file: save it as JSON Lines",
    b"\xff\xfe": "not UTF-8 but UTF-16: save it as UTF-8",
    b"\xfe\xff": "not UTF-8 but UTF-16: save it as UTF-8",
}

Row = Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """The rows of one file, every value as text, and the line each row ended on."""

    path: Path
    columns: tuple[str, ...]
    rows: Sequence[Row]
    lines: Sequence[int]

    @property
    def name(self) -> str:
        """File name, as messages cite it."""
        return self.path.name

    def has(self, name: str) -> bool:
        """Whether any row has something in a column; a test split whose labels are kept secret has nothing."""
        return any(not is_missing(row.get(name)) for row in self.rows)

    def labelled(self, name: str) -> "Table":
        """Return the rows that have something in a column: not nothing, and not a number that is none (NaN)."""
        kept = [i for i, row in enumerate(self.rows) if not is_missing(row.get(name))]
        if not kept:
            raise InputError(f"{self.name} has no row with anything in the column {name!r}: name another")
        return self._part(kept)

    def filled(self, names: Sequence[str]) -> "Table":
        """Return the rows that have a text in each of some columns; the word "nan" is a text like any other.

        Raises InputError when no row has.
        """
        kept = [i for i, row in enumerate(self.rows) if all(row.get(name) for name in names)]
        if not kept:
            columns = " and ".join(map(repr, names))
            raise InputError(f"{self.name} has no row left with a text in {columns}: name another column, or fill it")
        return self._part(kept)

    def _part(self, kept: Sequence[int]) -> "Table":
        return replace(self, rows=[self.rows[i] for i in kept], lines=[self.lines[i] for i in kept])

    def check(self, name: str) -> None:
        """Raise InputError when there is no such column."""
        if name not in self.columns:
            raise InputError(f"{self.name} has no column {name!r}: its columns are {', '.join(self.columns)}")

    def column(self, name: str) -> list[str]:
        """Return the column's values, "" where a row has none. Raises InputError when the column is missing."""
        self.check(name)
        return [row.get(name, "") for row in self.rows]


def is_missing(value: str | None) -> bool:
    """Return whether a cell holds nothing: it is not there, empty, or NaN as tables write what they lack."""
    return not value or value.lower() == "nan"


def read_table(path: Path, *, max_chars: int = MAX_CHARS, max_bytes: int = MAX_BYTES, nested: bool = False) -> Table:
    """Read a CSV, TSV or JSON Lines file. Raises InputError with what is wrong, and on which line.

    With `nested`, lists and objects inside a row of JSON Lines are kept, as JSON.
    """
    check_file(path, max_bytes)
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        rows, lines = _json_lines(path, max_chars, nested)
    elif suffix in (".csv", ".tsv"):
        rows, lines = _separated(path, max_chars)
    elif suffix == ".json":
        raise InputError(f"{path.name} {_why_not(path)}: write one {{...}} per row, each on a line, as .jsonl")
    else:
        raise InputError(f"cannot tell the format of {path.name}: name it .csv, .tsv or .jsonl")
    if not rows:
        raise InputError(f"{path.name} has no rows of data")
    return Table(path, tuple(dict.fromkeys(name for row in rows for name in row)), rows, lines)


def check_file(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Raise InputError unless `path` is a text file of a size we read."""
    if not path.exists():
        raise InputError(f"there is no file {str(path)!r}: check the path")
    if not path.is_file():
        raise InputError(f"{str(path)!r} is not a file: give a .csv, .tsv or .jsonl file")
    try:
        with path.open("rb") as file:
            start = file.read(65536)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror}") from None
    if not start:
        raise InputError(f"{path.name} is empty")
    if path.stat().st_size > max_bytes:
        size, limit = path.stat().st_size / 1e6, max_bytes / 1e6
        raise InputError(f"{path.name} has {size:.1f} MB, over the limit of {limit:g} MB: use a part")
    for signature, meaning in SIGNATURES.items():
        if start.startswith(signature):
            raise InputError(f"{path.name} is {meaning}")
    if b"\0" in start:
        raise InputError(f"{path.name} is a binary file: give text as CSV, TSV or JSON Lines")


def text_lines(path: Path, max_chars: int = MAX_CHARS, max_bytes: int = MAX_BYTES) -> Iterator[str]:
    """Yield the lines of a text file. Raises InputError with what is wrong, and on which line."""
    check_file(path, max_bytes)
    yield from _text_lines(path, max_chars)


def _text_lines(path: Path, max_chars: int) -> Iterator[str]:
    """The decoded lines with their line ends; a line over the limit is never read to its end."""
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(4 * max_chars + 2):  # a character has at most four bytes
            number += 1
            cut = len(raw) == 4 * max_chars + 2 and not raw.endswith(b"\n")
            line = "" if cut else _decoded(raw, path.name, number)
            if cut or len(line.rstrip("\r\n")) > max_chars:
                raise InputError(f"{path.name}, line {number} is longer than {max_chars} characters: shorten it")
            yield line.removeprefix("\ufeff") if number == 1 else line


def _decoded(raw: bytes, name: str, number: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name} is not UTF-8: line {number} has the byte 0x{raw[error.start]:02x} at position "
            f"{error.start + 1}; save the file as UTF-8"
        ) from None


def _separated(path: Path, max_chars: int) -> tuple[list[Row], list[int]]:
    """Rows of a CSV file (comma, semicolon or tab, with quotes) or a TSV file (tab, quotes are text)."""
    tsv = path.suffix.lower() == ".tsv"
    header = next(_text_lines(path, max_chars), "")
    delimiter = "\t" if tsv else max(",;\t", key=header.count)
    text = _text_lines(path, max_chars)
    if tsv:
        reader = csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
    rows: list[Row] = []
    lines: list[int] = []
    try:
        columns = _header(next(reader, []), path.name)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                _check_width(cells, columns, f"{path.name}, line {reader.line_num}", tsv)
                rows.append({name: cell.strip() for name, cell in zip(columns, cells, strict=True) if name})
                lines.append(reader.line_num)
    except csv.Error as error:
        where = f"{path.name}, line {reader.line_num}"
        raise InputError(f"{where} is not valid CSV ({error}): check the quotes around this line") from None
    return rows, lines


def _check_width(cells: list[str], columns: list[str], where: str, tsv: bool) -> None:
    if len(cells) != len(columns):
        remedy = "take tabs out of the text" if tsv else "put quotes around text with separators in it"
        raise InputError(f"{where} has {len(cells)} cells where the header has {len(columns)}: {remedy}")


def _header(cells: list[str], name: str) -> list[str]:
    columns = [cell.strip() for cell in cells]
    repeated = [column for column in columns if column and columns.count(column) > 1]
    if repeated:
        raise InputError(f"{name} has two columns named {repeated[0]!r}: rename one")
    if not any(columns):
        raise InputError(f"{name} does not begin with a line of column names: add one, such as text,label")
    return columns


def _json_lines(path: Path, max_chars: int, nested: bool) -> tuple[list[Row], list[int]]:
    rows: list[Row] = []
    lines: list[int] = []
    for number, line in enumerate(_text_lines(path, max_chars), 1):
        if line.strip():
            rows.append(_json_row(line, f"{path.name}, line {number}", nested))
            lines.append(number)
    return rows, lines


def _json_row(line: str, where: str, nested: bool) -> Row:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where} is not valid JSON: write one {{...}} per line") from None
    if not isinstance(found, dict):
        raise InputError(f"{where} is not a JSON object: write one object such as {{...}} per line")
    row = {name: text for name, value in found.items() if (text := _as_text(value, nested)) is not None}
    nesting = None if row else _nesting(found)
    if nesting:
        raise InputError(f"{where} {nesting}: write one {{...}} per row, each on a line")
    try:
        "".join(row.values()).encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} has half of a surrogate pair, which is no character: remove it") from None
    return row


def _why_not(path: Path) -> str:
    """What a .json file holds in place of lines."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "is not one JSON value; if each line of it is one, name it .jsonl; else"
    if isinstance(found, list):
        return "holds its rows in one list"
    return _nesting(found) or "is one JSON object" if isinstance(found, dict) else "is one JSON value"


def _nesting(found: Mapping[str, Any]) -> str | None:
    """How an object without a text of its own holds rows inside, None when it does not."""
    inside = {name: value for name, value in found.items() if isinstance(value, list | dict) and value}
    if not inside or any(isinstance(value, str) for value in found.values()):
        return None
    name, value = next(iter(inside.items()))
    if isinstance(value, dict):
        return f"holds objects inside an object, such as {name!r} (pandas writes columns so; orient='records' does not)"
    return f"holds a list inside an object, {name!r}"


def _as_text(value: Any, nested: bool) -> str | None:
    """Text and numbers as text (1.0 as "1"), lists and objects as JSON where they are kept; else None."""
    if nested and isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int | float) else None
