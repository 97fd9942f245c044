"""The Microscope tab: the loss along one direction at fixed weights, and estimates against the true gradient."""

import json
import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from app.charts import chart
from app.charts.close_up import Look, alignment_figure, bias_figure, law_figure, look_along, slice_figure
from app.form import controls, data_form
from app.jobs.lab import Lab
from app.jobs.store import JobStore
from app.tabs.live import status
from app.tabs.play import Play
from zocore.config import RunConfig
from zocore.diagnostics import alignment, loss_slices
from zocore.errors import InputError
from zocore.runs.session import Session, open_session

RECORDED = Path(__file__).parents[1] / "recorded" / "microscope.json"
COUNTS = [1, 2, 4, 8, 16, 32]  # directions
SIZES = [2, 4, 8, 16]  # examples of a batch
LARGEST = 60_000_000  # values that may move: the true gradient is taken too
ABOUT = (
    "Fixed weights: those the settings of the Play tab start from. One direction z, one batch. The probes stand at "
    "plus and minus eps; the line through them is what a zeroth-order step believes."
)
ABOUT_RECORDED = "recorded · the bundled model on its first batch. Look and measure for the settings of the Play tab."
ABOUT_SLICE = "Dots: the two probes. Dashed: the line a step believes. Dotted: the tangent."
ABOUT_EPS = "Left: rounding noise drowns the difference. Right: curvature bends it. Between them is a wide flat valley."
ABOUT_COUNT = (
    "Cosine of the mean of n estimates to the true gradient, and their variance. Lines: sqrt(n / (n + d + 1)) and 1/n. "
    "A single direction in d dimensions is almost at a right angle to the gradient, and still enough."
)
ABOUT_BATCH = (
    "GRZO gives each example its own direction, so a larger batch is more directions at no more forwards: "
    "sqrt((B_eff + 1 - B_eff / B) / d), B_eff = c B + 1 - c, with c the mean cosine between the examples' gradients."
)


@lru_cache(maxsize=1)
def recorded() -> tuple[Look, alignment.Alignment, alignment.BatchLaw]:
    """Return the readings that the tab opens with."""
    found = json.loads(RECORDED.read_text())
    asked = tuple(loss_slices.Secant(**one) for one in found["look"].pop("found"))
    return (
        Look(**found["look"], found=asked),
        alignment.Alignment(**found["alignment"]),
        alignment.BatchLaw(**found["law"]),
    )


def layout(play: Play, store: JobStore, lab: Lab, visitor: gr.BrowserState) -> None:
    """Lay the tab out and connect it."""
    first, aligned, law_found = recorded()
    with gr.Row(elem_classes="zo-main", equal_height=False):
        with gr.Column(scale=4, min_width=300, elem_classes="zo-side"):
            gr.HTML(f"<p class='zo-quiet'>{ABOUT}</p>")
            number = gr.Number(0, label="Direction number", precision=0, minimum=0, elem_id="zo-direction")
            dtype = gr.Radio(["fp32", "bf16"], value="fp32", label="Precision of the weights", elem_id="zo-look-dtype")
            look = gr.Button("Look along it", variant="primary", elem_id="zo-look")
            eps = gr.Slider(-6, 0, value=-3, step=1 / 6, label="log10 of eps", elem_id="zo-eps-slider", buttons=[])
            gr.HTML("<hr>")
            gr.HTML(
                "<p class='zo-quiet'>64 directions and the true gradient: some ten seconds on the bundled model.</p>"
            )
            count = gr.Button("Measure against the gradient", elem_id="zo-count")
            batch = gr.Button("Measure GRZO's batch law", elem_id="zo-batch-law")
            problem = gr.HTML("", elem_id="zo-look-problem")
        with gr.Column(scale=9, min_width=320, elem_classes="zo-stage"):
            said = gr.HTML(status("recorded", ABOUT_RECORDED), elem_id="zo-look-status", elem_classes="zo-status")
            start = figures(first, -3)
            with gr.Row(equal_height=True):
                along = _panel("slice", "The loss along z", ABOUT_SLICE, 300, start[0])
                bias = _panel("bias", "The slope each eps finds", ABOUT_EPS, 300, start[1])
            with gr.Row(equal_height=True):
                cosine = _panel(
                    "cosine",
                    "Cosine against number of directions",
                    ABOUT_COUNT,
                    260,
                    chart.whole(alignment_figure(aligned)),
                )
                law = _panel(
                    "law", "GRZO: cosine against batch size", ABOUT_BATCH, 260, chart.whole(law_figure(law_found))
                )
    seen = gr.State(first)
    quiet: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "lab", "show_progress": "minimal"}

    def session(visitor_: str, dtype_: str, values: tuple[Any, ...], method: str = "") -> tuple[str, RunConfig]:
        config = config_of(controls.collect(values, store.limits), dtype_, method)
        return f"look {visitor_} {config}", config

    def looked(visitor_: str, number_: float, dtype_: str, *values: Any) -> tuple[Any, ...]:
        try:
            key, config = session(visitor_, dtype_, values)
            found = lab.use(key, lambda: opened(config), lambda s: look_along(s, int(number_ or 0)))
        except (ValueError, OverflowError) as error:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), data_form.error(str(error)), gr.skip()
        start = math.log10(config.eps or 1e-3)
        return found, start, *figures(found, start), "", measured(config)

    def moved(found: Look | None, at: float) -> tuple[Any, Any]:
        return figures(found, at) if found else (gr.skip(), gr.skip())

    def counted(visitor_: str, dtype_: str, *values: Any) -> tuple[Any, str, Any]:
        try:
            key, config = session(visitor_, dtype_, values)
            return (
                chart.whole(
                    alignment_figure(lab.use(key, lambda: opened(config), lambda s: alignment.alignment(s, COUNTS)))
                ),
                "",
                measured(config),
            )
        except ValueError as error:
            return gr.skip(), data_form.error(str(error)), gr.skip()

    def batched(visitor_: str, dtype_: str, *values: Any) -> tuple[Any, str, Any]:
        try:
            key, config = session(visitor_, dtype_, values, "grzo")
            return (
                chart.whole(
                    law_figure(lab.use(key, lambda: opened(config), lambda s: alignment.batch_law(s, SIZES, 12)))
                ),
                "",
                measured(config),
            )
        except ValueError as error:
            return gr.skip(), data_form.error(str(error)), gr.skip()

    look.click(
        looked,
        [visitor, number, dtype, *play.form.inputs],
        [seen, eps, along, bias, problem, said],
        **quiet,
        show_progress_on=problem,
    )
    eps.input(
        moved,
        [seen, eps],
        [along, bias],
        api_visibility="private",
        queue=False,
        show_progress="hidden",
        trigger_mode="always_last",
    )
    count.click(
        counted, [visitor, dtype, *play.form.inputs], [cosine, problem, said], **quiet, show_progress_on=problem
    )
    batch.click(batched, [visitor, dtype, *play.form.inputs], [law, problem, said], **quiet, show_progress_on=problem)


def _panel(name: str, title: str, about: str, height: int, first: chart.Message) -> gr.HTML:
    with gr.Column(elem_classes="zo-panel", min_width=280):
        gr.HTML(f"<h2>{title}</h2><p class='zo-quiet'>{about}</p>")
        return chart.chart(name, title, height, first["figure"])


def measured(config: RunConfig) -> str:
    """Say what was looked at."""
    what = Path(config.data).name if config.data else config.task
    return status("finished", f"measured · {config.method} on {config.model}, {what}, {config.dtype}")


def config_of(config: RunConfig, dtype: str, method: str = "") -> RunConfig:
    """Return the settings the microscope looks with: those of the form, in a dtype, and batches of 16."""
    if config.method in ("sgd", "adamw") and not method:
        raise InputError("backprop has no probes to look at: choose a zeroth-order method on the Play tab")
    chosen = replace(config, dtype=dtype, batch_size=16, micro_batch=None, measure_every=0)
    if method and config.method != method:
        chosen = replace(
            chosen,
            method=method,
            subspace="auto",
            rank=0,
            keep=1.0,
            lr=None,
            pool=None,
            share=None,
            clip=None,
            directions=None,
        )
    return chosen


def opened(config: RunConfig) -> Session:
    """Return a session small enough to look at. Raises InputError for a larger one."""
    session = open_session(config)
    if session.trainable > LARGEST:
        raise InputError(
            f"{session.trainable:,} values move: the microscope takes at most {LARGEST:,}; "
            "choose a smaller model or LoRA"
        )
    return session


def figures(look: Look, at: float) -> tuple[Any, Any]:
    """Return the two charts at log10 of eps."""
    chosen = min(look.found, key=lambda one: abs(math.log10(one.eps) - at))
    return chart.whole(slice_figure(look, chosen)), chart.whole(bias_figure(look, chosen))
