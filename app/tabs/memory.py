"""The Memory tab: what fits my card. The card first, then what fits it, then any model by its configuration."""

import math
from html import escape
from typing import Any

import gradio as gr

from app.charts import chart, memory_chart, plots
from app.form import catalogue, data_form
from app.jobs.limits import Limits
from app.quiet import QUIET
from app.tabs import fitting
from app.tabs.fitting import WAYS, Card
from app.tabs.tab import Site, Tab
from zocore.errors import InputError
from zocore.memory import bill
from zocore.memory.shapes import BUILT_IN, ModelShape

OTHER = "another card"
OWN = "a model of my own"
ABOUT = (
    "Predicted peak of one training step, from a model's sizes alone: weights, gradients and optimiser state are exact "
    "counts, scratch and activations are estimates. The same lean forward for every way to train."
)
EXAMPLE = """{
  "model_type": "llama",
  "num_hidden_layers": 32,
  "hidden_size": 4096,
  "intermediate_size": 14336,
  "num_attention_heads": 32,
  "num_key_value_heads": 8,
  "vocab_size": 128256,
  "max_position_embeddings": 8192
}"""
MOST_GB = 100_000


def lay_out(site: Site) -> None:
    """Lay the tab out and connect it."""
    limits = site.store.limits
    with gr.Row(elem_classes="zo-main", equal_height=False):
        with gr.Column(scale=4, min_width=300, elem_classes="zo-side"):
            card = gr.Dropdown([*bill.CARDS, OTHER], value="RTX 4090 24 GB", label="My card", elem_id="zo-card-name")
            free = gr.Number(24, label="Free memory in GB", visible=False, elem_id="zo-free")
            with gr.Row(elem_classes="zo-pair"):
                batch, tokens = _number(16, "Batch"), _number(128, "Tokens each")
            dtype = gr.Radio(["fp32", "bf16"], value="bf16", label="Weights and activations")
            names = [("the bundled tiny model", "bundled"), *((name, name) for name in BUILT_IN), (OWN, OWN)]
            model = gr.Dropdown(
                names,
                value="opt-13b",
                label="A model to look at",
                elem_id="zo-shape",
                allow_custom_value=True,
                info="Also a hub id that was downloaded before" + (", or a folder." if limits.folders else "."),
            )
            config = gr.Textbox(
                EXAMPLE,
                label="Its config.json",
                info="Paste the file that every model on the hub has, or change these numbers.",
                lines=8,
                max_lines=14,
                max_length=catalogue.MOST_CONFIG,
                visible=False,
                elem_id="zo-config",
            )
            problem = gr.HTML("", elem_id="zo-memory-problem")
            gr.HTML(f"<p class='zo-quiet'>{ABOUT}</p>")
        with gr.Column(scale=9, min_width=320, elem_classes="zo-stage"):
            with gr.Column(elem_classes="zo-panel"):
                sentence = gr.HTML("", elem_id="zo-memory-said")
                listed = gr.HTML("", elem_id="zo-fits")
            with gr.Column(elem_classes="zo-panel"):
                gr.HTML("<h2>Where the bytes go</h2>")
                bars = chart.chart("memory-bars", "Memory of every way to train", 380)
    inputs = [card, free, batch, tokens, dtype, model, config]

    def drawn(*values: Any) -> tuple[str, str, Any, str]:
        return draw(limits, *values)

    sentence.value, listed.value, bars.value, _ = drawn(*(part.value for part in inputs))
    card.input(lambda name: gr.update(visible=name == OTHER), card, free, **QUIET)
    model.input(lambda name: gr.update(visible=name == OWN), model, config, **QUIET)
    changes = [part.change for part in inputs]  # type: ignore[attr-defined]
    gr.on(changes, drawn, inputs, [sentence, listed, bars, problem], **QUIET, trigger_mode="always_last")


def _number(value: int, text: str) -> gr.Number:
    return gr.Number(value, label=text, precision=0, min_width=110)


def draw(limits: Limits, card_: str, free: Any, *values: Any) -> tuple[str, str, Any, str]:
    """Return the sentence, the list, the chart and an error, for a card, a run and a model.

    A model whose sizes are not known leaves nothing of another's on the page; the list of the card stays.
    """
    batch, tokens, dtype, model, config = values
    empty = chart.whole({"data": [], "layout": plots.layout()})
    try:
        card, sizes = card_of(card_, free), _checked(batch, tokens)
    except (ValueError, TypeError) as error:
        return "", "", empty, data_form.error(str(error))
    shapes, dtype = fitting.known(), dtype if dtype in ("fp32", "bf16") else "bf16"
    try:
        shape = _shape(limits, str(model or ""), str(config or ""))
        bills = {way: bill.bill(shape, way, *sizes, dtype) for way in WAYS}
    except (ValueError, TypeError, OverflowError) as error:
        listed = fitting.table(fitting.fitting(card, shapes, *sizes, dtype), card, "")
        return _title(card), listed, empty, data_form.error(str(error))
    if shape.name not in BUILT_IN:
        shapes.append(shape)
    listed = fitting.table(fitting.fitting(card, shapes, *sizes, dtype), card, shape.name)
    sentence = f"{_title(card)}<p>{fitting.sentence(shape, bills, card)} <span class='zo-quiet'>Estimated.</span></p>"
    figure = memory_chart.bars(list(bills.values()), (card.name, card.room))
    figure["layout"]["xaxis"] |= {"rangemode": "tozero"}
    return sentence, listed, chart.whole(figure), ""


def _title(card: Card) -> str:
    return f"<h2>What fits {escape(card.name)}</h2>"


def card_of(name: str, free: Any) -> Card:
    """Return the card of a name, or one with so many GB free. Raises InputError for no such number."""
    if name in bill.CARDS:
        return Card(name, bill.CARDS[name])
    if isinstance(free, bool) or not isinstance(free, int | float) or not 0 < free <= MOST_GB:
        raise InputError(f"say how many GB are free on the card: a number up to {MOST_GB:,}")
    if not math.isfinite(free):
        raise InputError("the free memory must be a finite number")
    return Card(f"{free:g} GB", int(free * bill.GB))


def _shape(limits: Limits, model: str, config: str) -> ModelShape:
    if model == OWN:
        return catalogue.shape_of_text(config)
    shape = catalogue.shape(model) if limits.folders or catalogue.is_named(model) else None
    if shape is None:
        raise InputError(
            f"the sizes of {model[:80]!r} are not known here: choose a listed one, or {OWN!r} and paste its config.json"
        )
    return shape


def _checked(batch: Any, tokens: Any) -> tuple[int, int]:
    for name, value in (("batch", batch), ("tokens", tokens)):
        if not isinstance(value, int | float) or not 1 <= value <= 10**6:
            raise InputError(f"{name} must be a whole number from 1 to 1,000,000")
    return int(batch), int(tokens)


TAB = Tab("memory", "Memory", lay_out)
