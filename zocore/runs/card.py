"""The model card of an export: what was done to which model, on what, and what came of it, from the recording alone."""

import json
import shlex
from dataclasses import fields
from math import isnan, nan
from pathlib import Path
from typing import Any

from zocore.config import RunConfig, flag
from zocore.methods import METHODS
from zocore.runs.events import EvalDone
from zocore.runs.recording import Recording
from zocore.runs.session import Session

MACHINE = ("device", "allow_pickle")  # settings that say nothing of the model
SORTS = {"model": "The whole model", "adapter": "A LoRA adapter", "delta": "What changed, without the base model"}
LIBRARIES = {"model": "transformers", "adapter": "peft", "delta": "zocore"}


def write_card(folder: Path, session: Session, recording: Recording | None, sort: str) -> None:
    """Write README.md: `sort` is model, adapter or delta. Without a recording the figures of the run are not known."""
    parts = [_front(session, sort), _what(session, sort), _task(session)]
    parts += [_figures(recording), _again(recording)] if recording else []
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def command(config: RunConfig) -> str:
    """Return the command that does the same run; of paths only the last part, which is all that others need."""
    words = ["zocore", "train"]
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in MACHINE or value == field.default:
            continue
        shown = _public(value) if field.name in ("model", "data", "reward") else str(value)
        words += [flag(field.name)] if value is True else [flag(field.name), shown]
    return shlex.join(words)


def _front(session: Session, sort: str) -> str:
    config = session.config
    facts: dict[str, Any] = {"library_name": LIBRARIES[sort], "tags": ["zeroth-order", "zocore", config.method]}
    if sort != "model":
        facts["tags"].append(sort)
    if config.model != "bundled" and not Path(config.model).exists():
        facts["base_model"] = config.model
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in facts.items()), "---"])


def _what(session: Session, sort: str) -> str:
    config, row = session.config, METHODS[session.config.method]
    paper = f" ([arXiv {row.paper}](https://arxiv.org/abs/{row.paper}))" if row.paper else ""
    by = "from forward passes alone" if row.zeroth_order else "by backpropagation"
    return (
        f"# {_public(config.model)}, tuned with {row.title}\n\n"
        f"{SORTS[sort]} of `{_public(config.model)}` after tuning {by} with {row.title}{paper}: {row.summary} "
        f"{session.trainable:,} values moved (subspace `{config.subspace}`).\n\n"
        f"Fingerprint of the base weights: `{session.loaded.fingerprint}`."
    )


def _task(session: Session) -> str:
    task = session.task
    parts = [f"## Task\n\n{task.title}, objective `{session.config.objective}`."]
    if task.template:
        parts.append(f"The prompt:\n\n```text\n{task.template}\n```")
    if task.label_names:
        pairs = zip(task.label_names, task.label_words, strict=True)
        parts.append("Labels and their words:\n\n" + "\n".join(f"- `{name}`: `{word}`" for name, word in pairs))
    return "\n\n".join(parts)


def _figures(recording: Recording | None) -> str:
    assert recording is not None
    header, tests = recording.header, [e for e in recording.events if isinstance(e, EvalDone) and e.split == "test"]
    lines = ["## Figures", "", f"Examples: {', '.join(f'{count} {name}' for name, count in header.examples.items())}."]
    if recording.steps:
        last = recording.steps[-1]
        lines.append(
            f"{last.step} steps, {last.forward_passes} forward passes (as much arithmetic as {last.forward_cost:.0f} "
            f"plain forwards), {last.seconds:.0f} seconds of training on {header.device}, seed {header.config['seed']}."
        )
    names = sorted({name for e in tests for name in _judged(e)})
    heads = ["step", *(f"test {name}" for name in names), "test loss", "examples"]
    lines += ["", f"| {' | '.join(heads)} |", "|--:" * len(heads) + "|"]
    for e in tests:
        judged = "".join(f" {_judged(e).get(name, nan):.3f} |" for name in names)
        lines.append(f"| {e.step} |{judged} {e.loss:.4f} | {e.examples} |")
    return "\n".join(lines) + "\n\nOne run with one seed: no more than that is claimed."


def _judged(event: EvalDone) -> dict[str, float]:
    """What an evaluation is judged by: accuracy where anything is right or wrong, and the objective's own scores."""
    accuracy = {} if isnan(event.accuracy) else {"accuracy": event.accuracy}
    return accuracy | (event.scores or {})


def _again(recording: Recording | None) -> str:
    assert recording is not None
    versions = ", ".join(f"{name} {version}" for name, version in recording.header.versions.items())
    return f"## The same again\n\n```sh\n{command(recording.config)}\n```\n\nWith {versions}."


def _public(name: str) -> str:
    """A hub id as it is; of a local path its last part alone."""
    path = Path(name).expanduser()
    return path.name if path.is_absolute() or path.exists() else name
