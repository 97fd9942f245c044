"""The Memory tab: the calculator for any listed or entered shape, every method, and the line of a card."""

from html import escape
from typing import Any

import gradio as gr

from app.charts import chart, memory_chart, plots
from app.form import catalogue, data_form
from app.quiet import QUIET
from app.tabs.tab import Site, Tab
from app.words import size
from zocore.errors import InputError
from zocore.memory import bill
from zocore.memory.shapes import BUILT_IN, ModelShape

OWN = "your own shape"
ABOUT = (
    "Predicted peak of one training step, from a model's sizes alone: weights, gradients and optimiser state are exact "
    "counts, scratch and activations are estimates. The same lean forward for every method."
)
NO_CARD = "no card"
QLORA = "qlora-adamw"


def lay_out(site: Site) -> None:
    """Lay the tab out and connect it."""
    with gr.Row(elem_classes="zo-main", equal_height=False):
        with gr.Column(scale=4, min_width=300, elem_classes="zo-side"):
            gr.HTML(f"<p class='zo-quiet'>{ABOUT}</p>")
            names = [("the bundled tiny model", "bundled"), *((name, name) for name in BUILT_IN), (OWN, OWN)]
            model = gr.Dropdown(
                names,
                value="opt-13b",
                label="Model",
                elem_id="zo-shape",
                allow_custom_value=True,
                info="Also a hub id that was downloaded before, or a folder.",
            )
            with gr.Column(visible=False, elem_classes="zo-own") as own:
                with gr.Row(elem_classes="zo-pair"):
                    layers, hidden = (_number(v, t) for v, t in ((32, "Layers"), (4096, "Hidden size")))
                with gr.Row(elem_classes="zo-pair"):
                    wide, heads = (_number(v, t) for v, t in ((14336, "MLP width"), (32, "Heads")))
                with gr.Row(elem_classes="zo-pair"):
                    kv_heads, vocab = (_number(v, t) for v, t in ((8, "Key-value heads"), (128256, "Vocabulary")))
                tied = gr.Checkbox(False, label="the head shares the embedding's storage")
            with gr.Row(elem_classes="zo-pair"):
                batch, tokens = _number(16, "Batch"), _number(128, "Tokens each")
            dtype = gr.Radio(["fp32", "bf16"], value="bf16", label="Weights and activations")
            card = gr.Dropdown([NO_CARD, *bill.CARDS], value="A100 80 GB", label="Card", elem_id="zo-card-name")
            problem = gr.HTML("", elem_id="zo-memory-problem")
        with gr.Column(scale=9, min_width=320, elem_classes="zo-stage"), gr.Column(elem_classes="zo-panel"):
            headline = gr.HTML("", elem_id="zo-memory-said")
            bars = chart.chart("memory-bars", "Memory of every method", 460)
    inputs = [model, layers, hidden, wide, heads, kv_heads, vocab, tied, batch, tokens, dtype, card]
    first = draw(*(part.value for part in inputs))
    headline.value, bars.value = first[0], first[1]
    model.input(lambda name: gr.update(visible=name == OWN), model, own, **QUIET)
    changes = [part.change for part in inputs]  # type: ignore[attr-defined]
    gr.on(changes, draw, inputs, [headline, bars, problem], **QUIET, trigger_mode="always_last")


def _number(value: int, text: str) -> gr.Number:
    return gr.Number(value, label=text, precision=0, min_width=110)


def draw(model: str, *values: Any) -> tuple[Any, Any, str]:
    """Return the headline, the chart and an error, for a shape and settings."""
    *sizes, tied, batch, tokens, dtype, card = values
    try:
        shape = own_shape(sizes, bool(tied)) if model == OWN else _known_shape(str(model or ""))
        positions = _checked(batch, tokens)
        bills = [*bill.bills(shape, *positions, dtype), bill.bill(shape, QLORA, *positions, dtype)]
    except (ValueError, TypeError, OverflowError) as error:
        empty = {"data": [], "layout": plots.layout()}
        return "", chart.whole(empty), data_form.error(str(error))
    line = None if card == NO_CARD else (card, bill.CARDS[card])
    return _headline(shape, bills, line), chart.whole(memory_chart.bars(bills, line)), ""


def _known_shape(model: str) -> ModelShape:
    shape = catalogue.shape(model)
    if shape is None:
        raise InputError(f"the sizes of {model!r} are not known here: choose a listed model, or enter your own shape")
    return shape


def own_shape(sizes: list[Any], tied: bool) -> ModelShape:
    """Return a Llama-like shape. Raises InputError for sizes that make no model."""
    names = ("layers", "hidden size", "MLP width", "heads", "key-value heads", "vocabulary")
    for name, value in zip(names, sizes, strict=True):
        if not isinstance(value, int | float) or not 1 <= value <= 10**7:
            raise InputError(f"the {name} must be a whole number from 1 to 10,000,000")
    layers, hidden, wide, heads, kv_heads, vocab = map(int, sizes)
    if layers > 10_000:
        raise InputError("more than 10,000 layers are no model")
    if hidden % heads or heads % kv_heads:
        raise InputError("the hidden size must be a multiple of the heads, and the heads of the key-value heads")
    return ModelShape(
        OWN,
        "llama",
        layers,
        hidden,
        wide,
        heads,
        kv_heads,
        hidden // heads,
        vocab,
        131_072,
        tied,
        "silu",
        gated_mlp=True,
        rms_norm=True,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
    )


def _checked(batch: Any, tokens: Any) -> tuple[int, int]:
    for name, value in (("batch", batch), ("tokens", tokens)):
        if not isinstance(value, int | float) or not 1 <= value <= 10**6:
            raise InputError(f"{name} must be a whole number from 1 to 1,000,000")
    return int(batch), int(tokens)


def _headline(shape: ModelShape, bills: list[bill.Bill], card: tuple[str, int] | None) -> str:
    by = {bill.method: bill for bill in bills}
    mezo, qlora, adamw = by["mezo"], by[QLORA], by["adamw"]
    if card is None:
        cards = bill.fits(mezo)
        verdict = f"MeZO fits from {cards[0]}." if cards else "MeZO fits no single card."
    else:
        fit = [bill.title(one.method) for one in bills if one.total <= card[1]]
        verdict = f"On {card[0]} fit: {', '.join(fit)}." if fit else f"Nothing of this fits on {card[0]}."
    return (
        f"<h2>{escape(shape.name)} · {shape.parameters / 1e9:.3g} B parameters</h2>"
        f"<p>MeZO takes <b>{size(mezo.total)}</b>, QLoRA with AdamW <b>{size(qlora.total)}</b>, AdamW on all weights "
        f"<b>{size(adamw.total)}</b>, {adamw.total / mezo.total:.1f} times as much as MeZO. {verdict} "
        "<span class='zo-quiet'>Estimated.</span></p>"
    )


TAB = Tab("memory", "Memory", lay_out)
