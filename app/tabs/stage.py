"""The right-hand side of the Play tab as it is laid out: the charts and sentences that a run fills."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import gradio as gr

from app import words
from app.charts import plots
from app.charts.chart import chart, when_ready
from app.jobs.view import View
from app.tabs import live
from app.tabs.live import Drawn, Look
from zocore.runs.recording import read_recording

RECORDED = Path(__file__).parents[1] / "recorded" / "toy"


@lru_cache(maxsize=1)
def recorded() -> View:
    """Return the run that the page opens with."""
    return View.of(read_recording(RECORDED).events)


@dataclass
class Panel:
    """The components on the right."""

    axis: gr.Radio
    weight: gr.Slider
    log: gr.Checkbox
    status: gr.HTML
    spoken: gr.HTML  # the changes of the status, for screen readers
    charts: list[gr.HTML]  # loss, gradient, foreseen, moved, accuracy, estimator, memory
    sentence: gr.Textbox  # of the visitor's own, for the next run
    probes: gr.HTML
    answers: gr.HTML
    warnings: gr.HTML

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What a tick fills, in the order of `live.Tick`."""
        return [self.status, self.spoken, *self.charts, self.probes, self.answers, self.warnings]

    @property
    def look(self) -> list[gr.components.Component]:
        """How the charts are to be drawn."""
        return [self.axis, self.weight, self.log]


def build() -> Panel:
    """Lay the panel out, filled with the recorded run."""
    view = recorded()
    first, _ = live.tick(None, view, 0, Drawn(), Look())
    status = gr.HTML(first.status, elem_id="zo-status", elem_classes="zo-status")
    spoken = gr.HTML("", elem_id="zo-spoken", elem_classes="zo-unseen")
    warnings = gr.HTML("", elem_id="zo-warnings")
    with gr.Row(equal_height=True):
        with gr.Column(elem_classes="zo-panel", min_width=280, scale=5):
            gr.HTML(_title("Loss", words.ABOUT_LOSS))
            with gr.Row(elem_classes="zo-bar-row"):
                axis = gr.Radio(words.AXES, value="forwards", label="Over", elem_id="zo-axis", min_width=220)
                weight = gr.Slider(
                    0, 0.99, value=0.9, step=0.01, label="Smoothing", elem_id="zo-smooth", min_width=150, buttons=[]
                )
                log = gr.Checkbox(False, label="log scale", elem_id="zo-log", min_width=90)
            loss = chart("loss", "Training loss", 300, plots.loss([view]))
        with gr.Column(elem_classes="zo-panel zo-says", min_width=280, scale=4):
            gr.HTML(_title("What the model says", words.ABOUT_PROBES))
            probes = gr.HTML(first.probes, elem_id="zo-probes")
            sentence = gr.Textbox(
                label="Your own sentence",
                placeholder="Asked first in the next run that you start",
                max_lines=2,
                elem_id="zo-say",
            )
            answers = gr.HTML(None, html_template="", js_on_load=when_ready("zoAnswers", "props, watch"))
    with gr.Column(elem_classes="zo-panel", min_width=280):
        gr.HTML(_title("What the feedback foresees", words.ABOUT_FORESEEN))
        foreseen = chart("foreseen", "Share of the responses foreseen", 200, plots.foreseen(view))
    with gr.Column(elem_classes="zo-panel", min_width=280):
        gr.HTML(_title("What the probes move", words.ABOUT_MOVED))
        moved = chart("moved", "Share of examples whose score a probe changed", 200, plots.moved(view))
    with gr.Row(equal_height=True):
        with gr.Column(elem_classes="zo-panel", min_width=280):
            gr.HTML(_title("Held-out examples", words.ABOUT_ACCURACY))
            accuracy = chart("accuracy", "Score on held-out examples", 220, plots.held_out([view]))
        with gr.Column(elem_classes="zo-panel", min_width=280):
            gr.HTML(_title("Projected gradient", words.ABOUT_GRADIENT))
            gradient = chart("gradient", "Projected gradient", 220, plots.gradient(view))
    with gr.Row(equal_height=True):
        with gr.Column(elem_classes="zo-panel", min_width=280):
            gr.HTML(_title("Estimate: variance and cosine", words.ABOUT_ESTIMATOR))
            estimator = chart("estimator", "Variance and cosine of the estimate", 250, plots.estimator(view))
        with gr.Column(elem_classes="zo-panel", min_width=280):
            gr.HTML(_title("Memory", words.ABOUT_MEMORY))
            memory = chart("memory", "Memory of a training step", 250, first.memory["figure"])
    return Panel(
        axis,
        weight,
        log,
        status,
        spoken,
        [loss, gradient, foreseen, moved, accuracy, estimator, memory],
        sentence,
        probes,
        answers,
        warnings,
    )


def _title(text: str, about: str) -> str:
    return f"<h2>{text}</h2><p class='zo-quiet'>{about}</p>"
