"""The Play tab: the form on the left, the run on the right, and what joins them."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app import words
from app.form import aims, controls, cost, cost_card, data_form, forms, pricing, recipes, uploads
from app.form.starting import Guest, begin
from app.jobs.job import Job
from app.jobs.store import JobStore
from app.quiet import QUIET
from app.tabs import live, mistakes, opening, replay, take_away
from app.tabs.live import Drawn, Look
from app.tabs.stage import Panel, build, recorded
from app.tabs.tab import Site, Tab
from zocore.config import RunConfig
from zocore.errors import InputError

TICK = 0.8  # seconds
MOST_TEXT = 300  # characters of one's own sentence in a run
SHOW = """(...values) => {
  document.body.classList.remove('zo-reading');
  if (innerWidth < 761) document.querySelector('#zo-status').scrollIntoView({ block: 'start' });
  return values;
}"""


@dataclass
class Play:
    """The tab's components that other tabs drive too."""

    stage: gr.Column
    form: controls.Controls
    panel: Panel
    start: gr.Button
    stop: gr.Button
    resume: gr.Button
    card: gr.HTML
    timed: gr.Button  # has the choice timed
    problem: gr.HTML
    job: gr.State  # id of the job shown
    drawn: gr.State
    timer: gr.Timer
    slider: gr.Slider | None = None  # of the replay, whose length follows the run


def lay_out(site: Site) -> None:
    """Lay the tab out, set for the toy run."""
    site.play = play = layout(forms.with_presets(forms.PRESETS["toy"]), site.store)
    with play.stage:
        play.slider = replay.build(play, site)
        mistakes.build(play, site)
        take_away.build(play, site.store)


def layout(config: RunConfig, store: JobStore) -> Play:
    """Lay the tab out for a configuration."""
    price = cost.cost(config, store.speeds)
    opening.lay_out()
    with gr.Row(elem_classes="zo-main", equal_height=False):
        with gr.Column(scale=4, min_width=300, elem_classes="zo-side"):
            preset = gr.Radio(
                [(title, name) for name, title in words.PRESETS.items()],
                value="toy",
                label="Preset",
                elem_id="zo-preset",
            )
            card, timed = pricing.parts(cost_card.card(price), price.measured)
            with gr.Row(elem_classes="zo-buttons"):
                start = gr.Button("Start", variant="primary", elem_id="zo-start", min_width=100)
                stop = gr.Button("Stop", variant="stop", elem_id="zo-stop", visible=False, min_width=100)
                resume = gr.Button("Resume", elem_id="zo-resume", visible=False, min_width=100)
            problem = gr.HTML("", elem_id="zo-problem")
            gr.HTML('<button type="button" id="zo-show-all">Show all controls</button>', elem_classes="zo-lesson-only")
            with gr.Column(elem_classes="zo-form"):
                form = controls.build(config, preset, store.limits.upload_bytes)
        with gr.Column(scale=9, min_width=320, elem_classes="zo-stage") as column:
            panel = build()
    return Play(
        column,
        form,
        panel,
        start,
        stop,
        resume,
        card,
        timed,
        problem,
        gr.State(""),
        gr.State(Drawn()),
        gr.Timer(TICK, active=False),
    )


NOTHING = [gr.skip()] * (len(live.Tick.__dataclass_fields__) + 6)  # for `tick_outputs`


def tick_outputs(play: Play) -> list[Any]:
    """What a tick fills."""
    return [*play.panel.outputs, play.drawn, play.timer, play.start, play.stop, play.resume, play.slider]


def connect(site: Site) -> None:
    """Join the components to the store."""
    play, store, visitor = site.play, site.store, site.visitor
    _connect_choices(play.form, store)
    priced = [play.card, play.start, play.timed]
    pricing.connect(play.form, store, visitor, priced, play.problem, play.panel.spoken)
    uploads.connect(play.form.data, store, visitor)
    handlers = Handlers(store, play.form)
    shown = tick_outputs(play)
    started = play.start.click(
        handlers.start,
        [visitor, play.panel.sentence, *play.form.inputs],
        [play.problem, play.job, visitor, play.drawn],
        **QUIET,
        trigger_mode="once",
    )
    tick_in = [play.job, play.drawn, *play.panel.look]
    started.then(handlers.tick, tick_in, shown, **QUIET, js=SHOW)
    play.timer.tick(handlers.tick, tick_in, shown, **QUIET, trigger_mode="once")
    stopped = play.stop.click(handlers.stop, [visitor, play.job], [play.problem], **QUIET)
    stopped.then(handlers.tick, tick_in, shown, **QUIET)
    resumed = play.resume.click(handlers.resume, [visitor, play.job], [play.problem, play.drawn], **QUIET)
    resumed.then(handlers.tick, tick_in, shown, **QUIET)
    for part in play.panel.look:
        part.change(handlers.tick, tick_in, shown, **QUIET)  # type: ignore[attr-defined]


@dataclass
class Handlers:
    """What the buttons and the clock do; the store decides, these only translate."""

    store: JobStore
    form: controls.Controls

    def start(self, visitor: str, sentence: str, request: gr.Request, *values: Any) -> tuple[Any, ...]:
        """Start a run of the form's settings, or say why not."""
        guest = Guest.of(self.store, visitor, request)
        try:
            config = controls.collect(self.form.named(values), self.store.limits)
            job = begin(self.store, guest, [config], sentence=" ".join((sentence or "").split())[:MOST_TEXT])
        except ValueError as error:
            return data_form.error(str(error)), gr.skip(), guest.secret, gr.skip()
        return "", job.id, guest.secret, Drawn()

    def stop(self, visitor: str, job: str) -> str:
        """Stop the run shown, after its step."""
        try:
            self.store.stop(job, visitor)
        except InputError as error:
            return data_form.error(str(error))
        return ""

    def resume(self, visitor: str, job: str, request: gr.Request) -> tuple[Any, Any]:
        """Let the run shown go on where it was cut off."""
        try:
            self.store.resume(job, visitor, Guest.of(self.store, visitor, request).address)
        except InputError as error:
            return data_form.error(str(error)), gr.skip()
        return "", Drawn()

    def tick(self, job_id: str, drawn: Drawn, axis: str, weight: float, log: bool) -> list[Any]:
        """Send what changed since the last tick; the clock runs only while there is something to wait for."""
        job = self.store.find(job_id)
        look = Look(axis, weight, log)
        position = self.store.position(job) if job else 0
        if job and job.version == drawn.version and look == drawn.look and job.phase != "queued":
            return NOTHING
        view = job.lane.view if job else recorded()
        wait = self.store.wait(job) if job else 0.0
        news, now = live.tick(job, view, position, drawn, look, wait)
        turned = drawn.phase != now.phase or drawn.version < 0
        return [*news.values(), now, *(_buttons(job) if turned else [gr.skip()] * 5)]


def _buttons(job: Job | None) -> list[Any]:
    """The clock and the three buttons, as they are in the job's phase."""
    live_ = job is not None and not job.over
    begun = job is not None and (bool(job.lane.view.steps) or job.phase == "paused")
    again = job is not None and begun and job.phase in ("interrupted", "stopped", "paused")
    shown = [gr.update(active=live_), gr.update(visible=not live_), gr.update(visible=live_), gr.update(visible=again)]
    steps = job.lane.view.steps if job else recorded().steps
    return [*shown, gr.update(maximum=max(steps, 1), value=steps) if not live_ else gr.skip()]


def _connect_choices(form: controls.Controls, store: JobStore) -> None:
    """A preset or a recipe fills the form; another model, method, subspace or objective brings its own rates."""

    def preset(name: str) -> list[Any]:
        changes = controls.filled(forms.PRESETS[name]) | {"recipe note": gr.update(visible=False)}
        return [recipes.NONE, *form.updates(changes)]

    def cooked(name: str) -> list[Any]:
        changes: dict[str, Any] = {"recipe note": gr.update(value=recipes.note(name, store), visible=bool(name))}
        if name:
            changes |= controls.filled(recipes.config(name)) | {"source": data_form.KNOWN}
        return [gr.update(value=None) if name else gr.skip(), *form.updates(changes)]

    def judged(objective: str, reward: Any) -> Any:
        return gr.update(visible=aims.shown(objective, reward)["word"])

    def rechosen(*values: Any) -> list[Any]:
        return form.updates(controls.rechosen(form.named(values)))

    form.preset.input(preset, form.preset, [form.recipe, *form.outputs], **QUIET)
    form.recipe.input(cooked, form.recipe, [form.preset, *form.outputs], **QUIET)
    form.parts["reward"].input(judged, [form.parts["objective"], form.parts["reward"]], form.parts["word"], **QUIET)  # type: ignore[attr-defined]
    form.data.task.input(recipes.task_note, form.data.task, form.notes["task note"], **QUIET)
    for name in ("model", "method", "subspace", "objective"):
        part = form.parts[name]
        assert isinstance(part, gr.Dropdown)
        part.input(rechosen, form.inputs, form.outputs, **QUIET)


TAB = Tab("play", "Play", lay_out, connect)
