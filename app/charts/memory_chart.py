"""Memory of a step as stacked bars: predicted for each method, measured where a run was."""

from collections.abc import Sequence
from typing import Any

from app.charts import plots
from zocore.memory.bill import GB, Bill, title

PARTS = (
    ("weights", "#0072B2", ""),
    ("scratch", "#56B4E9", "/"),
    ("activations", "#009E73", "."),
    ("gradients", "#E69F00", "x"),
    ("optimiser_state", "#CC79A7", "\\"),
)
KEPT = ("kept", "#7F7F7F", "|")  # what frozen blocks gave for each example, on a CPU


def bars(
    bills: Sequence[Bill], card: tuple[str, int] | None = None, measured: tuple[str, int] | None = None
) -> plots.Figure:
    """Stacked bars of predicted memory, one a method, with a measured bar and the line of a card."""
    top = max([bill.total + bill.kept for bill in bills] + [measured[1] if measured else 0], default=0)
    unit, scale = ("GB", GB) if top >= GB else ("MB", 10**6)
    names = [title(bill.method) for bill in bills]
    data: list[plots.Trace] = []
    for part, hue, pattern in (*PARTS, KEPT) if any(bill.kept for bill in bills) else PARTS:
        sizes = [round(getattr(bill, part) / scale, 3) for bill in bills]
        fill = {
            "color": hue,
            "pattern": {"shape": pattern, "size": 6, "solidity": 0.2, "fillmode": "overlay", "fgcolor": "#ffffff"},
        }
        data.append(
            {"type": "bar", "orientation": "h", "x": sizes, "y": names, "name": part.split("_")[0], "marker": fill}
        )
    if measured:
        bar = {"color": "rgba(127,127,127,0.35)", "line": {"color": plots.INK, "width": 2}}
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "x": [round(measured[1] / scale, 3)],
                "y": [measured[0]],
                "name": "measured",
                "marker": bar,
            }
        )
    order = ([measured[0]] if measured else []) + names
    shown = plots.layout(f"{unit} at the peak of a step", "", barmode="stack", bargap=0.35)
    shown["legend"] = {
        "orientation": "h",
        "yref": "container",
        "y": 0,
        "yanchor": "bottom",
        "x": 0,
        "xref": "container",
        "font": {"size": 11},
        "traceorder": "normal",
        "entrywidth": 60,
    }
    shown["margin"] = {"l": 10, "r": 14, "t": 24 if card else 8, "b": 72}
    shown["yaxis"] |= {
        "categoryorder": "array",
        "categoryarray": order[::-1],
        "nticks": len(order),
        "title": {"text": ""},
    }
    if card and card[1] < 8 * top:
        shown |= _card_line(card[0], card[1] / scale)
    return {"data": data, "layout": shown}


def _card_line(name: str, at: float) -> dict[str, Any]:
    rule = {
        "type": "line",
        "x0": at,
        "x1": at,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": "#D55E00", "width": 2},
    }
    note = {"x": at, "y": 1, "yref": "paper", "text": name, "showarrow": False, "yanchor": "bottom", "xanchor": "right"}
    return {"shapes": [rule], "annotations": [note | {"font": {"color": "#D55E00", "size": 11}}]}
