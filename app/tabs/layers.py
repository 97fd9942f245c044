"""Beside the replay, for methods that push outputs: what the feedback had learned by then, and that step's layers."""

from collections.abc import Mapping
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
    "How much of the responses to its pushes the learned feedback J foresaw, 1 - |r|² / |dz|², in every recorded step "
    "that pushed: it rises while J learns, and falls where what J has learned fits the present model less. The mark "
    "is the step of the slider, or the last push before it."
)
ABOUT_LAYERS = (
    "Which outputs that step pushed, with what noise, and what became of the answers. All of it is done again from "
    "the recording."
)
HINT = "Move the slider and let go: the step is opened here."


def build_share() -> gr.HTML:
    """Lay out the share foreseen, of the recorded run with its last step marked."""
    view = recorded()
    with gr.Column(elem_classes="zo-panel", min_width=280):
        gr.HTML(f"<h2>The feedback at that step</h2><p class='zo-quiet'>{ABOUT_SHARE}</p>")
        figure = plots.foreseen_at(view, view.steps)
        return chart("replayed", "Share foreseen, with the replayed step", 220, figure)


def build_layers() -> gr.HTML:
    """Lay out the panel of the layers, which is seen when there is something in it."""
    with gr.Column(elem_classes="zo-panel zo-if-filled", min_width=280):
        return gr.HTML(hint(), elem_id="zo-layers")


def marked(view: View, step: int) -> Any:
    """Return the chart's message with a step marked."""
    return whole(plots.foreseen_at(view, step))


def hint() -> str:
    """Return the panel before a step was opened."""
    return f"{_head('That step, layer by layer')}<p>{HINT}</p>"


def opened(answer: Mapping[str, Any]) -> str:
    """Return what the question "pushes" found as HTML."""
    step = PushedStep(**{**answer, "layers": [PushedLayer(**layer) for layer in answer["layers"]]})
    total = sum(layer.rows * layer.width for layer in step.layers)
    sentence = (
        f"{len(step.layers)} layers pushed by eps xi, xi random signs and eps {step.eps:.2g}: {total:,} outputs for "
        f"{step.examples} examples."
        if total
        else "This step pushed nothing: what earlier pushes have taught carried the errors back as it stood."
    )
    if step.foreseen is not None:
        sentence += f" Before the step, J foresaw {step.foreseen:.0%} of the responses."
    rows = "".join(_layer(layer, number == 0) for number, layer in enumerate(step.layers))
    return f"{_head(f'Step {step.step}, layer by layer')}<p>{escape(sentence)}</p><div class='zo-layers'>{rows}</div>"


def _head(title: str) -> str:
    return f"<h2>{title}</h2><p class='zo-quiet'>{ABOUT_LAYERS}</p>"


def _layer(layer: PushedLayer, first: bool) -> str:
    facts = [f"{layer.rows} × {layer.width} outputs pushed"] if layer.rows else []
    facts.append(f"|g| {layer.length:.3g}")
    if layer.feedback is not None and layer.learned is not None:
        facts.append(f"|J| {layer.feedback:.4g}" + (f" → {layer.learned:.4g}" if layer.rows else ""))
    if layer.foreseen is not None:
        facts.append(f"J alone foresaw {layer.foreseen:.0%}")
    noise = cells(layer.noise, "Noise xi: the first rows that were pushed, by the first outputs")
    made = "J carried the errors back to g" if layer.feedback is not None else "each answer times its own noise, g"
    projected = cells(layer.projected, f"{made}: the same rows and outputs")
    state = " open" if first else ""
    summary = f"<b>{escape(layer.name)}</b><span>{escape(' · '.join(facts))}</span>"
    return f"<details{state}><summary>{summary}</summary><div>{noise}{projected}</div></details>"
