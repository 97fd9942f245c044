"""Fill the model card with the figures of a pretraining run."""

import json
from pathlib import Path
from typing import Any

from . import ROOT

CLASSICS = {
    True: "About a fifth of the tokens: passages of English fiction published up to 1925, in the public domain "
    "(not in the project).",
    False: "No other text.",
}
LOG_LINES = 12


def write_card(folder: Path, record: dict[str, Any]) -> None:
    """Write README.md and pretraining.json, the record of a run, into the model folder."""
    (folder / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    shown = (
        record["recipe"]
        | record
        | {
            "classics": CLASSICS[record["classics"]],
            "minutes": record["log"][-1]["seconds"] / 60,
            "tokens": record["log"][-1]["tokens"],
            "table": _table(record["log"]),
            "zero_shot": "\n".join(f"- {task}: {accuracy:.3f}" for task, accuracy in record["zero_shot"].items()),
        }
    )
    text = (ROOT / "card.md").read_text("utf-8")
    (folder / "README.md").write_text(text.format(**shown), "utf-8")


def _table(log: list[dict[str, float]]) -> str:
    """Return about a dozen lines of the log, the last among them, as a Markdown table."""
    step = max(1, len(log) // LOG_LINES)
    rows = [
        f"| {e['tokens']:,} | {e['train_loss']:.3f} | {e['held_out_loss']:.3f} "
        f"| {e['knows_sentiment']:.2f} | {e['zero_shot_sentiment']:.2f} |"
        for e in log[::-step][::-1]
    ]
    return "\n".join(["| tokens | training loss | held-out loss | knows | zero-shot |", "|--:|--:|--:|--:|--:|", *rows])
