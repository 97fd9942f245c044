"""What the page opens with: the idea in ten seconds, from a recorded run, and one number that says why it matters."""

import json
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app.charts.chart import when_ready
from zocore.memory.bill import GB, bill
from zocore.memory.shapes import shape_of

RECORDED = Path(__file__).parents[1] / "recorded" / "opening.json"
MODEL, TITLE, ROWS, TOKENS = "opt-13b", "OPT-13B", 16, 128  # of the sentence about memory
IDEA = (
    "Nudge all weights a little along a random direction and ask for the loss; nudge them the other way and ask again. "
    "<b>Two forward passes say which side is lower: step there.</b>"
)
SLICE = (
    "A slice through the loss of the bundled model, measured: it holds the start, the middle and the end of a recorded "
    "MeZO run. Between them you see the run's shadow, and its probes are drawn apart so that they show."
)


@lru_cache(maxsize=1)
def recorded() -> dict[str, Any]:
    """Return what `python -m app.record opening` found."""
    run: dict[str, Any] = json.loads(RECORDED.read_text())
    return run


def memory() -> str:
    """Return the sentence that says what forward passes alone save, in predicted numbers."""
    shape = shape_of(MODEL)
    less, more = (bill(shape, method, ROWS, TOKENS, "bf16").total / GB for method in ("mezo", "adamw"))
    return (
        f"No backward pass: a step on {TITLE} takes <b>{less:.0f} GB</b> instead of {more:.0f} with AdamW "
        f"(predicted, 16 bits, {ROWS} × {TOKENS} tokens)."
    )


def lay_out() -> None:
    """Lay the opening out; it needs nothing of the server once it is there."""
    run = recorded()
    rows = "".join(_sentence(text, run["labels"], answers) for (text, _), answers in _first(run))
    before, after = run["accuracy"]
    html = (
        '<details class="zo-opening" open><summary>How a model learns from forward passes alone</summary>'
        '<div class="zo-scene"><figure><canvas role="img" aria-label="A slope of the loss; a dot walks down it, one '
        f'random direction at a time"></canvas><figcaption class="zo-quiet">{SLICE}</figcaption></figure>'
        f'<div class="zo-words"><p class="zo-idea">{IDEA}</p><p class="zo-told"></p>'
        f'<ul class="zo-turns" aria-label="Test sentences">{rows}</ul>'
        f'<p class="zo-quiet">Test sentences <span class="zo-now"></span>. All of them: {before:.0%} right before, '
        f"{after:.0%} after.</p>"
        f'<p class="zo-saves">{memory()}</p><button type="button">Pause</button></div></div>'
        "</details>"
    )
    script = when_ready("zoOpening", "element, props.value")
    gr.HTML(value=run, html_template=html, js_on_load=script, elem_id="zo-opening", apply_default_css=False)


def _first(run: dict[str, Any]) -> Any:
    return zip(run["sentences"], run["beats"][0]["answers"], strict=True)


def _sentence(text: str, labels: list[str], answers: list[float]) -> str:
    best = labels[max(range(len(answers)), key=answers.__getitem__)]
    mark = '<em role="img" aria-label="wrong">✗</em>'
    return f'<li class="zo-turn"><span>{escape(text)}</span><span class="zo-verdict"><b>{best}</b> {mark}</span></li>'
