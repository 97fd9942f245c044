"""The Runs tab: one's own runs, two or more laid over one another, and in what they differ."""

import time
from collections.abc import Sequence
from html import escape
from itertools import cycle
from typing import Any

import gradio as gr

from app import results, words
from app.charts import chart, plots
from app.jobs.job import Job
from app.jobs.store import JobStore
from app.quiet import QUIET
from app.tabs import live
from app.tabs.tab import Site, Tab

MOST_LISTED, MOST_SHOWN = 40, 6
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
NAMES = "ABCDEF"


def lay_out(site: Site) -> None:
    """Lay the tab out and connect it."""
    store = site.store
    gr.HTML(f"<p class='zo-lead'>{words.ABOUT_RUNS}</p>")
    with gr.Column(elem_classes="zo-panel"):
        listed = gr.CheckboxGroup([], label="Runs, newest first", elem_id="zo-runs")
    with gr.Column(elem_classes="zo-panel"):
        gr.HTML("<h2>Loss</h2>")
        axis = gr.Radio(words.RACE_AXES, value="cost", label="Over", elem_id="zo-runs-axis", elem_classes="zo-over")
        loss = chart.chart("runs-loss", "Loss of the chosen runs", 300, overlay([], "cost"))
    with gr.Column(elem_classes="zo-panel"):
        gr.HTML("<h2>What differs</h2>")
        table = gr.HTML(compared([]), elem_id="zo-runs-table")

    def opened(visitor: str, chosen: list[str], event: gr.SelectData) -> Any:
        if event.value != TAB.label:
            return gr.skip()
        choices = [(label(job), job.id) for job in shown(store, visitor)]
        ids = {name for _, name in choices}
        return gr.update(choices=choices, value=[name for name in chosen or [] if name in ids])

    def drawn(chosen: list[str], over: str) -> tuple[Any, str]:
        jobs = _jobs(store, chosen)
        return chart.whole(overlay(jobs, over)), compared(jobs)

    site.tabs.select(opened, [site.visitor, listed], listed, **QUIET)
    gr.on([listed.change, axis.change], drawn, [listed, axis], [loss, table], **QUIET)


def shown(store: JobStore, visitor: str) -> list[Job]:
    """Return the visitor's runs that have something to show; races are on their own tab."""
    alone = [job for job in store.of(visitor)[:MOST_LISTED] if len(job.lanes) == 1]
    return [job for job in alone if store.find(job.id) and job.lane.view.steps]  # found: its events are in memory


def _jobs(store: JobStore, chosen: Sequence[str]) -> list[Job]:
    return [job for name in list(chosen or [])[:MOST_SHOWN] if (job := store.find(name))]


def label(job: Job) -> str:
    """Return a run in one line."""
    return f"{results.title(job)} · {results.result(job)} · {words.clock(time.time() - job.created)} ago"


def overlay(jobs: Sequence[Job], axis: str) -> plots.Figure:
    """Return the smoothed losses of runs, one line each, told apart by dash as well as by colour."""
    data, dashes = [], cycle(DASHES)
    for name, job in zip(NAMES, jobs, strict=False):
        view = job.lane.view
        x, y = plots.loss_columns(view.points, axis)[1]
        look = plots.line(view.method) | {"dash": next(dashes)}
        named = f"{name} · {plots.title(view.method)}"
        data.append({"type": "scatter", "mode": "lines", "x": x, "y": y, "name": named, "line": look})
    shown_ = plots.layout(plots.AXIS_TITLES[axis], "training loss, smoothed", showlegend=True)
    if not jobs:  # axes of nothing would have numbers of their own
        hidden = {name: shown_[name] | {"visible": False} for name in ("xaxis", "yaxis")}
        shown_ |= hidden | {"annotations": [live.note("No run is chosen.")]}
    return {"data": data, "layout": shown_}


def compared(jobs: Sequence[Job]) -> str:
    """Return the settings in which the runs differ and what each came to, as a table with links."""
    if not jobs:
        return f"<p class='zo-quiet'>{words.NO_RUNS}</p>"
    links = [f'<a href="?run={escape(job.id)}">{name}</a>' for name, job in zip(NAMES, jobs, strict=False)]
    head = "".join(f"<th>{link}</th>" for link in ("", *links))
    configs = [job.lane.config for job in jobs]
    rows = [*results.differences(configs), ("came to", [results.result(job) for job in jobs])]
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in (name, *values)) + "</tr>" for name, values in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="zo-table" tabindex="0" role="region" aria-label="What differs">{table}</div>'


TAB = Tab("runs", "Runs", lay_out)
