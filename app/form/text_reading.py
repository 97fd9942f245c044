"""What a visitor's file of prompts, texts or chats was read as, where no labels are learned."""

from collections.abc import Mapping
from html import escape
from typing import Any

MOST = 600  # characters of a text shown
KINDS = {
    "prompt": "One prompt, which the model continues:",
    "text": "One text, which the model reads token by token and continues from its beginning:",
    "messages": "One chat, whose answers are learned:",
    "": "No column is named prompt, text or messages: write a template of the columns, such as {question}.",
}


def report(answer: Mapping[str, Any]) -> str:
    """Return the sizes of the splits, as the question "written" found them, as HTML."""
    counts = "{:,} to train on, {:,} to look at meanwhile, {:,} to test".format(*answer["counts"])
    return f'<dl class="zo-read"><dt>Kept</dt><dd><b>{sum(answer["counts"]):,}</b> rows: {counts}</dd></dl>'


def example(row: Mapping[str, Any]) -> str:
    """Return the first row as a run reads it, with the right answer where it has one, as HTML."""
    about = f'<p class="zo-quiet">{KINDS[row["kind"]]}</p>'
    if not row["kind"]:
        return about
    answer = f'<p class="zo-quiet">Right answer: {escape(_cut(row["answer"]))}</p>' if row["answer"] else ""
    ready = '<p class="zo-quiet">Ready: press Start above.</p>'
    return f"{about}<pre>{escape(_cut(row['text']))}</pre>{answer}{ready}"


def _cut(text: str) -> str:
    return text if len(text) <= MOST else text[: MOST - 1] + "…"
