"""The Microscope tab: the loss along one direction at fixed weights, and estimates compared with the true gradient."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from app.charts import chart
from app.charts.close_up import EPS, Look, alignment_figure, bias_figure, law_figure, slice_figure
from app.form import controls, data_form
from app.form.starting import Guest, taken
from app.quiet import QUIET
from app.tabs.live import status
from app.tabs.tab import Site, Tab
from zocore.config import RunConfig
from zocore.diagnostics import alignment
from zocore.errors import InputError
from zocore.methods import build

RECORDED = Path(__file__).parents[1] / "recorded" / "microscope.json"
COUNTS = [1, 2, 4, 8, 16, 32]  # directions
SIZES = [2, 4, 8, 16]  # examples of a batch
LARGEST = 60_000_000  # values that may move: the true gradient is taken too
ABOUT = (
    "Fixed weights: those the settings of the Play tab start from. One direction z, one batch. The probes stand at "
    "plus and minus eps; the line through them is what a zeroth-order step believes."
)
ABOUT_RECORDED = "recorded · the bundled model on its first batch. Look and measure for the settings of the Play tab."
PUSHES = (
    ". Its probes push outputs of layers, and so does this look; the cosines below are those of directions in the "
    "weights. A recorded step is opened layer by layer on the Play tab, beside the replay."
)
ABOUT_SLICE = "Dots: the two probes. Dashed: the line a step believes. Dotted: the tangent."
ABOUT_EPS = (
    "Left: rounding noise drowns the difference. Right: the third derivative tilts the secant, by an amount that grows "
    "with eps squared. Between them is a wide flat valley."
)
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
    readings = json.loads(RECORDED.read_text())
    return (
        Look.from_json(readings["look"]),
        alignment.Alignment(**readings["alignment"]),
        alignment.BatchLaw(**readings["law"]),
    )


@dataclass
class Bench:
    """The tab's components."""

    number: gr.Number
    dtype: gr.Radio
    look: gr.Button
    eps: gr.Slider
    count: gr.Button
    batch: gr.Button
    problem: gr.HTML
    line: gr.HTML  # what is shown
    along: gr.HTML
    bias: gr.HTML
    cosine: gr.HTML
    law: gr.HTML
    seen: gr.State  # the last look, so that the slider asks nobody


def lay_out(site: Site) -> None:
    """Lay the tab out and connect it."""
    first = recorded()
    with gr.Row(elem_classes="zo-main", equal_height=False):
        with gr.Column(scale=4, min_width=300, elem_classes="zo-side"):
            side = _side()
        with gr.Column(scale=9, min_width=320, elem_classes="zo-stage"):
            charts = _charts(*first)
    _connect(Bench(*[*side, *charts, gr.State(first[0])]), site)


def _side() -> tuple[Any, ...]:
    gr.HTML(f"<p class='zo-quiet'>{ABOUT}</p>")
    number = gr.Number(0, label="Direction number", precision=0, elem_id="zo-direction")
    dtype = gr.Radio(["fp32", "bf16"], value="fp32", label="Precision of the weights", elem_id="zo-look-dtype")
    look = gr.Button("Look along it", variant="primary", elem_id="zo-look")
    eps = gr.Slider(-6, 0, value=-3, step=1 / 6, label="log10 of eps", elem_id="zo-eps-slider", buttons=[])
    gr.HTML("<hr>")
    gr.HTML("<p class='zo-quiet'>64 directions and the true gradient: about ten seconds on the bundled model.</p>")
    count = gr.Button("Measure against the gradient", elem_id="zo-count")
    batch = gr.Button("Measure GRZO's batch law", elem_id="zo-batch-law")
    return number, dtype, look, eps, count, batch, gr.HTML("", elem_id="zo-look-problem")


def _charts(look: Look, aligned: alignment.Alignment, law: alignment.BatchLaw) -> tuple[Any, ...]:
    line = gr.HTML(status("recorded", ABOUT_RECORDED), elem_id="zo-look-status", elem_classes="zo-status")
    start = figures(look, -3)
    with gr.Row(equal_height=True):
        along = _panel("slice", "The loss along z", ABOUT_SLICE, 300, start[0])
        bias = _panel("bias", "The slope each eps finds", ABOUT_EPS, 300, start[1])
    with gr.Row(equal_height=True):
        counts = chart.whole(alignment_figure(aligned))
        cosine = _panel("cosine", "Cosine against number of directions", ABOUT_COUNT, 260, counts)
        sizes = chart.whole(law_figure(law))
        return line, along, bias, cosine, _panel("law", "GRZO: cosine against batch size", ABOUT_BATCH, 260, sizes)


def _connect(bench: Bench, site: Site) -> None:
    form = site.play.form

    def looked(guest: Guest, dtype: str, number: float, *values: Any) -> tuple[Any, ...]:
        config = _settings(site, values, dtype)
        look = Look.from_json(_ask(site, guest, config, "look", number=int(number or 0), eps=EPS))
        start = math.log10(config.eps or 1e-3)
        return look, start, *figures(look, start), "", measured(config)

    def counted(guest: Guest, dtype: str, *values: Any) -> tuple[Any, ...]:
        config = _settings(site, values, dtype)
        aligned = alignment.Alignment(**_ask(site, guest, config, "alignment", counts=COUNTS))
        return chart.whole(alignment_figure(aligned)), "", measured(config)

    def batched(guest: Guest, dtype: str, *values: Any) -> tuple[Any, ...]:
        config = _settings(site, values, dtype, "grzo")
        law = alignment.BatchLaw(**_ask(site, guest, config, "batch_law", sizes=SIZES, repeats=12))
        return chart.whole(law_figure(law)), "", measured(config)

    def moved(look: Look | None, at: float) -> tuple[Any, Any]:
        return figures(look, at) if look else (gr.skip(), gr.skip())

    slow: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "lab", "show_progress": "minimal"}
    asked = [site.visitor, bench.dtype]
    notes = [bench.problem, bench.line]
    along = [bench.seen, bench.eps, bench.along, bench.bias]
    for press, do, more, shown in (
        (bench.look, looked, [bench.number], along),
        (bench.count, counted, [], [bench.cosine]),
        (bench.batch, batched, [], [bench.law]),
    ):
        inputs, outputs = [*asked, *more, *form.inputs], [*shown, *notes]
        press.click(_or_problem(do, len(shown), site), inputs, outputs, **slow, show_progress_on=bench.problem)
    bench.eps.input(moved, [bench.seen, bench.eps], [bench.along, bench.bias], **QUIET, trigger_mode="always_last")


def _or_problem(measure: Callable[..., tuple[Any, ...]], shown: int, site: Site) -> Callable[..., tuple[Any, ...]]:
    """The handler, with what is wrong beside the buttons where it would raise; the charts then stay."""

    def handler(visitor: str, request: gr.Request, *values: Any) -> tuple[Any, ...]:
        try:
            return measure(Guest.of(site.store, visitor, request), *values)
        except (ValueError, OverflowError) as error:
            return *[gr.skip()] * shown, data_form.error(str(error)), gr.skip()

    return handler


def _settings(site: Site, values: Sequence[Any], dtype: str, method: str = "") -> RunConfig:
    config = controls.collect(site.play.form.named(values), site.store.limits)
    return config_of(taken(site.store, config), dtype, method)


def _ask(site: Site, guest: Guest, config: RunConfig, question: str, **facts: Any) -> Any:
    site.store.may_ask(guest.secret, guest.address)
    return site.store.models.ask(question, config=config.to_json(), largest=LARGEST, **facts)


def _panel(name: str, title: str, about: str, height: int, first: chart.Message) -> gr.HTML:
    with gr.Column(elem_classes="zo-panel", min_width=280):
        gr.HTML(f"<h2>{title}</h2><p class='zo-quiet'>{about}</p>")
        return chart.chart(name, title, height, first["figure"])


def measured(config: RunConfig) -> str:
    """Say what was looked at."""
    what = Path(config.data).name if config.data else config.task
    pushes = PUSHES if build(config.method, **config.options).pushes else ""
    return status("finished", f"measured · {config.method} on {config.model}, {what}, {config.dtype}{pushes}")


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


def figures(look: Look, at: float) -> tuple[Any, Any]:
    """Return the two charts at log10 of eps."""
    chosen = min(look.found, key=lambda one: abs(math.log10(one.eps) - at))
    return chart.whole(slice_figure(look, chosen)), chart.whole(bias_figure(look, chosen))


TAB = Tab("microscope", "Microscope", lay_out)
