"""Beside the replay, for methods that push outputs: what the feedback had learned by then, and that step's layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from app.charts import plots
from app.charts.cells import cells
from app.charts.chart import chart, whole
from app.jobs.view import View
from app.tabs.stage import recorded
from zocore.diagnostics.recorded_pushes import PushedLayer, PushedStep

ABOUT_SHARE = (
    "How much of the responses to its pushes the learned feedback J foresaw, 1 - |r|² / |dz|², in every recorded step. "
    "It grows as J learns; the mark is the step of the slider."
)
ABOUT_LAYERS = (
    "Which outputs that step pushed, with what noise, and what became of the answers. All of it is done again from "
    "the recording."
)
HINT = "Move the slider and let go: the step is opened here."


@dataclass
class Beside:
    """The components that follow the slider."""

    share: gr.HTML
    layers: gr.HTML


def build() -> Beside:
    """Lay out the two panels, the chart of the recorded run marked at its last step."""
    view = recorded()
    with gr.Row(equal_height=False):
        with gr.Column(elem_classes="zo-panel", min_width=280):
            gr.HTML(f"<h2>The feedback at that step</h2><p class='zo-quiet'>{ABOUT_SHARE}</p>")
            figure = plots.foreseen_at(view, view.steps)
            share = chart("replayed", "Share foreseen, with the replayed step", 240, figure)
        with gr.Column(elem_classes="zo-panel zo-if-filled", min_width=280):
            layers = gr.HTML(hint(), elem_id="zo-layers")
    return Beside(share, layers)


def marked(view: View, step: int) -> Any:
    """Return the chart's message with a step marked."""
    return whole(plots.foreseen_at(view, step))


def hint() -> str:
    """Return the panel before a step was opened."""
    return f"{_head('That step, layer by layer')}<p>{HINT}</p>"


def opened(found: Mapping[str, Any]) -> str:
    """Return what the question "pushes" found as HTML."""
    step = PushedStep(**{**found, "layers": [PushedLayer(**layer) for layer in found["layers"]]})
    total = sum(layer.rows * layer.width for layer in step.layers)
    said = (
        f"{len(step.layers)} layers pushed by eps xi, xi random signs and eps {step.eps:.2g}: {total:,} outputs for "
        f"{step.examples} examples."
    )
    if step.foreseen is not None:
        said += f" Before the step, J foresaw {step.foreseen:.0%} of the responses."
    rows = "".join(_layer(layer, number == 0) for number, layer in enumerate(step.layers))
    return f"{_head(f'Step {step.step}, layer by layer')}<p>{escape(said)}</p><div class='zo-layers'>{rows}</div>"


def _head(title: str) -> str:
    return f"<h2>{title}</h2><p class='zo-quiet'>{ABOUT_LAYERS}</p>"


def _layer(layer: PushedLayer, first: bool) -> str:
    facts = [f"{layer.rows} × {layer.width} outputs pushed", f"|g| {layer.length:.3g}"]
    if layer.feedback is not None and layer.learned is not None and layer.foreseen is not None:
        facts += [f"|J| {layer.feedback:.3g} → {layer.learned:.3g}", f"J alone foresaw {layer.foreseen:.0%}"]
    noise = cells(layer.noise, "Noise xi: the first rows that were pushed, by the first outputs")
    made = "J carried the errors back to g" if layer.feedback is not None else "each answer times its own noise, g"
    projected = cells(layer.projected, f"{made}: the same rows and outputs")
    state = " open" if first else ""
    summary = f"<b>{escape(layer.name)}</b><span>{escape(' · '.join(facts))}</span>"
    return f"<details{state}><summary>{summary}</summary>{noise}{projected}</details>"
