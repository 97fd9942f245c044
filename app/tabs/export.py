"""What a visitor can take away: the command, a plain script, a notebook, the recording, the weights."""

import json
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

from zocore.config import RunConfig
from zocore.objectives import OBJECTIVES
from zocore.runs.recording import CONFIG, EVENTS, SUMMARY

SCRIPT = '''"""{title}: the run that was shown, again.

Needs the package zocore: `pip install .` in the folder of the project.
"""

from zocore import RunConfig, run
from zocore.runs.events import {events}

config = RunConfig(
{settings}
)

for event in run(config):
    if isinstance(event, StepDone) and event.step % {every} == 0:
        print(f"step {{event.step}}  loss {{event.loss:.4f}}  {{event.forward_passes}} forward passes")
    if isinstance(event, EvalDone) and event.split == "test":
        print(f"test after step {{event.step}}: {judged}, loss {{event.loss:.6f}}")
{written}'''

WRITTEN = """    if isinstance(event, CompletionsShown):
        for prompt, completion in zip(event.prompts, event.completions, strict=True):
            print(f"after step {event.step}: {prompt!r} -> {completion!r}")
"""


def changed(config: RunConfig) -> dict[str, Any]:
    """Return the settings that are not the defaults; an upload by its file name alone.

    A rate that was found stands as a number: nothing is searched again.
    """
    values = {f.name: getattr(config, f.name) for f in fields(config)} | {"auto_lr": config.searches}
    kept = {name: value for name, value in values.items() if value != getattr(RunConfig(), name)}
    return kept | ({"data": Path(config.data).name} if config.data else {})


def command(config: RunConfig) -> str:
    """Return the command line of a run."""
    parts = ["python -m zocore train"]
    for name, value in changed(config).items():
        name, value = ("lr", "auto") if name == "auto_lr" else (name, value)
        flag = "--" + name.replace("_", "-")
        parts.append(flag if value is True else f"{flag} {shlex.quote(str(value))}")
    return " ".join(parts)


def script(config: RunConfig) -> str:
    """Return a plain Python script that does the run and prints the numbers shown."""
    settings = "\n".join(f"    {name}={value!r}," for name, value in changed(config).items())
    title = f"{config.method} on {config.model}"
    row = OBJECTIVES[config.objective]
    scored = row.of_batch or bool(row.text)
    return SCRIPT.format(
        title=title.replace('"', "'"),
        settings=settings,
        every=max(1, config.steps // 10),
        events="CompletionsShown, EvalDone, StepDone" if row.text else "EvalDone, StepDone",
        judged="{event.scores}" if scored else "accuracy {event.accuracy:.4f}",
        written=WRITTEN if row.text else "",
    )


def notebook(config: RunConfig) -> str:
    """Return the script as a notebook with the loss drawn at its end."""
    _, body = script(config).split('"""\n\n', 1)
    head, loop = body.split("\nfor event", 1)
    draw = (
        "import plotly.graph_objects as go\n\n"
        "steps = [event for event in events if isinstance(event, StepDone)]\n"
        "go.Figure(go.Scatter(x=[s.forward_passes for s in steps], y=[s.loss for s in steps]))"
    )
    keep = "events = []\nfor event" + loop.replace("run(config):\n", "run(config):\n    events.append(event)\n", 1)
    cells = [_text(f"# {config.method} on {config.model}\n\nThe run that was shown, again: `{command(config)}`")]
    cells += [_code(number, part.strip()) for number, part in enumerate((head, keep, draw))]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}, indent=1)


def _text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": "title", "metadata": {}, "source": source.splitlines(keepends=True)}


def _code(number: int, source: str) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": f"part-{number}",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
    }
    return cell | {"source": source.splitlines(keepends=True)}


def recording(folder: Path, to: Path) -> Path:
    """Return a zip of a run folder: what `zocore replay`, `resume` and this page read."""
    stage = to / "run"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    for name in (CONFIG, EVENTS, SUMMARY):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, stage / name)
    return Path(shutil.make_archive(str(to / "recording"), "zip", stage))
