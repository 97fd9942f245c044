"""Classification tasks: examples, a template and label words, from the bundle or the user's files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zocore.data.columns import (
    LabelWords,
    digits_note,
    find_label,
    find_labels,
    find_texts,
    listed,
    match_words,
    shown,
)
from zocore.data.files import MAX_BYTES, MAX_CHARS, SUFFIXES, Table, read_table
from zocore.data.hub import hub_tables, is_hub
from zocore.data.template import Template
from zocore.errors import InputError
from zocore.noise.addressed import permutation

BUNDLED = Path(__file__).parents[1] / "bundle" / "tasks"
MAX_ROWS = 100_000  # of one split; of more a random part is taken
MIN_ROWS = 10  # fewer leave nothing to train on once dev and test are held out
LINES = 8  # of rows left out, told one by one
MIN_PER_LABEL = 3  # one each for train, dev and test
SPLIT_EPOCH = 2**31  # split draws use epochs that no training run reaches
DEV_NAMES = ("dev", "validation", "valid", "val")


@dataclass(frozen=True)
class Example:
    """One item to classify: its text columns by name, and the number of its label."""

    fields: Mapping[str, str]
    label: int


@dataclass(frozen=True)
class Wording:
    """How one kind of model is asked."""

    template: str
    label_words: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """What to learn: examples in three splits, the prompt, and one name and one word per label."""

    name: str
    title: str
    template: str
    label_names: tuple[str, ...]
    label_words: tuple[str, ...]
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    description: str = ""
    notes: tuple[str, ...] = ()  # what was left out, and what the data needs
    word_note: str = ""  # the same, for models that read label words
    unlabelled: tuple[int, ...] = ()  # lines of the training file's rows that were left out, having no label
    textless: tuple[int, ...] = ()  # the same of those with a label whose text, or one of its texts, is empty
    rows: int = 0  # of the file of the training examples, before a part was taken
    candidates: bool = False  # whether each example brings answers of its own
    wordings: Mapping[str, Wording] = field(default_factory=dict)  # by kind of model, where it is not the usual one

    def worded(self, kind: str) -> "Task":
        """Return the task as a kind of model is asked."""
        wording = self.wordings.get(kind)
        return replace(self, template=wording.template, label_words=wording.label_words) if wording else self


@dataclass(frozen=True)
class Reading:
    """How rows become examples: which columns, and the label names in order."""

    texts: tuple[str, ...]
    label: str
    names: tuple[str, ...]

    def examples(self, table: Table) -> tuple[Example, ...]:
        """Return the table's rows as examples. Raises InputError for unknown labels."""
        numbers = {name: number for number, name in enumerate(self.names)}
        labels = table.column(self.label)
        for label, line in zip(labels, table.lines, strict=True):
            if label not in numbers:
                raise InputError(
                    f"{table.name}, line {line}: the label {shown(label)} is not among those of the training rows "
                    f"({listed(self.names)})"
                )
        texts = zip(*(table.column(name) for name in self.texts), strict=True)
        fields = (dict(zip(self.texts, values, strict=True)) for values in texts)
        return tuple(Example(row, numbers[label]) for row, label in zip(fields, labels, strict=True))


def bundled_tasks() -> list[str]:
    """Return the names of the tasks that come with the project."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/task.json"))


def load_task(name: str) -> Task:
    """Return a bundled task. Raises InputError when there is none of that name."""
    if name not in bundled_tasks():
        raise InputError(
            f"there is no bundled task {name!r}: choose one of {', '.join(bundled_tasks())}, or a task of the papers "
            "(`zocore tasks` lists them)"
        )
    folder = BUNDLED / name
    facts = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    names = tuple(facts["labels"])
    reading = Reading(tuple(facts["columns"]), facts["label_column"], names)
    train, dev, test = (reading.examples(read_table(folder / f"{split}.jsonl")) for split in ("train", "dev", "test"))
    words = match_words(facts["label_words"], names)
    return Task(name, facts["title"], facts["template"], names, words, train, dev, test, facts["description"])


def read_task(
    path: str | Path,
    *,
    text_columns: Sequence[str] | None = None,
    label_column: str | None = None,
    template: str | None = None,
    label_words: LabelWords | None = None,
    dev_share: float = 0.1,
    test_share: float = 0.2,
    seed: int = 0,
    max_chars: int = MAX_CHARS,
    max_rows: int = MAX_ROWS,
    max_bytes: int = MAX_BYTES,
) -> Task:
    """Read a task from a CSV, TSV or JSON Lines file, or a folder of such files named train, dev and test.

    Columns that are not named are looked for, a missing template is the text columns themselves, and label
    words default to the labels. Rows without a label or with an empty text are left out, and counted in the task's
    notes. What a folder does not hold apart is split off by `seed`, label by label; of a folder of two the second is
    the test.
    Of a file with more than `max_rows` rows a random part is taken. `seed` is the split's own, not the run's.
    Raises InputError when anything is wrong.
    """
    shares = _checked_shares(dev_share, test_share)
    read = tables_of(path, max_chars=max_chars, max_bytes=max_bytes)
    tables = {split: sampled(table, seed, max_rows) for split, table in read.items()}
    path = Path(path)
    reading, prompt = _understood(tables["train"], text_columns, label_column, template)
    tables = {split: table for split, table in tables.items() if split == "train" or table.has(reading.label)}
    labelled = {split: table.labelled(reading.label) for split, table in tables.items()}
    kept = {split: table.filled(reading.texts) for split, table in labelled.items()}
    notes = [left_out(tables[split], labelled[split], f"nothing or NaN for {reading.label!r}") for split in tables]
    notes += [left_out(labelled[split], kept[split], empty(reading.texts)) for split in tables]
    words = match_words(label_words, reading.names)
    examples = {split: reading.examples(table) for split, table in kept.items()}
    splits = three_splits(examples, reading.names, shares, seed)
    return Task(
        path.stem,
        path.stem,
        prompt,
        reading.names,
        words,
        *splits,
        f"{sum(map(len, splits))} rows of {path.name}",
        tuple(note for note in notes if note),
        digits_note(words, kept["train"], reading.label),
        _lost(tables["train"], labelled["train"]),
        _lost(labelled["train"], kept["train"]),
        len(read["train"].rows),
    )


def tables_of(
    data: str | Path, *, max_chars: int = MAX_CHARS, max_bytes: int = MAX_BYTES, nested: bool = False
) -> dict[str, Table]:
    """Return the splits of a file, a folder or a dataset of the hub as tables. Raises InputError."""
    if isinstance(data, str) and is_hub(data):
        return hub_tables(data)
    limits: dict[str, Any] = {"max_chars": max_chars, "max_bytes": max_bytes, "nested": nested}
    return {split: read_table(file, **limits) for split, file in _files(Path(data).expanduser()).items()}


def _lost(table: Table, kept: Table) -> tuple[int, ...]:
    """The lines of the rows that were left out, ascending."""
    return tuple(sorted(set(table.lines) - set(kept.lines)))


def left_out(table: Table, kept: Table, why: str) -> str:
    """Return a sentence on the rows that were left out, and in which lines they are; empty where there are none."""
    lost = _lost(table, kept)
    if not lost:
        return ""
    rows = "1 row" if len(lost) == 1 else f"{len(lost)} rows"
    lines = ", ".join(map(str, lost[:LINES])) + (", ..." if len(lost) > LINES else "")
    return f"{table.name}: {rows} left out, with {why}, in line{'s' * (len(lost) > 1)} {lines}"


def empty(columns: Sequence[str]) -> str:
    """Return what is wrong with rows that lack a text, as `left_out` says it."""
    return f"nothing in {' or '.join(map(repr, columns))}"


def _understood(
    table: Table, texts: Sequence[str] | None, label: str | None, template: str | None
) -> tuple[Reading, str]:
    """Settle columns and template together: a template names text columns, and `{text}` means any."""
    if template is not None and not texts:
        texts = [name for name in Template(template).fields if name in table.columns]
    label = find_label(table, label, taken=texts or ())
    columns = find_texts(table, texts, label)
    if template is None:
        template = "\n".join(f"{{{name}}}" for name in columns)
    elif "text" not in table.columns:
        template = template.replace("{text}", f"{{{columns[0]}}}")
    prompt = Template(template)
    prompt.check(tuple(name for name in table.columns if name != label))
    return Reading(prompt.fields, label, find_labels(table.labelled(label).filled(prompt.fields), label)), template


def _checked_shares(dev: float, test: float) -> tuple[float, float]:
    if not (0 < dev < 1 and 0 < test < 1 and dev + test < 1):
        raise InputError(f"the dev share {dev} and the test share {test} must be over 0 and together below 1")
    return dev, test


def _files(path: Path) -> dict[str, Path]:
    """The file of each split: one file is all train."""
    if not path.is_dir():
        return {"train": path}
    train = _first(path, ("train",))
    if train is None:
        raise InputError(f"the folder {path.name} has no train.jsonl, train.csv or train.tsv")
    files = {"train": train, "dev": _first(path, DEV_NAMES), "test": _first(path, ("test",))}
    return {split: file for split, file in files.items() if file is not None}


def _first(folder: Path, stems: Sequence[str]) -> Path | None:
    paths = (folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def sampled(table: Table, seed: int, max_rows: int = MAX_ROWS) -> Table:
    """Return the table, or a random part of one with more rows than are taken."""
    if len(table.rows) <= max_rows:
        return table
    kept = sorted(permutation(len(table.rows), seed, SPLIT_EPOCH)[:max_rows])
    return replace(table, rows=[table.rows[i] for i in kept], lines=[table.lines[i] for i in kept])


Splits = tuple[tuple[Example, ...], tuple[Example, ...], tuple[Example, ...]]


def three_splits(
    found: Mapping[str, tuple[Example, ...]], names: Sequence[str], shares: tuple[float, float], seed: int
) -> Splits:
    """Return train, dev and test of what a source has: what is missing is split off, label by label."""
    if len(found) == 3:
        return found["train"], found["dev"], found["test"]
    if len(found) == 1:
        return _split(found["train"], names, shares, seed)
    # as in MeZO's protocol: dev comes from train, what is held out is the test
    train, dev, _ = _split(found["train"], names, (shares[0], 0.0), seed)
    return train, dev, found["test"] if "test" in found else found["dev"]


def _split(examples: Sequence[Example], names: Sequence[str], shares: tuple[float, float], seed: int) -> Splits:
    """Hold out a share of each label, at least one example of each, keeping the order of the file.

    Without names there is one group, of all.
    """
    if len(examples) < MIN_ROWS:
        raise InputError(f"there are {len(examples)} rows, too few to hold out dev and test: give at least {MIN_ROWS}")
    dev: set[int] = set()
    test: set[int] = set()
    for label, name in enumerate(names or ("all",)):
        numbers = [number for number, example in enumerate(examples) if not names or example.label == label]
        if len(numbers) < MIN_PER_LABEL:
            raise InputError(
                f"the label {shown(name)} has only {len(numbers)} rows: give at least {MIN_PER_LABEL} or drop it"
            )
        order = permutation(len(numbers), seed, SPLIT_EPOCH + label)
        for_dev, for_test = (max(1, round(share * len(numbers))) if share else 0 for share in shares)
        dev.update(numbers[place] for place in order[:for_dev])
        test.update(numbers[place] for place in order[for_dev : for_dev + for_test])
    held_out = dev | test
    return (
        tuple(example for number, example in enumerate(examples) if number not in held_out),
        tuple(examples[number] for number in sorted(dev)),
        tuple(examples[number] for number in sorted(test)),
    )
