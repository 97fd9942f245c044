"""Below the run: a slider over its recording, one's own sentence, and one step opened part by part."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.charts.cells import cells
from app.form import controls, data_form
from app.form.starting import Guest, taken
from app.jobs.job import hashed
from app.jobs.store import JobStore
from app.jobs.view import View
from app.quiet import QUIET
from app.tabs import completions, layers, live
from app.tabs.stage import RECORDED, recorded
from app.tabs.tab import Site
from zocore.diagnostics.phase import Phase
from zocore.errors import InputError
from zocore.runs.events import CompletionsShown, SampleShown

if TYPE_CHECKING:
    from app.tabs.play import Play

ABOUT_REPLAY = (
    "A run is a list of seeds and scalars, so the weights of any step can be rebuilt: without a forward pass where "
    "weights are probed, and with those of the step where outputs of layers are pushed, as learned feedback does. "
    "Drag and let go: the sentences are asked again at that step, your own first."
)
ABOUT_STEP = "Press Next and the engine does the next part of a real step of the settings on the left, then waits."
MOST_TEXT = 2000  # characters of one's own sentence


def build(play: "Play", site: Site) -> gr.Slider:
    """Lay out and connect the two panels; return the slider, whose length follows the run."""
    store, visitor = site.store, site.visitor
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            with gr.Column(elem_classes="zo-panel", min_width=280):
                gr.HTML(f"<h2>Replay</h2><p class='zo-quiet'>{ABOUT_REPLAY}</p>")
                steps = recorded().steps
                slider = gr.Slider(
                    0, steps, value=steps, step=1, label="Weights after step", elem_id="zo-replay", buttons=[]
                )
                sentence = gr.Textbox(
                    label="Your own sentence",
                    placeholder="Write one and press Enter",
                    max_length=MOST_TEXT,
                    elem_id="zo-own-text",
                )
                ask = gr.Button("Ask at this step", elem_id="zo-ask", size="sm")
                answers = gr.HTML("", elem_id="zo-answers", min_height=20)
            share = layers.build_share()
        with gr.Column(elem_classes="zo-panel", min_width=280):
            gr.HTML(f"<h2>One step, opened</h2><p class='zo-quiet'>{ABOUT_STEP}</p>")
            with gr.Row():
                forward = gr.Button("Next part", elem_id="zo-next", size="sm")
                again = gr.Button("Start over", elem_id="zo-again", size="sm")
            opened = gr.HTML("", elem_id="zo-opened", min_height=20)
    layered = layers.build_layers()
    quiet: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "lab", "concurrency_limit": 1}

    def asked(secret: str, job: str, step: float, text: str, request: gr.Request) -> str:
        guest = Guest.of(store, secret, request)
        return _or_problem(lambda: replayed(store, guest, job, int(step or 0), text))

    def looked_into(secret: str, job: str, step: float, request: gr.Request) -> str:
        guest = Guest.of(store, secret, request)
        return _or_problem(lambda: pushed(store, guest, job, int(step or 0)))

    def marked(job: str, step: float | None = None) -> Any:
        if job and not store.find(job):
            return gr.skip()
        view = _run(store, job)[1]
        return layers.marked(view, view.steps if step is None else int(step))

    for event in (slider.release, ask.click, sentence.submit):
        done = event(asked, [visitor, play.job, slider, sentence], answers, **quiet, show_progress_on=answers)
        done.then(looked_into, [visitor, play.job, slider], layered, **quiet, show_progress_on=layered)
    slider.change(marked, [play.job, slider], share, **QUIET, trigger_mode="always_last")
    # without the slider: as a run ends, it may still stand beyond the end of its new length, which is an error
    play.panel.spoken.change(marked, play.job, share, **QUIET, trigger_mode="always_last")

    def moved(secret: str, request: gr.Request, *values: Any) -> str:
        guest = Guest.of(store, secret, request)
        return _or_problem(lambda: next_part(store, guest, play.form.named(values)))

    def over(secret: str, request: gr.Request) -> str:
        guest = Guest.of(store, secret, request)
        return _or_problem(lambda: str(_ask(store, guest, "step", visitor=hashed(guest.secret), fresh=True) and ""))

    forward.click(moved, [visitor, *play.form.inputs], opened, **quiet, show_progress_on=opened)
    again.click(over, visitor, opened, **quiet)
    return slider


def replayed(store: JobStore, guest: Guest, job_id: str, step: int, text: str) -> str:
    """Return the visitor's own sentence and the probe sentences, at step 0 and at the step, as HTML."""
    folder, view = _run(store, job_id)
    if view.header is None or not (view.samples or view.completions):
        raise InputError("the run has not been evaluated yet: wait for its first step")
    if view.completions:
        return rewritten(store, guest, folder, view, step, text.strip()[:MOST_TEXT])
    sample, own = view.samples[0], text.strip()[:MOST_TEXT]
    facts = {"folder": str(folder.resolve()), "steps": view.steps, "step": step, "text": own}
    answers = _ask(store, guest, "answers", **facts, count=len(sample.texts))
    texts = [*([own] if own else []), *sample.texts]
    truths = [*([""] if own else []), *sample.labels]
    before = SampleShown(0, texts, truths, answers["before"])
    table = live.probe_table(before, SampleShown(answers["step"], texts, truths, answers["now"]), view.header.labels)
    return foresaw(view, answers["step"]) + table


def rewritten(store: JobStore, guest: Guest, folder: Path, view: View, step: int, own: str) -> str:
    """Return the visitor's own prompt and the run's, continued at step 0 and at the step, as HTML."""
    first = view.completions[0]
    facts = {"folder": str(folder.resolve()), "steps": view.steps, "step": step, "text": own, "prompts": first.prompts}
    written = _ask(store, guest, "completions", **facts)
    prompts = [*([own] if own else []), *first.prompts]
    wanted = [*([""] if own else []), *first.wanted] if first.wanted else []
    before = CompletionsShown(0, prompts, written["before"], wanted, [])
    return completions.listed(before, CompletionsShown(written["step"], prompts, written["now"], wanted, []))


def pushed(store: JobStore, guest: Guest, job_id: str, step: int) -> str:
    """Return a recorded step layer by layer as HTML; empty for a run that pushes no outputs."""
    folder, view = _run(store, job_id)
    if view.header is None or not view.header.replay_passes:
        return ""
    if not step:
        return layers.hint()
    facts = {"folder": str(folder.resolve()), "steps": view.steps, "step": step}
    return layers.opened(_ask(store, guest, "pushes", **facts))


def _run(store: JobStore, job_id: str) -> tuple[Path, View]:
    """The folder and the view of the run that is shown: the recorded one where there is none yet."""
    lane = store.get(job_id).lane if job_id else None
    return (lane.folder, lane.view) if lane else (RECORDED, recorded())


def foresaw(view: View, step: int) -> str:
    """How much learned feedback foresaw in a step, in words; empty for other methods."""
    left = view.points[step - 1].unexplained if 0 < step <= len(view.points) else None
    if left is None:
        return ""
    return f"<p>In step {step} the feedback foresaw {max(0.0, 1 - left):.0%} of the responses to its pushes.</p>"


def next_part(store: JobStore, guest: Guest, values: Mapping[str, Any]) -> str:
    """Do the next part of a step of the form's settings and return the step so far."""
    config = taken(store, controls.collect(values, store.limits))
    step = _ask(store, guest, "step", visitor=hashed(guest.secret), config=config.to_json())
    return phases(step["number"], [Phase(**part) for part in step["parts"]])


def _ask(store: JobStore, guest: Guest, question: str, **facts: Any) -> Any:
    store.may_ask(guest.secret, guest.address)
    return store.models.ask(question, **facts)


def phases(number: int, parts: Sequence[Phase]) -> str:
    """Return the parts of a step as an ordered list."""
    rows = "".join(_phase(part, part is parts[-1]) for part in parts)
    return f'<h3>Step {number}</h3><ol class="zo-parts">{rows}</ol>'


def _phase(part: Phase, newest: bool) -> str:
    loss = f'<b class="zo-figure">loss {part.loss:.5f}</b>' if part.loss is not None else ""
    state = " open" if newest else ""
    code = f"<details{state}><summary>The lines that ran</summary><pre>{escape(part.code)}</pre></details>"
    return (
        f"<li><h3>{escape(part.title)}{loss}</h3><p>{escape(part.text)}</p>{cells(part.picture, part.rows)}{code}</li>"
    )


def _or_problem(find: Callable[[], str]) -> str:
    try:
        return find()
    except ValueError as error:
        return data_form.error(str(error))
