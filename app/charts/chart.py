"""The one live chart: a Plotly plot that takes whole figures or new rows, and keeps zoom and hidden traces.

Until Plotly has come a chart shows a sketch of its lines (sketch.js).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.charts.plots import Column, Figure

_numbers = itertools.count(1)  # each message differs from the last, or the page would not see it


def when_ready(function: str, call: str) -> str:
    """Return a script that calls one of the page's functions as soon as its file has come."""
    return f"(function go() {{ window.{function} ? {function}({call}) : setTimeout(go, 20); }})()"


Message = dict[str, Any]


def chart(name: str, title: str, height: int = 260, figure: Figure | None = None) -> gr.HTML:
    """Return a chart with its title, showing a figure from the first paint on."""
    return gr.HTML(
        value=whole(figure) if figure else None,
        html_template=f'<div class="zo-plot" style="height:{height}px" role="group" aria-label="{title}"></div>',
        js_on_load=when_ready("zoChart", f"element, props, watch, {title!r}"),
        elem_id=f"zo-{name}",
        elem_classes="zo-chart",
        apply_default_css=False,
    )


def whole(figure: Figure) -> Message:
    """A message that draws a figure anew."""
    return {"n": next(_numbers), "figure": figure}


def grown(figure: Figure, sizes: Sequence[int]) -> Message:
    """A message with the points gained since the traces had these sizes; the whole figure where traces are new."""
    if len(sizes) != len(figure["data"]):
        return whole(figure)
    return rows([(trace["x"][size:], trace["y"][size:]) for trace, size in zip(figure["data"], sizes, strict=True)])


def sizes(figure: Figure) -> tuple[int, ...]:
    """Points of each trace."""
    return tuple(len(trace["x"]) for trace in figure["data"])


def rows(columns: Sequence[Column]) -> Message:
    """A message that adds rows to traces, one column a trace; x is sent once where traces share it."""
    shared: list[list[Any]] = []
    for number, (x, y) in enumerate(columns):
        if x and shared and shared[-1][1] == x:
            shared[-1][0].append(number)
            shared[-1][2].append(y)
        elif x:
            shared.append([[number], x, [y]])
    return {"n": next(_numbers), "rows": shared}
