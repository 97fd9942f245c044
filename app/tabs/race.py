"""The Race tab: several methods on one budget of forward passes, a guess before, and a table after."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from app import words
from app.charts import chart, plots
from app.form import arithmetic, controls, data_form, forms
from app.form.starting import Guest, begin
from app.jobs.job import Job, Lane
from app.jobs.store import JobStore
from app.jobs.view import MOST_POINTS, View
from app.quiet import QUIET
from app.tabs import standings
from app.tabs.live import status
from app.tabs.play import TICK
from app.tabs.tab import Site, Tab
from zocore import compare
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.methods import METHODS

RECORDED = Path(__file__).parents[1] / "recorded" / "race"
ROWS_PER_TICK = 24  # over all lanes
LANES = ("mezo", "grzo", "feedback")  # entered at first


@dataclass(frozen=True)
class Drawn:
    """What a page shows of a race."""

    job: str = ""
    version: int = -1
    rows: tuple[int, ...] = ()
    axis: str = ""
    phase: str = ""


@dataclass
class RacePage:
    """The tab's components."""

    methods: gr.CheckboxGroup
    seeds: gr.Slider
    budget: gr.Number
    guess: gr.Radio
    start: gr.Button
    stop: gr.Button
    axis: gr.Radio
    status: gr.HTML
    problem: gr.HTML
    loss: gr.HTML
    accuracy: gr.HTML
    table: gr.HTML
    job: gr.State = field(default_factory=lambda: gr.State(""))
    drawn: gr.State = field(default_factory=lambda: gr.State(Drawn()))
    timer: gr.Timer = field(default_factory=lambda: gr.Timer(TICK, active=False))

    @property
    def shown(self) -> list[Any]:
        """What a tick fills."""
        return [self.status, self.loss, self.accuracy, self.table, self.drawn, self.timer, self.start, self.stop]


def lanes(config: RunConfig, methods: Sequence[str], seeds: int, budget: int) -> list[RunConfig]:
    """Return one configuration a method and seed, each with the steps that the budget buys.

    Raises InputError for too few or too many methods, or a budget that buys nothing.
    """
    if not 2 <= len(methods) <= 5:
        raise InputError(f"a race has two to five methods, not {len(methods)}")
    if not budget or not math.isfinite(budget) or budget < 2:
        raise InputError("the budget must be at least the worth of 2 forward passes")
    bought: list[compare.Lane] = []
    for method in methods:
        lane = forms.with_presets(_bare(config, method))
        each = range(config.seed, config.seed + max(1, seeds))
        steps, first = arithmetic.affordable(lane, budget), arithmetic.price(replace(lane, steps=1))
        bought += compare.buy(lane, each, budget, steps, first, "forward_cost")
    return [lane.config for lane in bought]


def _bare(config: RunConfig, method: str) -> RunConfig:
    """The settings without what belongs to another method."""
    home = METHODS[method].home
    subspace = "auto" if home == "scales" or config.subspace == "scales" else config.subspace
    return replace(config.without_options(), method=method, subspace=subspace, measure_every=0, auto_lr=False)


@lru_cache(maxsize=1)
def recorded() -> list[Lane]:
    """Return the lanes of the race that the tab opens with."""
    recorded_lanes = [Lane(RunConfig(), folder) for folder in sorted(RECORDED.iterdir())]
    for lane in recorded_lanes:
        lane.load()
    return [
        replace(lane, config=RunConfig.from_json(lane.view.header.config))
        for lane in recorded_lanes
        if lane.view.header
    ]


def layout() -> RacePage:
    """Lay the tab out."""
    shown = [lane.view for lane in recorded()]
    with gr.Row(elem_classes="zo-main", equal_height=False):
        with gr.Column(scale=4, min_width=300, elem_classes="zo-side"):
            gr.HTML(f"<p class='zo-quiet'>{words.ABOUT_RACE}</p>")
            methods = gr.CheckboxGroup(forms.METHOD_CHOICES, value=list(LANES), label="Lanes", elem_id="zo-lanes")
            seeds = gr.Slider(1, 5, value=3, step=1, label="Seeds of each method", elem_id="zo-seeds", buttons=[])
            budget = gr.Number(200, label="Budget of a run, in plain forwards' worth", precision=0, elem_id="zo-budget")
            guess = gr.Radio(guesses(LANES), value=None, label=words.PREDICT, elem_id="zo-guess")
            with gr.Row(elem_classes="zo-buttons"):
                start = gr.Button(
                    "Choose your guess first", variant="primary", interactive=False, elem_id="zo-race", min_width=100
                )
                stop = gr.Button("Stop", variant="stop", visible=False, elem_id="zo-race-stop", min_width=100)
            problem = gr.HTML("", elem_id="zo-race-problem")
        with gr.Column(scale=9, min_width=320, elem_classes="zo-stage"):
            line = gr.HTML(status("recorded", words.RECORDED_RACE), elem_id="zo-race-status", elem_classes="zo-status")
            with gr.Column(elem_classes="zo-panel"):
                gr.HTML("<h2>Loss</h2>")
                axis = gr.Radio(
                    words.RACE_AXES, value="cost", label="Over", elem_id="zo-race-axis", elem_classes="zo-over"
                )
                loss = chart.chart("race-loss", "Loss of each lane", 320, plots.race(shown, "cost", band=True))
            with gr.Column(elem_classes="zo-panel"):
                gr.HTML("<h2>Held-out examples</h2>")
                accuracy = chart.chart(
                    "race-accuracy", "Score of each lane on held-out examples", 220, plots.held_out(shown, "cost")
                )
            with gr.Column(elem_classes="zo-panel"):
                gr.HTML("<h2>At equal cost</h2>")
                table = gr.HTML(standings.table(recorded(), None), elem_id="zo-race-table")
                gr.HTML(f"<p class='zo-quiet'>{words.MEASURED_RACE}</p>")
    return RacePage(methods, seeds, budget, guess, start, stop, axis, line, problem, loss, accuracy, table)


def lay_out(site: Site) -> None:
    """Lay the tab out."""
    site.race = layout()


def connect(site: Site) -> None:
    """Join the tab to the store."""
    page, play, store, visitor = site.race, site.play, site.store, site.visitor

    def start(
        secret: str, request: gr.Request, methods: list[str], seeds: float, budget: float, *values: Any
    ) -> tuple[Any, ...]:
        guest = Guest.of(store, secret, request)
        try:
            config = controls.collect(play.form.named(values), store.limits)
            job = begin(store, guest, lanes(config, _in_order(methods), int(seeds), int(budget or 0)), "race")
        except (ValueError, OverflowError) as error:
            return data_form.error(str(error)), gr.skip(), guest.secret, gr.skip()
        return "", job.id, guest.secret, Drawn()

    def stop(visitor_: str, job: str) -> str:
        with contextlib.suppress(InputError):
            store.stop(job, visitor_)
        return ""

    def offered(methods: list[str]) -> Any:
        return gr.update(choices=guesses(methods), value=None)

    def tick(job_id: str, drawn: Drawn, axis: str, guess: str | None) -> list[Any]:
        return race_tick(store, job_id, drawn, axis, guess)

    page.methods.change(offered, page.methods, page.guess, **QUIET)
    page.guess.change(_ready, [page.guess, page.methods], page.start, **QUIET)
    begun = page.start.click(
        start,
        [visitor, page.methods, page.seeds, page.budget, *play.form.inputs],
        [page.problem, page.job, visitor, page.drawn],
        **QUIET,
        trigger_mode="once",
    )
    tick_in = [page.job, page.drawn, page.axis, page.guess]
    begun.then(tick, tick_in, page.shown, **QUIET)
    page.timer.tick(tick, tick_in, page.shown, **QUIET, trigger_mode="once")
    page.axis.change(tick, tick_in, page.shown, **QUIET)
    page.stop.click(stop, [visitor, page.job], page.problem, **QUIET).then(tick, tick_in, page.shown, **QUIET)


def guesses(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Return what can be guessed: one of the lanes, or nothing."""
    return [*((METHODS[name].title, name) for name in _in_order(methods)), (words.NO_GUESS, "")]


def _ready(guess: str | None, methods: list[str]) -> Any:
    if not 2 <= len(methods) <= 5:
        return gr.update(value="Choose two to five lanes", interactive=False)
    return gr.update(
        value="Start the race" if guess is not None else "Choose your guess first", interactive=guess is not None
    )


def _in_order(methods: Sequence[str]) -> list[str]:
    return [name for name in METHODS if name in methods]


def race_tick(store: JobStore, job_id: str, drawn: Drawn, axis: str, guess: str | None) -> list[Any]:
    """Send what changed since the last tick."""
    job = store.find(job_id)
    if job is None or (job.version == drawn.version and axis == drawn.axis and job.phase != "queued"):
        return [gr.skip()] * 8
    views = [lane.view for lane in job.lanes]
    turned = job.phase != drawn.phase
    fresh = job.id != drawn.job or axis != drawn.axis or (turned and job.over) or len(views) != len(drawn.rows)
    rows = tuple(len(view.points) for view in views)
    fresh = fresh or max(rows) > MOST_POINTS or (max(rows) > 0 and not all(drawn.rows))
    loss = chart.whole(plots.race(views, axis, band=job.over)) if fresh else _more(views, drawn, axis)
    evaluated = fresh or turned or any(len(view.scores("test")) + len(view.scores("dev")) for view in views)
    return [
        status(job.phase, _progress(job, store)),
        loss,
        chart.whole(plots.held_out(views, axis)) if evaluated and (fresh or turned) else gr.skip(),
        _table(job, guess) if turned else gr.skip(),
        Drawn(job.id, job.version, rows, axis, job.phase),
        gr.update(active=not job.over),
        gr.update(visible=job.over),
        gr.update(visible=not job.over),
    ]


def _more(views: Sequence[View], drawn: Drawn, axis: str) -> Any:
    most = max(1, ROWS_PER_TICK // len(views))
    columns = [
        plots.loss_columns(view.points, axis, first=first, most=most)[1]
        for view, first in zip(views, drawn.rows, strict=True)
    ]
    # the figure's traces are grouped by method, as the lanes are
    return chart.rows(columns) if any(x for x, _ in columns) else gr.skip()


def _progress(job: Job, store: JobStore) -> str:
    if job.phase != "running" or job.stop.is_set():
        return words.status(job, store.position(job), store.wait(job))
    done = sum(lane.view.place.cost for lane in job.lanes)
    planned = sum(arithmetic.price(lane.config) * lane.config.steps for lane in job.lanes)
    return f"racing · {len(job.lanes)} runs, {done:,.0f} of {planned:,.0f} plain forwards' worth"


def _table(job: Job, guess: str | None) -> str:
    return standings.table(job.lanes, guess) if job.over else f"<p class='zo-quiet'>{words.NO_STANDINGS}</p>"


TAB = Tab("race", "Race", lay_out, connect)
