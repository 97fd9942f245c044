"""The right-hand side of the Play tab while a run goes: what a tick sends, and nothing twice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from app import words
from app.charts import chart, memory_chart, plots
from app.form import cost
from app.jobs.job import Job
from app.jobs.view import MOST_POINTS, SMOOTHING, View
from app.tabs import completions
from zocore.config import RunConfig
from zocore.runs.events import SampleShown

VERDICTS = ("right", "wrong", "unknown")  # numbered as in probes.js
ROWS_PER_TICK = 2  # keeps a tick, with what Gradio wraps round it, below 1 KB
BESIDE = ("lora-adamw", "adamw")  # bars shown beside the method's own


@dataclass(frozen=True)
class Look:
    """How the visitor wants the charts."""

    axis: str = "forwards"
    weight: float = SMOOTHING
    log: bool = False


@dataclass(frozen=True)
class Drawn:
    """What a page already shows of a job."""

    job: str = ""
    version: int = -1
    rows: int = 0  # steps covered
    points: int = 0  # points drawn on a line
    marks: tuple[int, int, int, int] = (-1, -1, -1, -1)  # evaluations, estimates, samples, warnings with the header
    phase: str = ""
    look: Look = Look()
    accuracy: tuple[int, ...] = ()  # points of each trace
    estimator: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tick:
    """New values for the page, `gr.skip()` where nothing changed."""

    status: Any
    spoken: Any  # phase changes, for screen readers
    loss: Any
    gradient: Any
    foreseen: Any
    moved: Any
    accuracy: Any
    estimator: Any
    memory: Any
    probes: Any
    answers: Any  # to the probes that are shown
    warnings: Any

    def values(self) -> list[Any]:
        """Return the values in the order of the fields."""
        return [getattr(self, name) for name in self.__dataclass_fields__]


def tick(job: Job | None, view: View, position: int, drawn: Drawn, look: Look, wait: float = 0.0) -> tuple[Tick, Drawn]:
    """Return what changed since `drawn`: new rows where that is enough, whole figures where it is not.

    `position` is the place in line and `wait` the seconds until it is reached.
    """
    name = job.id if job else ""
    fresh = drawn.job != name or drawn.look != look or drawn.version < 0
    ended = job is not None and job.over and drawn.phase != job.phase
    notes = len(view.warnings) + (view.header is not None)  # the header has notes of its own
    marks = (len(view.evaluations), len(view.estimator), _asked(view), notes)
    phase = job.phase if job else "recorded"
    blank = job is not None and job.over and not view.points  # it failed before its first step
    empty = job is not None and not view.points  # axes of nothing would have numbers of their own
    (loss, gradient, foreseen, moved), rows, points = _lines(view, drawn, look, fresh or ended)
    changed = [fresh or new != old for new, old in zip(marks, drawn.marks, strict=True)]
    before = ((), ()) if fresh else (drawn.accuracy, drawn.estimator)
    accuracy, estimator = plots.held_out([view], look.axis), plots.estimator(view, look.axis)
    judged = chart.grown(accuracy, before[0] if drawn.marks[0] > 0 else ())  # the first one names the score
    text = words.status(job, position, wait)
    news = Tick(
        status=status(phase, text),
        spoken=text if phase != drawn.phase and job else gr.skip(),
        loss=_of_run(loss, name, empty),
        gradient=_of_run(gradient, name, empty),
        foreseen=_of_run(foreseen, name, empty),
        moved=_of_run(moved, name, empty),
        accuracy=_of_run(judged, name, blank) if changed[0] or blank else gr.skip(),
        estimator=_of_run(chart.grown(estimator, before[1]), name, blank) if changed[1] or blank else gr.skip(),
        memory=_of_run(memory(view), name, blank) if fresh or ended or (rows and not drawn.rows) else gr.skip(),
        probes=probes(view) if fresh or drawn.marks[2] < 1 or (changed[2] and view.completions) else gr.skip(),
        answers=answers(view) if changed[2] and view.samples else gr.skip(),
        warnings=warnings(view, job) if changed[3] or ended else gr.skip(),
    )
    shown = chart.sizes(accuracy), chart.sizes(estimator)
    return news, Drawn(name, job.version if job else 0, rows, points, marks, phase, look, *shown)


def _asked(view: View) -> int:
    """How often the model was asked a few sentences."""
    return len(view.samples) + len(view.completions)


def _lines(view: View, drawn: Drawn, look: Look, whole: bool) -> tuple[list[Any], int, int]:
    """Messages of the charts that have a point a step, the steps they cover and the points then drawn."""
    points = view.points
    begins = bool(points) and not drawn.rows  # only now is the method known
    if whole or begins or drawn.points + ROWS_PER_TICK > MOST_POINTS:
        loss = plots.loss([view], look.axis, look.weight, look.log)
        figures = [loss, plots.gradient(view, look.axis), plots.foreseen(view, look.axis)]
        figures.append(plots.moved(view, look.axis))
        return figures, len(points), min(len(points), MOST_POINTS // 2)
    if len(points) == drawn.rows:
        return [gr.skip()] * 4, drawn.rows, drawn.points
    columns = plots.loss_columns(points, look.axis, look.weight, drawn.rows, ROWS_PER_TICK)
    slope = plots.gradient_columns(points, look.axis, drawn.rows, ROWS_PER_TICK)
    share = plots.foreseen_columns(points, look.axis, drawn.rows, ROWS_PER_TICK)
    messages = [chart.rows(columns), chart.rows([slope]), chart.rows([share]) if share[0] else gr.skip()]
    shifts = plots.moved_columns(points, look.axis, drawn.rows, ROWS_PER_TICK)
    messages.append(chart.rows([shifts]) if view.objective.flat else gr.skip())
    return messages, len(points), drawn.points + len(columns[0][0])


def _of_run(message: Any, name: str, blank: bool) -> Any:
    """The message of a chart whose axes are this run's own: another run starts unzoomed, one that failed without."""
    if "layout" in message:
        message = chart.whole(message)
    if "figure" not in message:
        return message
    shown = message["figure"]["layout"]
    shown["uirevision"] = name or "recorded"
    for axis in [key for key in shown if key.startswith(("xaxis", "yaxis"))] if blank else ():
        shown[axis] |= {"range": [0, 1], "showticklabels": False, "type": "linear"}
    return message


def status(phase: str, text: str) -> str:
    """Return the status line as HTML."""
    return f"<i class='zo-dot zo-{escape(phase)}'></i><span>{escape(text)}</span>"


def memory(view: View) -> Any:
    """The memory chart: this method, the usual ones, and what was measured."""
    if view.header is None:
        return chart.whole({"data": [], "layout": plots.layout(annotations=[note("No step was done yet.")])})
    config = RunConfig.from_json(view.header.config)
    names = [config.method, *(name for name in BESIDE if name != config.method)]
    bills = [bill for name in names if (bill := cost.predicted(config, name))]
    if not bills:
        return chart.whole(
            {
                "data": [],
                "layout": plots.layout(annotations=[note(f"The sizes of {view.header.model} are not known here.")]),
            }
        )
    return chart.whole(memory_chart.bars(bills, measured=_measured(view)))


def note(text: str) -> dict[str, Any]:
    """A note for a chart without data."""
    return {"text": text, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}


def _measured(view: View) -> tuple[str, int] | None:
    return ("measured peak", view.peak) if view.peak and view.header else None


def probes(view: View) -> str:
    """The five sentences with what the model said before and says now, or prompts with what it wrote and writes."""
    if view.completions:
        return completions.of_run(view)
    if not view.samples or view.header is None:
        return f'<p class="zo-quiet">{words.NO_PROBES}</p>'
    return probe_table(view.samples[0], view.samples[-1], view.header.labels)


def probe_table(before: SampleShown, now: SampleShown, labels: Sequence[str]) -> str:
    """The same sentences asked at two steps, as a table."""
    rows = "".join(_probe(before, now, i, labels) for i in range(len(now.texts)))
    head = f"<tr><th>Sentence</th><th>Truth</th><th>Step {before.step}</th><th>Step {now.step}</th></tr>"
    caption = f"<caption>Label and its probability, step {before.step} → step {now.step}</caption>"
    return f'<table class="zo-probes">{caption}<thead>{head}</thead><tbody>{rows}</tbody></table>'


def answers(view: View) -> dict[str, Any]:
    """The newest answers alone: label, probability and verdict of each sentence."""
    now, labels = view.samples[-1], view.header.labels if view.header else []
    cells = [_answer(now.probabilities[i], labels, now.labels[i]) for i in range(len(now.texts))]
    return {"step": now.step, "cells": [[label, p, VERDICTS.index(verdict)] for label, p, verdict in cells]}


def _probe(before: SampleShown, now: SampleShown, i: int, labels: Sequence[str]) -> str:
    truth = now.labels[i]
    was, is_ = (_answer_html(*_answer(shown.probabilities[i], labels, truth)) for shown in (before, now))
    text = now.texts[i] if len(now.texts[i]) < 160 else now.texts[i][:159] + "…"
    return f"<tr><td>{escape(text)}</td><td>{escape(truth)}</td><td>{was}</td><td>{is_}</td></tr>"


def _answer(probabilities: Sequence[float], labels: Sequence[str], truth: str) -> tuple[str, float, str]:
    """The likeliest label, its probability, and whether it is right; no label where the model gives no numbers."""
    if not all(math.isfinite(p) for p in probabilities):
        return "no answer", 0.0, "unknown"
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    verdict = "right" if labels[best] == truth else "wrong" if truth else "unknown"
    return labels[best], round(probabilities[best], 2), verdict


def _answer_html(label: str, probability: float, verdict: str) -> str:
    """An answer with its probability as a bar; probes.js draws the same."""
    mark = {"right": "✓", "wrong": "✗", "unknown": ""}[verdict]
    return (
        f'<span class="zo-bar {verdict}" style="--share:{100 * probability:.0f}%"><i></i>'
        f'<b>{escape(label)} {probability:.2f}</b><em role="img" aria-label="{verdict}">{mark}</em></span>'
    )


def warnings(view: View, job: Job | None) -> str:
    """What the detectors and the model's loader said, and why a run failed."""
    notes = [f"Step {warning.step}: {warning.message}." for warning in view.warnings]
    notes += list(view.header.notes) if view.header else []
    search = view.header.rate_search if view.header else None
    rate = f'<p class="zo-quiet zo-found">{escape(words.rate_found(search))}</p>' if search else ""
    return rate + "".join(f'<p class="zo-warning">{escape(words.plain(note))}</p>' for note in notes)
