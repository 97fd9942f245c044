"""The Microscope tab: the loss along one direction at fixed weights, and estimates against the true gradient."""

import math
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from app import chart, controls, data_form, plots
from app.lab import Lab
from app.play import Play
from app.store import JobStore
from zocore import slices
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.session import Session, open_session

EPS = [10 ** (k / 6) for k in range(-36, 1)]  # six a decade, from 1e-6 to 1
COUNTS = [1, 2, 4, 8, 16, 32]  # directions
SIZES = [2, 4, 8, 16]  # examples of a batch
LARGEST = 60_000_000  # values that may move: the true gradient is taken too
ABOUT = (
    "Fixed weights: those the settings of the Play tab start from. One direction z, one batch. The probes stand at "
    "plus and minus eps; the line through them is what a zeroth-order step believes."
)
ABOUT_EPS = "Left: rounding noise drowns the difference. Right: curvature bends it. Between them is a wide flat valley."
ABOUT_COUNT = (
    "Cosine of the mean of n estimates to the true gradient, and their variance. Lines: sqrt(n / (n + d + 1)) and 1/n. "
    "A single direction in d dimensions is almost at a right angle to the gradient, and still enough."
)
ABOUT_BATCH = (
    "GRZO gives each example its own direction, so a larger batch is more directions at no more forwards: "
    "sqrt(B_eff / d) with B_eff = c B + 1 - c, c the mean cosine between the examples' gradients."
)


@dataclass(frozen=True)
class Look:
    """What was asked along one direction: every eps at once, so that the slider needs no forward pass."""

    base: float
    slope: float | None
    found: tuple[slices.Difference, ...]
    name: str


def layout(play: Play, store: JobStore, lab: Lab, visitor: gr.BrowserState) -> None:
    """Lay the tab out and connect it."""
    with gr.Row(elem_classes="zo-main", equal_height=False):
        with gr.Column(scale=4, min_width=300, elem_classes="zo-side"):
            gr.HTML(f"<p class='zo-quiet'>{ABOUT}</p>")
            number = gr.Number(0, label="Direction number", precision=0, minimum=0, elem_id="zo-direction")
            dtype = gr.Radio(["fp32", "bf16"], value="fp32", label="Precision of the weights", elem_id="zo-look-dtype")
            look = gr.Button("Look along it", variant="primary", elem_id="zo-look")
            eps = gr.Slider(-6, 0, value=-3, step=1 / 6, label="log10 of eps", elem_id="zo-eps-slider", interactive=False, buttons=[])
            gr.HTML("<hr>")
            gr.HTML("<p class='zo-quiet'>64 directions and the true gradient: some ten seconds on the bundled model.</p>")
            count = gr.Button("Measure against the gradient", elem_id="zo-count")
            batch = gr.Button("Measure GRZO's batch law", elem_id="zo-batch-law")
            problem = gr.HTML("", elem_id="zo-look-problem")
        with gr.Column(scale=9, min_width=320, elem_classes="zo-stage"):
            with gr.Row(equal_height=True):
                along = _panel("slice", "The loss along z", "Dots: the two probes. Dashed: the line a step believes. Dotted: the tangent.", 300)
                bias = _panel("bias", "The slope each eps finds", ABOUT_EPS, 300)
            with gr.Row(equal_height=True):
                cosine = _panel("cosine", "Cosine against number of directions", ABOUT_COUNT, 260)
                law = _panel("law", "GRZO: cosine against batch size", ABOUT_BATCH, 260)
    seen = gr.State(None)
    quiet: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "lab", "show_progress": "minimal"}

    def session(visitor_: str, dtype_: str, values: tuple[Any, ...], method: str = "") -> tuple[str, RunConfig]:
        config = config_of(controls.collect(values, store.limits), dtype_, method)
        return f"look {visitor_} {config}", config

    def looked(visitor_: str, number_: float, dtype_: str, *values: Any) -> tuple[Any, ...]:
        try:
            key, config = session(visitor_, dtype_, values)
            found = lab.use(key, lambda: opened(config), lambda s: look_along(s, int(number_ or 0)))
        except (ValueError, OverflowError) as error:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), data_form.error(str(error))
        start = math.log10(config.eps or 1e-3)
        return found, gr.update(interactive=True, value=start), *figures(found, start), ""

    def moved(found: Look | None, at: float) -> tuple[Any, Any]:
        return figures(found, at) if found else (gr.skip(), gr.skip())

    def counted(visitor_: str, dtype_: str, *values: Any) -> tuple[Any, str]:
        try:
            key, config = session(visitor_, dtype_, values)
            return chart.whole(alignment_figure(lab.use(key, lambda: opened(config), lambda s: slices.alignment(s, COUNTS)))), ""
        except ValueError as error:
            return gr.skip(), data_form.error(str(error))

    def batched(visitor_: str, dtype_: str, *values: Any) -> tuple[Any, str]:
        try:
            key, config = session(visitor_, dtype_, values, "grzo")
            return chart.whole(law_figure(lab.use(key, lambda: opened(config), lambda s: slices.batch_law(s, SIZES, 12)))), ""
        except ValueError as error:
            return gr.skip(), data_form.error(str(error))

    look.click(looked, [visitor, number, dtype, *play.form.inputs], [seen, eps, along, bias, problem], **quiet, show_progress_on=problem)
    eps.input(moved, [seen, eps], [along, bias], api_visibility="private", queue=False, show_progress="hidden", trigger_mode="always_last")
    count.click(counted, [visitor, dtype, *play.form.inputs], [cosine, problem], **quiet, show_progress_on=problem)
    batch.click(batched, [visitor, dtype, *play.form.inputs], [law, problem], **quiet, show_progress_on=problem)


def _panel(name: str, title: str, about: str, height: int) -> gr.HTML:
    with gr.Column(elem_classes="zo-panel", min_width=280):
        gr.HTML(f"<h2>{title}</h2><p class='zo-quiet'>{about}</p>")
        return chart.chart(name, title, height, {"data": [], "layout": plots.layout(annotations=[_hint()])})


def _hint() -> dict[str, Any]:
    return {"text": "not measured yet", "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}


def config_of(config: RunConfig, dtype: str, method: str = "") -> RunConfig:
    """Return the settings the microscope looks with: those of the form, in a dtype, and batches of 16."""
    if config.method in ("sgd", "adamw") and not method:
        raise InputError("backprop has no probes to look at: choose a zeroth-order method on the Play tab")
    chosen = replace(config, dtype=dtype, batch_size=16, micro_batch=None, diagnose_every=0)
    if method and config.method != method:
        chosen = replace(chosen, method=method, subspace="auto", rank=0, keep=1.0, lr=None, pool=None, share=None, clip=None, directions=None)
    return chosen


def opened(config: RunConfig) -> Session:
    """Return a session small enough to look at. Raises InputError for a larger one."""
    session = open_session(config)
    if session.trainable > LARGEST:
        raise InputError(f"{session.trainable:,} values move: the microscope takes at most {LARGEST:,}; choose a smaller model or LoRA")
    return session


def look_along(session: Session, number: int) -> Look:
    """Ask both sides at every eps along one direction."""
    along = slices.direction(session, max(0, number))
    base = slices.slice_along(session, along, [0.0])
    return Look(base.losses[0], base.slope, tuple(slices.differences(session, along, EPS)), session.config.method)


def figures(look: Look, at: float) -> tuple[Any, Any]:
    """Return the two charts at log10 of eps."""
    chosen = min(look.found, key=lambda one: abs(math.log10(one.eps) - at))
    return chart.whole(slice_figure(look, chosen)), chart.whole(bias_figure(look, chosen))


def slice_figure(look: Look, chosen: slices.Difference) -> plots.Figure:
    """The loss along z near the probes, the secant through them and the tangent."""
    near = [one for one in look.found if one.eps <= 1.8 * chosen.eps]
    x = [-one.eps for one in reversed(near)] + [0.0] + [one.eps for one in near]
    y = [one.minus for one in reversed(near)] + [look.base] + [one.plus for one in near]
    hue = plots.colour(look.name)
    ends = [-1.7 * chosen.eps, 1.7 * chosen.eps]
    middle = (chosen.plus + chosen.minus) / 2
    data = [
        _trace(x, y, "loss", "lines+markers", {"color": plots.INK, "width": 2}, {"size": 4, "color": plots.INK}),
        _trace(ends, [middle + chosen.slope * e for e in ends], "secant: what the step believes", "lines", {"color": hue, "width": 2.5, "dash": "dash"}),
        _trace([-chosen.eps, chosen.eps], [chosen.minus, chosen.plus], "the two probes", "markers", None, {"size": 12, "color": hue}),
    ]
    if look.slope is not None:
        data.append(_trace(ends, [look.base + look.slope * e for e in ends], "true slope", "lines", {"color": "#009E73", "width": 2, "dash": "dot"}))
    shown = plots.layout(f"offset along z, eps = {chosen.eps:.2g}", "loss of the batch")
    shown["xaxis"] |= {"exponentformat": "e"}
    shown["yaxis"] |= {"tickformat": ".5~g", "hoverformat": ".8g"}
    return {"data": data, "layout": shown | {"uirevision": f"{chosen.eps}"}}


def bias_figure(look: Look, chosen: slices.Difference) -> plots.Figure:
    """The slope found at every eps, with the true one."""
    x, y = [one.eps for one in look.found], [one.slope for one in look.found]
    hue = plots.colour(look.name)
    data = [
        _trace(x, y, "slope found", "lines+markers", {"color": hue, "width": 2}, {"size": 5, "color": hue}),
        _trace([chosen.eps], [chosen.slope], f"eps {chosen.eps:.2g}: {chosen.slope:.4g}", "markers", None, {"size": 13, "color": hue}),
    ]
    if look.slope is not None:
        data.append(_trace([x[0], x[-1]], [look.slope] * 2, f"true slope {look.slope:.4g}", "lines", {"color": "#009E73", "width": 2, "dash": "dot"}))
    shown = plots.layout("eps", "z · gradient")
    shown["xaxis"] |= {"type": "log", "tickformat": ".0e"}
    centre = look.slope if look.slope is not None else sorted(y)[len(y) // 2]
    reach = max(3 * abs(centre), 1.5 * abs(chosen.slope - centre), 0.1)
    shown["yaxis"] |= {"range": [centre - reach, centre + reach]}
    return {"data": data, "layout": shown}


def alignment_figure(found: slices.Alignment) -> plots.Figure:
    """Cosine and variance against the number of directions, with theory."""
    first = found.variance[0]
    data = [
        _trace(found.counts, found.cosine, "cosine, measured", "markers", None, {"size": 10, "color": "#0072B2"}),
        _trace(found.counts, found.theory(), "cosine, theory", "lines", {"color": "#0072B2", "width": 2, "dash": "dash"}),
        _trace(found.counts, found.variance, "variance, measured", "markers", None, {"size": 9, "color": "#D55E00", "symbol": "square"}) | {"yaxis": "y2"},
        _trace(found.counts, [first / n for n in found.counts], "variance, 1/n", "lines", {"color": "#D55E00", "width": 2, "dash": "dot"}) | {"yaxis": "y2"},
    ]
    shown = plots.layout(f"directions n, in d = {found.dimension:,} dimensions", "cosine")
    shown["xaxis"] |= {"type": "log", "tickvals": found.counts}
    shown["yaxis"] |= {"type": "log", "tickformat": ".0e", "nticks": 4}
    shown["yaxis2"] = {"title": {"text": "variance", "font": {"size": 12}}, "type": "log", "overlaying": "y", "side": "right", "showgrid": False, "tickformat": ".0e", "nticks": 4}
    shown["margin"] = shown["margin"] | {"r": 64}
    return {"data": data, "layout": shown}


def law_figure(found: slices.BatchLaw) -> plots.Figure:
    """GRZO's cosine against the batch size, with the law and what one shared direction would have."""
    one = 1 / math.sqrt(found.dimension)
    data = [
        _trace(found.sizes, found.cosine, "GRZO, measured", "markers", None, {"size": 10, "color": plots.colour("grzo")}),
        _trace(found.sizes, found.theory(), f"law with c = {abs(found.similarity):.2f}" if abs(found.similarity) < 0.005 else f"law with c = {found.similarity:.2f}", "lines", {"color": plots.colour("grzo"), "width": 2, "dash": "dash"}),
        _trace(found.sizes, [one] * len(found.sizes), "one shared direction (MeZO)", "lines", {"color": plots.colour("mezo"), "width": 2, "dash": "dot"}),
    ]
    shown = plots.layout("examples in the batch, B", "cosine to the batch's gradient")
    shown["xaxis"] |= {"type": "log", "tickvals": found.sizes}
    shown["yaxis"] |= {"tickformat": ".1e", "rangemode": "tozero"}
    return {"data": data, "layout": shown}


def _trace(x: Any, y: Any, name: str, mode: str, line: Any = None, marker: Any = None) -> plots.Trace:
    look = {key: value for key, value in (("line", line), ("marker", marker)) if value}
    return {"type": "scatter", "x": [plots.digits(v) for v in x], "y": [plots.digits(v, 9) for v in y], "name": name, "mode": mode, **look}

