"""Every chart, as a plain Plotly figure made from views: one look for the app and the notebooks.

Colours are Okabe and Ito's, which colour-blind readers tell apart, one for each method, with a dash pattern of
its own. Figures carry no ink or background colour: the page or `themed` gives those for light and dark.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.jobs.view import MOST_POINTS, SMOOTHING, Point, View, smooth, thinned
from zocore.methods import METHODS
from zocore.runs.events import EstimatorMeasured

Figure = dict[str, Any]
Trace = dict[str, Any]

INK = "ink"  # stands for the text colour of the theme
AXIS_TITLES = {
    "forwards": "forward passes",
    "steps": "steps",
    "seconds": "seconds of training",
    "cost": "plain forwards' worth of work",
}
LIGHT = {"ink": "#1f2933", "grid": "rgba(31,41,51,0.10)", "paper": "#ffffff"}
DARK = {"ink": "#e6e9ee", "grid": "rgba(230,233,238,0.14)", "paper": "#14181f"}
EITHER = {"ink": "#757b84", "grid": "rgba(127,127,127,0.22)", "paper": "rgba(0,0,0,0)"}  # reads on white and on black


def title(method: str) -> str:
    """Return a method's name as people read it."""
    return METHODS[method].title if method in METHODS else method


def colour(method: str) -> str:
    """Return the method's colour."""
    return METHODS[method].colour if method in METHODS else INK


def line(method: str, width: float = 2.5) -> dict[str, Any]:
    """Return the method's line: its colour and dash."""
    dash = METHODS[method].dash if method in METHODS else "solid"
    return {"color": colour(method), "dash": dash, "width": width}


def layout(x: str = "", y: str = "", **more: Any) -> dict[str, Any]:
    """Return the layout all charts share."""
    return {
        "margin": {"l": 56, "r": 14, "t": 8, "b": 42},
        "font": {"size": 12, "family": "system-ui, sans-serif"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        "xaxis": _axis(x),
        "yaxis": _axis(y),
        "hovermode": "closest",
        "uirevision": "keep",
        **more,
    }


def _axis(text: str) -> dict[str, Any]:
    return {
        "title": {"text": text, "standoff": 8, "font": {"size": 12}},
        "zeroline": False,
        "automargin": True,
        "nticks": 7,
    }


def loss(views: Sequence[View], axis: str = "forwards", weight: float = SMOOTHING, log: bool = False) -> Figure:
    """Raw and smoothed training loss of each run, and a cross where it was not finite."""
    data = [trace for view in views for trace in loss_traces(view, axis, weight)]
    lowered = views[0].objective.lowered if views else "training loss"
    figure: Figure = {"data": data, "layout": layout(AXIS_TITLES[axis], lowered)}
    if log:
        figure["layout"]["yaxis"]["type"] = "log"
    return figure


def loss_traces(view: View, axis: str, weight: float = SMOOTHING) -> list[Trace]:
    """The three traces of one run's loss: faint raw, bold smoothed, crosses for what is not finite."""
    columns = loss_columns(view.points, axis, weight)
    name, hue = title(view.method), colour(view.method)
    raw = {"mode": "lines", "line": {"color": hue, "width": 1}, "opacity": 0.45, "name": f"{name}, each step"}
    bold = {"mode": "lines", "line": line(view.method), "name": f"{name}, smoothed {weight:g}"}
    cross = {"mode": "markers", "marker": {"symbol": "x", "color": "#D55E00", "size": 9}, "name": "not finite"}
    looks: tuple[Trace, ...] = (raw, bold, cross | {"showlegend": bool(columns[2][0])})
    return [{"type": "scatter", "x": x, "y": y, **look} for (x, y), look in zip(columns, looks, strict=True)]


Column = tuple[list[float], list[float | None]]


def loss_columns(
    points: Sequence[Point], axis: str, weight: float = SMOOTHING, first: int = 0, most: int = MOST_POINTS
) -> list[Column]:
    """x and y of the three loss traces, for at most `most` of the points from number `first` on."""
    losses = [point.loss for point in points]
    finite = [math.isfinite(value) for value in losses]
    even = smooth(losses, weight)
    kept = [first + i for i in thinned(len(points) - first, finite[first:], most)]
    x = [_short(points[i].place.on(axis)) for i in kept]
    lows = [value for value in losses if math.isfinite(value)]
    floor = min(lows, default=0.0)
    bad = [i for i in kept if not finite[i]]
    return [
        (x, [digits(losses[i]) for i in kept]),
        (x, [digits(even[i]) for i in kept]),
        ([_short(points[i].place.on(axis)) for i in bad], [floor for _ in bad]),
    ]


def gradient(view: View, axis: str = "forwards") -> Figure:
    """The projected gradient of each step."""
    x, y = gradient_columns(view.points, axis)
    mark = {"size": 4, "color": colour(view.method), "opacity": 0.75}
    trace = {"type": "scatter", "mode": "markers", "marker": mark, "x": x, "y": y, "name": "projected gradient"}
    return {"data": [trace], "layout": layout(AXIS_TITLES[axis], "z · gradient", showlegend=False)}


def gradient_columns(points: Sequence[Point], axis: str, first: int = 0, most: int = MOST_POINTS) -> Column:
    """x and y of the projected gradient for at most `most` of the points from number `first` on that have one."""
    having = [point for point in points[first:] if math.isfinite(point.gradient)]
    kept = [having[i] for i in thinned(len(having), most=most)]
    return [_short(point.place.on(axis)) for point in kept], [digits(point.gradient) for point in kept]


def foreseen(view: View, axis: str = "forwards") -> Figure:
    """The share of the responses to each step's pushes that learned feedback foresaw; absent for other methods."""
    x, y = foreseen_columns(view.points, axis)
    look = {"mode": "lines", "line": {"color": colour(view.method), "width": 2}, "name": "foreseen"}
    shown = layout(AXIS_TITLES[axis], "share foreseen", showlegend=False)
    shown["yaxis"] |= {"range": [0, 1.05], "tickformat": ".0%"}
    return {"data": [{"type": "scatter", "x": x, "y": y, **look}], "layout": shown, "absent": not x}


def foreseen_at(view: View, step: int) -> Figure:
    """The share foreseen over a run, with a step, or the last push before it, marked; absent where none is foreseen."""
    figure = foreseen(view, "steps")
    shares = {point.place.steps: max(0.0, 1 - left) for point in view.points if (left := point.unexplained) is not None}
    last = max((pushed for pushed in shares if pushed <= step), default=None)
    if last is not None:
        mark = {"size": 11, "color": INK, "symbol": "diamond"}
        name = f"step {last}: {shares[last]:.0%}" + (f", the last push up to step {step}" if last < step else "")
        figure["data"].append(
            {
                "type": "scatter",
                "mode": "markers",
                "marker": mark,
                "x": [last],
                "y": [_short(shares[last])],
                "name": name,
            }
        )
        line_ = {"color": INK, "width": 1, "dash": "dot"}
        across = {"type": "line", "x0": step, "x1": step, "y0": 0, "y1": 1, "yref": "paper", "line": line_}
        figure["layout"] |= {"shapes": [across], "showlegend": True}
    return figure


def foreseen_columns(points: Sequence[Point], axis: str, first: int = 0, most: int = MOST_POINTS) -> Column:
    """x and y of the share foreseen for at most `most` of the points from number `first` on that have one."""
    having = [(point, left) for point in points[first:] if (left := point.unexplained) is not None]
    kept = [having[i] for i in thinned(len(having), most=most)]
    return [_short(point.place.on(axis)) for point, _ in kept], [digits(max(0.0, 1 - left)) for _, left in kept]


def moved(view: View, axis: str = "forwards") -> Figure:
    """The share of examples whose value differed in each step's probes; absent where the objective has a gradient."""
    x, y = moved_columns(view.points, axis) if view.objective.flat else ([], [])
    look = {"mode": "lines", "line": {"color": colour(view.method), "width": 2}, "name": "moved"}
    shown = layout(AXIS_TITLES[axis], "share that moved", showlegend=False)
    shown["yaxis"] |= {"range": [0, 1.05], "tickformat": ".0%"}
    return {"data": [{"type": "scatter", "x": x, "y": y, **look}], "layout": shown, "absent": not x}


def moved_columns(points: Sequence[Point], axis: str, first: int = 0, most: int = MOST_POINTS) -> Column:
    """x and y of the share that moved for at most `most` of the points from number `first` on."""
    kept = [first + i for i in thinned(len(points) - first, most=most)]
    return [_short(points[i].place.on(axis)) for i in kept], [digits(points[i].moved) for i in kept]


def held_out(views: Sequence[View], axis: str = "forwards") -> Figure:
    """What held-out examples are judged by: open circles on dev while training, full ones on test before and after."""
    data: list[Trace] = []
    for view in views:
        for split, symbol in (("dev", "circle-open"), ("test", "circle")):
            scores = view.scores(split)
            look = {"line": line(view.method, 2), "marker": {"symbol": symbol, "size": 9, "color": colour(view.method)}}
            x, y = [_short(place.on(axis)) for place, _ in scores], [digits(value) for _, value in scores]
            dev = split == "dev"
            name = f"{title(view.method)}, {split}" if len(views) > 1 else split
            mode = "lines+markers" if dev else "markers"
            seen = any(one["name"] == name and one["showlegend"] for one in data)  # with another seed
            first = not seen and (bool(x) or len(views) == 1)
            shown = {"legendgroup": name, "showlegend": first}
            data.append({"type": "scatter", "mode": mode, "x": x, "y": y, "name": name, **look, **shown})
    score = views[0].score if views else "accuracy"
    figure: Figure = {"data": data, "layout": layout(AXIS_TITLES[axis], held_out_title(views), showlegend=True)}
    if score == "accuracy":
        figure["layout"]["yaxis"] |= {"tickformat": ".0%"}
    if all(0 <= value <= 1 for trace in data for value in trace["y"] if value is not None):
        figure["layout"]["yaxis"] |= {"range": [0, 1.05]}
    return figure


NAMED = {"f1": "F1", "em": "exact match"}


def held_out_title(views: Sequence[View]) -> str:
    """Return what the scores on held-out examples are, in a few words."""
    view = views[0] if views else View()
    source = view.header.config.get("reward") if view.header and view.score == "reward" else None
    of = f": {Path(str(source)).name}" if source else ""
    return f"{score_name(view)}{of}" if of else f"held-out {score_name(view)}"


def score_name(view: View) -> str:
    """Return what a run is judged by, as people read it."""
    return NAMED.get(view.score, view.score)


def estimator(view: View, axis: str = "forwards") -> Figure:
    """Variance of the estimate, and its cosine to the true gradient where that was measured."""
    measured = [(mark.place, mark.event) for mark in view.estimator if isinstance(mark.event, EstimatorMeasured)]
    x = [_short(place.on(axis)) for place, _ in measured]
    hue = colour(view.method)
    data: list[Trace] = [_dots(x, [_short(event.variance) for _, event in measured], "variance", hue, "y", "solid")]
    cosines = [None if event.cosine is None else digits(event.cosine) for _, event in measured]
    shown = layout(AXIS_TITLES[axis], "variance")
    spread = any(event.variance > 0 for _, event in measured)  # none at all has no place on a log axis
    shown["yaxis"] |= {"tickformat": ".1e", "nticks": 4} | ({"type": "log"} if spread else {"range": [-0.05, 1]})
    if any(value is not None for value in cosines):
        data.append(_dots(x, cosines, "cosine to the gradient", "#CC79A7", "y2", "dot"))
        shown["yaxis2"] = _axis("cosine") | {
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "tickformat": ".1e",
            "nticks": 4,
            "rangemode": "tozero",
        }
        shown["margin"] = shown["margin"] | {"r": 64}
    return {"data": data, "layout": shown}


def _dots(x: list[float], y: list[Any], name: str, hue: str, axis: str, dash: str) -> Trace:
    look = {"line": {"color": hue, "width": 2, "dash": dash}, "marker": {"size": 8, "color": hue}}
    return {"type": "scatter", "mode": "lines+markers", "x": x, "y": y, "name": name, "yaxis": axis, **look}


def race(views: Sequence[View], axis: str = "forwards", weight: float = SMOOTHING, band: bool = False) -> Figure:
    """One smoothed line a run, or with `band` one line a method inside the span of its seeds."""
    groups: dict[str, list[View]] = {}
    for view in views:
        groups.setdefault(view.method, []).append(view)
    data: list[Trace] = []
    for method, members in groups.items():
        spread = band and len(members) > 1
        data += _spread(method, members, axis, weight) if spread else _each(method, members, axis, weight)
    return {"data": data, "layout": layout(AXIS_TITLES[axis], "training loss, smoothed")}


def _each(method: str, members: Sequence[View], axis: str, weight: float) -> list[Trace]:
    traces = []
    for number, view in enumerate(members):
        x, y = loss_columns(view.points, axis, weight)[1]
        look = {"line": line(method, 2.5 if number == 0 else 1.2), "showlegend": number == 0, "legendgroup": method}
        traces.append({"type": "scatter", "mode": "lines", "x": x, "y": y, "name": title(method), **look})
    return traces


def _spread(method: str, members: Sequence[View], axis: str, weight: float) -> list[Trace]:
    """The mean over the seeds, and a band from the lowest to the highest."""
    columns = [loss_columns(view.points, axis, weight)[1] for view in members]
    count = min(len(x) for x, _ in columns)
    x = columns[0][0][:count]
    rows = [[v for _, y in columns if (v := y[i]) is not None] for i in range(count)]
    edge = {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": method,
    }
    fill = f"rgba({','.join(str(part) for part in _rgb(colour(method)))},0.18)"
    low = edge | {"y": [_short(min(r)) if r else None for r in rows], "name": f"{title(method)}, lowest"}
    high = edge | {
        "y": [_short(max(r)) if r else None for r in rows],
        "fill": "tonexty",
        "fillcolor": fill,
        "name": f"{title(method)}, highest",
    }
    mean = [_short(sum(r) / len(r)) if r else None for r in rows]
    middle = {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": mean,
        "name": title(method),
        "line": line(method),
        "legendgroup": method,
    }
    return [low, high, middle]


def _rgb(hue: str) -> tuple[int, ...]:
    return tuple(int(hue[i : i + 2], 16) for i in (1, 3, 5)) if hue.startswith("#") else (127, 127, 127)


def themed(figure: Figure, dark: bool | None = False) -> Figure:
    """Return the figure with the colours of a theme filled in, for places that have no style sheet.

    `dark` None takes colours that read on light and dark pages alike, for notebooks.
    """
    look = EITHER if dark is None else DARK if dark else LIGHT
    shown = dict(figure["layout"])
    shown["font"] = shown["font"] | {"color": look["ink"]}
    shown["paper_bgcolor"] = shown["plot_bgcolor"] = look["paper"]
    for axis in [name for name in shown if name.startswith(("xaxis", "yaxis"))]:
        shown[axis] = {"gridcolor": look["grid"]} | shown[axis]
    return {"data": [_inked(trace, look["ink"]) for trace in figure["data"]], "layout": shown}


def _inked(value: Any, ink: str) -> Any:
    if isinstance(value, dict):
        return {name: _inked(part, ink) for name, part in value.items()}
    return ink if value == INK else value


def digits(value: float, count: int = 5) -> float | None:
    """A number to so many digits; what is not finite becomes a gap, which `loss` marks with a cross."""
    return float(f"{float(value):.{count}g}") if math.isfinite(value) else None


def _short(value: float) -> float:
    """Five digits: more are not seen and cost bytes on every tick."""
    return int(value) if float(value).is_integer() else float(f"{value:.5g}")
