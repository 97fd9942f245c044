"""What the page asks of a file of prompts, texts or chats: its first rows, and how a run would read it."""

from pathlib import Path
from typing import Any

from zocore.config import RunConfig
from zocore.data.files import check_file
from zocore.data.texts import ANSWER, MESSAGES, PROMPT, TEXT, as_row
from zocore.runs.task import read

Json = dict[str, Any]
SHOWN = 5  # rows of a table


def rows(_: object, facts: Json) -> Json:
    """Read a file of texts: its columns, its first rows, and the column of right answers where it has one."""
    check_file(Path(facts["path"]), facts["most"])
    task = read(RunConfig(objective="lm", data=facts["path"]))
    examples = [*task.train, *task.dev, *task.test]
    columns = list(dict.fromkeys(name for example in examples for name in example.fields))
    shown = [dict(example.fields) for example in examples[:SHOWN]]
    answer = ANSWER if ANSWER in columns else None
    return {"columns": columns, "rows": shown, "count": len(examples), "texts": [], "label": answer}


def written(_: object, facts: Json) -> Json:
    """Read a file of texts as a run would: the sizes of its splits, and one row's prompt and right answer."""
    task = read(RunConfig(objective="lm", **facts))
    fields = as_row(task.train[0]).fields
    kind = next((name for name in (PROMPT, TEXT, MESSAGES) if fields.get(name)), "")
    counts = [len(task.train), len(task.dev), len(task.test)]
    return {"kind": kind, "text": fields.get(kind, ""), "answer": fields.get(ANSWER, ""), "counts": counts}
