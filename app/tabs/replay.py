"""Below the run: a slider over its recording, one's own sentence, and one step opened part by part."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.form import controls, data_form
from app.jobs.lab import Lab
from app.jobs.store import JobStore
from app.tabs import live
from app.tabs.stage import RECORDED, recorded
from zocore.diagnostics.phase import Phase
from zocore.diagnostics.step_trace import trace
from zocore.errors import InputError
from zocore.runs.events import SampleShown
from zocore.runs.session import Session, open_session
from zocore.runs.timeline import Timeline, open_timeline

if TYPE_CHECKING:
    from app.tabs.play import Play

ABOUT_REPLAY = (
    "A run is a list of seeds and scalars, so the weights of any step can be rebuilt without a forward pass. "
    "Drag, and the five sentences are asked again at that step."
)
ABOUT_STEP = "Press Next and the engine does the next part of a real step of the settings on the left, then waits."
MOST_TEXT = 2000  # characters of one's own sentence


@dataclass
class Opened:
    """A session whose steps are done part by part."""

    session: Session
    number: int = 0
    parts: Iterator[Phase] | None = None
    shown: list[Phase] = field(default_factory=list)

    def forward(self) -> str:
        """Do the next part and return all parts of the step so far, as HTML."""
        phase = next(self.parts, None) if self.parts else None
        if phase is None:
            self.number, self.shown = self.number + 1, []
            self.parts = trace(self.session, self.number)
            phase = next(self.parts)
        self.shown.append(phase)
        return phases(self.number, self.shown)


def build(play: "Play", store: JobStore, lab: Lab, visitor: gr.BrowserState) -> gr.Slider:
    """Lay out and connect the two panels; return the slider, whose length follows the run."""
    with gr.Row(equal_height=False):
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
        with gr.Column(elem_classes="zo-panel", min_width=280):
            gr.HTML(f"<h2>One step, opened</h2><p class='zo-quiet'>{ABOUT_STEP}</p>")
            with gr.Row():
                forward = gr.Button("Next part", elem_id="zo-next", size="sm")
                again = gr.Button("Start over", elem_id="zo-again", size="sm")
            opened = gr.HTML("", elem_id="zo-opened", min_height=20)
    quiet: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "lab", "concurrency_limit": 1}

    def asked(job: str, step: float, text: str) -> str:
        return _or_problem(lambda: replayed(store, lab, job, int(step or 0), text))

    for event in (slider.release, ask.click, sentence.submit):
        event(asked, [play.job, slider, sentence], answers, **quiet, show_progress_on=answers)

    def moved(visitor_: str, *values: Any) -> str:
        return _or_problem(lambda: next_part(store, lab, visitor_, play.form.named(values)))

    def over(visitor_: str) -> str:
        lab.drop(f"step {visitor_}")
        return ""

    forward.click(moved, [visitor, *play.form.inputs], opened, **quiet, show_progress_on=opened)
    again.click(over, visitor, opened, **quiet)
    return slider


def replayed(store: JobStore, lab: Lab, job_id: str, step: int, text: str) -> str:
    """Return the probe sentences, and the visitor's own, at step 0 and at the step, as HTML."""
    folder = store.get(job_id).lane.folder if job_id else RECORDED
    view = store.get(job_id).lane.view if job_id else recorded()
    if view.header is None or not view.samples:
        raise InputError("the run has not been evaluated yet: wait for its first step")
    asked_in_run, own = view.samples[0], text.strip()[:MOST_TEXT]

    def both(timeline: Timeline) -> tuple[list[list[float]], list[list[float]]]:
        examples = [example.fields for example in timeline.session.task.test[: len(asked_in_run.texts)]]
        asked: list[str | Mapping[str, str]] = [*examples, *([own] if own else [])]
        timeline.go(0)
        before = timeline.answers(asked)
        timeline.go(min(step, timeline.last))
        return before, timeline.answers(asked)

    # a run that goes on has more steps than its timeline knows, so the key holds how many it was made with
    key = f"replay {folder} {view.steps if step > 0 else 0}"
    before, now = lab.use(key, lambda: open_timeline(folder), both)
    names = [*asked_in_run.texts, *([own] if own else [])]
    truths = [*asked_in_run.labels, *([""] if own else [])]
    shown = [SampleShown(at, names, truths, found) for at, found in ((0, before), (step, now))]
    return live.probe_table(shown[0], shown[1], view.header.labels)


def next_part(store: JobStore, lab: Lab, visitor: str, values: Mapping[str, Any]) -> str:
    """Do the next part of a step of the form's settings and return the step so far."""
    config = controls.collect(values, store.limits)
    key = f"step {visitor} {config}"  # other settings are another walk
    return lab.use(key, lambda: Opened(open_session(config)), Opened.forward)


def phases(number: int, parts: Sequence[Phase]) -> str:
    """Return the parts of a step as an ordered list."""
    rows = "".join(_phase(part, part is parts[-1]) for part in parts)
    return f'<h3>Step {number}</h3><ol class="zo-parts">{rows}</ol>'


def _phase(part: Phase, newest: bool) -> str:
    loss = f'<b class="zo-figure">loss {part.loss:.5f}</b>' if part.loss is not None else ""
    state = " open" if newest else ""
    code = f"<details{state}><summary>The lines that ran</summary><pre>{escape(part.code)}</pre></details>"
    return f"<li><h3>{escape(part.title)}{loss}</h3><p>{escape(part.text)}</p>{code}</li>"


def _or_problem(find: Callable[[], str]) -> str:
    try:
        return find()
    except ValueError as error:
        return data_form.error(str(error))
