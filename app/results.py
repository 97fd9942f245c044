"""A run as something to show: its name and result in words, how runs differ, and the card of a link to one."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from app import words
from app.charts import card_image, plots
from app.jobs.job import Job
from zocore.config import RunConfig

Row = tuple[str, list[str]]


def title(job: Job) -> str:
    """Return what was run, such as "MeZO on topic"."""
    methods = dict.fromkeys(plots.title(lane.config.method) for lane in job.lanes)
    config = job.lane.config
    model = "" if config.model == "bundled" else f", {config.model}"
    return f"{' against '.join(methods)} on {Path(config.data).name if config.data else config.task}{model}"


def result(job: Job) -> str:
    """Return how far a run came and what that did to held-out examples."""
    view = job.lane.view
    tests = [f"{value:.0%}" if view.score == "accuracy" else f"{value:.3g}" for _, value in view.scores("test")]
    passes = f"{view.steps} steps, {view.place.forwards} forward passes"
    if len(job.lanes) > 1 or len(tests) < 2:
        return f"{job.phase} · {passes}"
    return f"test {plots.score_name(view)} {tests[0]} → {tests[-1]} · {passes}"


def card(job: Job) -> bytes:
    """Return the picture that goes with a link to a run."""
    return card_image.image(job.lane.view, words.NAME, title(job), result(job))


def differences(configs: Sequence[RunConfig]) -> list[Row]:
    """Return the settings in which runs differ, each with its value in every run."""
    rows = []
    for field in fields(RunConfig):
        values = [getattr(config, field.name) for config in configs]
        if field.name == "data":
            values = [Path(value).name if value else None for value in values]
        if any(value != values[0] for value in values):
            rows.append((field.name.replace("_", " "), [_shown(value) for value in values]))
    return rows


def _shown(value: Any) -> str:
    return "preset" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
