"""Rows of text to be written or continued: prompts with or without an answer, plain texts, and chats.

A row keeps all its columns, so that a reward can read them. What it is told by its columns:

    prompt, or a template      what the model continues; `answer` is the right continuation where there is one
    text                       what the model reads, token by token
    messages                   a chat: a list of {"role": ..., "content": ...}

A .txt file holds one text in each paragraph.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zocore.data.chats import read_chat
from zocore.data.files import MAX_BYTES, MAX_CHARS, Table, read_table, text_lines
from zocore.data.tasks import DEV_NAMES, MIN_ROWS, SPLIT_EPOCH, Example, Task, empty, left_out
from zocore.data.template import Template
from zocore.errors import InputError
from zocore.noise.addressed import permutation

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".txt")
PROMPT, ANSWER, TEXT, MESSAGES = "prompt", "answer", "text", "messages"
DEV_SHARE, TEST_SHARE = 0.1, 0.2


@dataclass(frozen=True)
class Row(Example):
    """A row of text and where it stands; it has no label."""

    place: str = ""  # as messages cite it: file and line


def read_texts(
    path: str | Path, *, template: str | None = None, answer_column: str | None = None, seed: int = 0
) -> Task:
    """Read rows of text from a file, or from a folder of files named train, dev and test.

    With a template the prompt is made of the columns it names. Without a folder's splits, rows are held out by
    `seed`. Rows that lack something to read are left out, and counted in the task's notes. Raises InputError when
    anything is wrong.
    """
    path = Path(path).expanduser()
    tables = {split: _table(file) for split, file in _files(path).items()}
    needed = {split: _needed(table, template, answer_column) for split, table in tables.items()}
    kept = {split: table.filled(needed[split]) for split, table in tables.items()}
    notes = [left_out(tables[split], kept[split], empty(needed[split])) for split in tables]
    rows = {split: _rows(table, template, answer_column) for split, table in kept.items()}
    train, dev, test = _splits(rows, seed)
    about = f"{len(train) + len(dev) + len(test)} rows of {path.name}"
    lacking = tuple(note for note in notes if note)
    return Task(path.stem, path.stem, template or "", (), (), train, dev, test, about, lacking)


def _files(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {"train": path}
    names = {"train": ("train",), "dev": DEV_NAMES, "test": ("test",)}
    files = {split: _first(path, stems) for split, stems in names.items()}
    if files["train"] is None:
        raise InputError(f"the folder {path.name} has no train.jsonl, train.csv, train.tsv or train.txt")
    return {split: file for split, file in files.items() if file is not None}


def _first(folder: Path, stems: Sequence[str]) -> Path | None:
    paths = (folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _table(path: Path) -> Table:
    return _paragraphs(path) if path.suffix.lower() == ".txt" else read_table(path, nested=True)


def _paragraphs(path: Path) -> Table:
    """The paragraphs of a text file, each with the line it begins on."""
    rows: list[dict[str, str]] = []
    lines: list[int] = []
    open_ = False
    for number, line in enumerate(text_lines(path, MAX_CHARS, MAX_BYTES), 1):
        if line.strip() and open_:
            rows[-1][TEXT] += "\n" + line.rstrip()
        elif line.strip():
            rows.append({TEXT: line.rstrip()})
            lines.append(number)
        open_ = bool(line.strip())
    if not rows:
        raise InputError(f"{path.name} holds no text")
    return Table(path, (TEXT,), rows, lines)


def _needed(table: Table, template: str | None, answer_column: str | None) -> tuple[str, ...]:
    """The columns that every row must have something in: those of the prompt and of the answer."""
    there = tuple(name for name in (PROMPT, TEXT, MESSAGES) if name in table.columns)
    names: tuple[str, ...] = there if len(there) == 1 else ()  # of several, a row may have any
    if template is not None:
        Template(template).check(table.columns)
        names = Template(template).before_answer().fields
    if answer_column is not None:
        table.check(answer_column)
        names = (*names, answer_column)
    return names


def _rows(table: Table, template: str | None, answer_column: str | None) -> tuple[Row, ...]:
    """The table's rows, with `prompt` made from the template and `answer` taken from its column."""
    rows = []
    for fields, line in zip(table.rows, table.lines, strict=True):
        row, place = dict(fields), f"{table.name}, line {line}"
        if template is not None:
            prompt = Template(template).before_answer()
            row[PROMPT] = prompt.fill(row).text
        if answer_column is not None:
            row[ANSWER] = row[answer_column]
        if MESSAGES in row:
            read_chat(row[MESSAGES], place)  # refused here, before a model is loaded
        rows.append(Row(row, 0, place))
    return tuple(rows)


def _splits(found: dict[str, tuple[Row, ...]], seed: int) -> tuple[tuple[Row, ...], tuple[Row, ...], tuple[Row, ...]]:
    """Three splits; of a folder of two, dev comes from train and what is held out is the test."""
    if len(found) == 3:
        return found["train"], found["dev"], found["test"]
    train = found["train"]
    if len(train) < MIN_ROWS:
        raise InputError(f"there are {len(train)} rows, too few to hold out dev and test: give at least {MIN_ROWS}")
    held = found.get("test") or found.get("dev")
    order = permutation(len(train), seed, SPLIT_EPOCH)
    dev = set(order[: max(1, round(DEV_SHARE * len(train)))])
    test = set() if held else set(order[len(dev) : len(dev) + max(1, round(TEST_SHARE * len(train)))])
    return (
        tuple(row for number, row in enumerate(train) if number not in dev | test),
        tuple(train[number] for number in sorted(dev)),
        held or tuple(train[number] for number in sorted(test)),
    )


def as_prompts(task: Task) -> Task:
    """Return a task with labels as prompts, each with its label's word as the right answer."""
    template = Template(task.template).before_answer()

    def rows(split: str) -> tuple[Row, ...]:
        prompts = []
        for number, example in enumerate(getattr(task, split), 1):
            texts = {PROMPT: template.fill(example.fields).text, ANSWER: task.label_words[example.label]}
            prompts.append(Row({**example.fields, **texts}, 0, f"{task.name}, {split} example {number}"))
        return tuple(prompts)

    bare = replace(task, template="", label_names=(), label_words=(), wordings={})
    return replace(bare, train=rows("train"), dev=rows("dev"), test=rows("test"))


def as_row(example: Example) -> Row:
    """Return an example as a row of text, which it is unless somebody made it by hand."""
    return example if isinstance(example, Row) else Row(example.fields, 0)


def prompt_of(row: Row) -> str:
    """Return what the model continues. Raises InputError for a row that has nothing of the kind."""
    prompt = row.fields.get(PROMPT) or row.fields.get(TEXT)
    if not prompt:
        raise InputError(f"{row.place} has no prompt: name a column `prompt`, or give a --template of its columns")
    return prompt
