"""The tasks of the papers by name: where their rows are, how they are asked, and what their labels are called.

`named.toml` has one row for each. Rows come from the hub, or from a file or folder in the layout of the source.
"""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from zocore.data.columns import LabelWords, listed, match_words, shown
from zocore.data.files import Row, Table, is_missing
from zocore.data.tasks import Reading, Task, Wording, empty, left_out, sampled, tables_of, three_splits
from zocore.data.template import Template
from zocore.errors import InputError

FILE = Path(__file__).with_name("named.toml")
CANDIDATES = "candidates"  # the field of an example that holds its own answers, as a JSON list
LABEL = "label"
SHARES = (0.1, 0.2)  # held out of a source of one split: dev, test


@dataclass(frozen=True)
class NamedTask:
    """One row of the table."""

    name: str
    title: str
    hub: str
    template: str
    metric: str  # what the papers report
    source: str  # of the prompt and the words
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    label: Sequence[str] = ()
    labels: Sequence[str] = ()
    words: Sequence[str] = ()
    masked: str = ""
    masked_words: Sequence[str] = ()
    question: Sequence[str] = ()
    candidates: str = ""
    generated: bool = False

    def read(self, table: Table) -> Table:
        """Return the rows with the prompt's fields and a label by its name, missing where the source has none."""
        columns = {ours: self._column(table, theirs) for ours, theirs in self.fields.items()}
        label = self._column(table, self.label)
        rows = [self._row(row, columns, label) for row in table.rows]
        return replace(table, columns=tuple(dict.fromkeys(name for row in rows for name in row)), rows=rows)

    def _row(self, row: Row, columns: Mapping[str, str], label: str) -> Row:
        fields = {ours: row.get(theirs, "") for ours, theirs in columns.items()}
        fields |= {name: _question(fields[name]) for name in self.question}
        if self.candidates:
            return CHOICES[self.candidates](fields, row.get(label, ""))
        return fields | {LABEL: self._named(row.get(label, ""))}

    def _named(self, value: str) -> str:
        """A label by its name: sources have the name, its number, or -1 and - for none."""
        if is_missing(value) or value in ("-", "-1"):
            return ""
        names = {name.lower(): name for name in self.labels}
        numbers = {str(number): name for number, name in enumerate(self.labels)}
        return names.get(value.lower()) or numbers.get(value) or value

    def _column(self, table: Table, names: Sequence[str]) -> str:
        for name in names:
            if name in table.columns:
                return name
        raise InputError(
            f"{table.name} has no column {shown(names[0])}, which the task {self.name!r} needs: its columns are "
            f"{listed(table.columns)}"
        )


@cache
def named_tasks() -> Mapping[str, NamedTask]:
    """Return the table, by name."""
    rows = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {name: NamedTask(name, **row) for name, row in rows.items()}


def read_named(
    name: str,
    data: str | None = None,
    *,
    template: str | None = None,
    label_words: LabelWords | None = None,
    seed: int = 0,
) -> Task:
    """Return a task of the table, its rows from `data` in the source's layout, or from the hub.

    A split without labels is left out; what is not held apart is split off as for any file. Raises InputError when the
    rows cannot be had or do not fit, or when the task is answered in free text.
    """
    row = named_tasks()[name]
    if row.generated:
        raise InputError(
            f"{name} is answered in free text, which label words cannot score: give its rows with --data, the column "
            "of answers with --label-column, and --objective lm or --objective reward --reward f1"
        )
    tables = tables_of(data or f"hub:{row.hub}", nested=bool(row.candidates))
    read = {split: row.read(sampled(table, seed)) for split, table in tables.items()}
    kept = {split: table.labelled(LABEL) for split, table in read.items() if split == "train" or table.has(LABEL)}
    fields = _fields(row, kept["train"])
    labelled, kept = kept, {split: table.filled(fields) for split, table in kept.items()}
    notes = [left_out(labelled[split], kept[split], empty(fields)) for split in kept]
    names = tuple(row.labels) or _numbers(list(kept.values()))
    examples = {split: Reading(fields, LABEL, names).examples(table) for split, table in kept.items()}
    if template is not None:
        Template(template).check(fields)
    words = names if row.candidates else match_words(label_words or list(row.words), names)
    return Task(
        name,
        row.title,
        template or row.template,
        names,
        words,
        *three_splits(examples, row.labels, SHARES, seed),
        f"rows of {data or row.hub}; the papers report {row.metric}",
        notes=tuple(note for note in notes if note),
        candidates=bool(row.candidates),
        wordings={} if template or label_words or row.candidates else _wordings(row),
    )


def _fields(row: NamedTask, table: Table) -> tuple[str, ...]:
    return tuple(name for name in table.columns if name != LABEL)


def _numbers(tables: Sequence[Table]) -> tuple[str, ...]:
    """The candidates' numbers, as many as the example with the most has."""
    most = max(len(json.loads(row[CANDIDATES])) for table in tables for row in table.rows)
    return tuple(str(number + 1) for number in range(most))


def _wordings(row: NamedTask) -> dict[str, Wording]:
    """How models that are no decoders are asked: at a mask, or by the names of the labels."""
    plain = Wording("\n".join(f"{{{name}}}" for name in row.fields), tuple(row.labels))
    masked = {"masked": Wording(row.masked, tuple(row.masked_words))} if row.masked else {}
    return {"encoder": plain, "classifier": plain} | masked


def _question(text: str) -> str:
    """A question as a sentence begins, its mark left to the prompt."""
    text = text.strip().rstrip("?").rstrip()
    return text[:1].upper() + text[1:]


def _copa(row: Row, label: str) -> Row:
    """Premise and connective; the choices go on in small letters, but for "I"."""
    premise = row["premise"].strip().removesuffix(".")
    choices = [_continued(row[name]) for name in ("choice1", "choice2")]
    named = {"0": "1", "1": "2", "choice1": "1", "choice2": "2"}.get(label, "")
    connective = "so" if row["question"] == "effect" else "because"
    return {"premise": premise, "connective": connective, CANDIDATES: json.dumps(choices), LABEL: named}


def _continued(sentence: str) -> str:
    first, _, rest = sentence.strip().partition(" ")
    return " ".join([first if first == "I" else first.lower(), rest]).strip()


def _record(row: Row, label: str) -> Row:
    """The query with each name of the passage in its gap; the first right one is the label."""
    names = list(dict.fromkeys(json.loads(row["entities"] or "[]")))
    right = [name for name in json.loads(label or "[]") if name in names]
    filled = [row["query"].replace("@placeholder", name) for name in names]
    passage = row["passage"].replace("\n@highlight\n", ". ")
    named = str(names.index(right[0]) + 1) if right else ""
    return {"passage": passage, CANDIDATES: json.dumps(filled), LABEL: named}


CHOICES: Mapping[str, Callable[[Row, str], Row]] = {"copa": _copa, "record": _record}
