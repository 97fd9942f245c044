"""The Claims tab: what the papers say, what was measured here, and the command that measures it again."""

from html import escape

import gradio as gr

from app import claims, words
from app.charts import plots
from app.tabs.tab import Site, Tab
from zocore.methods import METHODS

MARKS = {"holds": "right", "in part": "unknown", "does not hold": "wrong"}


def lay_out(site: Site) -> None:
    """Lay the tab out; it is all text."""
    checked = claims.recorded()
    gr.HTML(f"<p class='zo-lead'>{words.ABOUT_CLAIMS}</p>")
    with gr.Column(elem_classes="zo-lessons"):
        gr.HTML("".join(map(card, checked)), elem_id="zo-claims")


def card(one: claims.Checked) -> str:
    """Return one claim as HTML."""
    hues = {row.title: plots.colour(name) for name, row in METHODS.items()}
    key = f'<i class="zo-key" style="background:{hues.get(one.method, "currentColor")}" aria-hidden="true"></i>'
    name = f"{key}{escape(one.method)} <small>arXiv {escape(one.paper)}</small>"
    return (
        f'<article class="zo-panel zo-claim"><h2>{name}</h2>'
        f"<p><q>{escape(one.says)}</q> <b class='zo-verdict-{MARKS[one.verdict]}'>{escape(one.verdict)}</b></p>"
        f"<p>{escape(one.found[0].upper() + one.found[1:])}</p>"
        f"<p class='zo-quiet'>measured {escape(one.date)} · <code>{escape(one.command)}</code></p></article>"
    )


TAB = Tab("claims", "Claims", lay_out)
