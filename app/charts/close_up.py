"""What the microscope found, as figures: the loss along z, the slope each eps finds, and estimates against theory."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.charts import plots
from zocore.diagnostics import alignment, loss_slices
from zocore.methods import build

EPS = [10 ** (k / 6) for k in range(-36, 1)]  # six a decade, from 1e-6 to 1


@dataclass(frozen=True)
class Look:
    """What was asked along one direction: every eps at once, so that the slider needs no forward pass."""

    base: float
    slope: float | None
    found: tuple[loss_slices.Secant, ...]
    name: str

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "Look":
        """Return what was asked, from its plain values."""
        found = tuple(loss_slices.Secant(**one) for one in facts["found"])
        return cls(facts["base"], facts["slope"], found, facts["name"])


def slice_figure(look: Look, chosen: loss_slices.Secant) -> plots.Figure:
    """The loss along z near the probes, the secant through them and the tangent."""
    near = [one for one in look.found if one.eps <= 1.8 * chosen.eps]
    x = [-one.eps for one in reversed(near)] + [0.0] + [one.eps for one in near]
    y = [one.minus for one in reversed(near)] + [look.base] + [one.plus for one in near]
    hue = plots.colour(look.name)
    ends = [-1.7 * chosen.eps, 1.7 * chosen.eps]
    middle = (chosen.plus + chosen.minus) / 2
    data = [
        _trace(x, y, "loss", "lines+markers", {"color": plots.INK, "width": 2}, {"size": 4, "color": plots.INK}),
        _trace(
            ends,
            [middle + chosen.slope * e for e in ends],
            "secant: what the step believes",
            "lines",
            {"color": hue, "width": 2.5, "dash": "dash"},
        ),
        _trace(
            [-chosen.eps, chosen.eps],
            [chosen.minus, chosen.plus],
            "the two probes",
            "markers",
            None,
            {"size": 12, "color": hue},
        ),
    ]
    if look.slope is not None:
        data.append(
            _trace(
                ends,
                [look.base + look.slope * e for e in ends],
                "true slope",
                "lines",
                {"color": "#009E73", "width": 2, "dash": "dot"},
            )
        )
    along = "noise on the outputs" if build(look.name).pushes else "z"
    shown = plots.layout(f"offset along {along}, eps = {chosen.eps:.2g}", "loss of the batch")
    shown["xaxis"] |= {"tickformat": ".0e", "nticks": 5, "tickangle": 0}
    shown["yaxis"] |= {"tickformat": ".8~g", "hoverformat": ".8g"}
    return {"data": data, "layout": shown | {"uirevision": f"{chosen.eps}"}}


def bias_figure(look: Look, chosen: loss_slices.Secant) -> plots.Figure:
    """The slope found at every eps, with the true one."""
    x, y = [one.eps for one in look.found], [one.slope for one in look.found]
    hue = plots.colour(look.name)
    data = [
        _trace(x, y, "slope found", "lines+markers", {"color": hue, "width": 2}, {"size": 5, "color": hue}),
        _trace(
            [chosen.eps],
            [chosen.slope],
            f"eps {chosen.eps:.2g}: {chosen.slope:.4g}",
            "markers",
            None,
            {"size": 13, "color": hue},
        ),
    ]
    if look.slope is not None:
        data.append(
            _trace(
                [x[0], x[-1]],
                [look.slope] * 2,
                f"true slope {look.slope:.4g}",
                "lines",
                {"color": "#009E73", "width": 2, "dash": "dot"},
            )
        )
    shown = plots.layout("eps", "slope along the noise" if build(look.name).pushes else "z · gradient")
    shown["xaxis"] |= {"type": "log", "tickformat": ".0e"}
    centre = look.slope if look.slope is not None else sorted(y)[len(y) // 2]
    reach = max(3 * abs(centre), 1.5 * abs(chosen.slope - centre), 0.1)
    shown["yaxis"] |= {"range": [centre - reach, centre + reach]}
    return {"data": data, "layout": shown}


def alignment_figure(found: alignment.Alignment) -> plots.Figure:
    """Cosine and variance against the number of directions, with theory."""
    first = found.variance[0]
    data = [
        _trace(found.counts, found.cosine, "cosine, measured", "markers", None, {"size": 10, "color": "#0072B2"}),
        _trace(
            found.counts, found.theory(), "cosine, theory", "lines", {"color": "#0072B2", "width": 2, "dash": "dash"}
        ),
        _trace(
            found.counts,
            found.variance,
            "variance, measured",
            "markers",
            None,
            {"size": 9, "color": "#D55E00", "symbol": "square"},
        )
        | {"yaxis": "y2"},
        _trace(
            found.counts,
            [first / n for n in found.counts],
            "variance, 1/n",
            "lines",
            {"color": "#D55E00", "width": 2, "dash": "dot"},
        )
        | {"yaxis": "y2"},
    ]
    shown = plots.layout(f"directions n, in d = {found.dimension:,} dimensions", "cosine")
    shown["xaxis"] |= {"type": "log", "tickvals": found.counts}
    shown["yaxis"] |= {"type": "log", "tickformat": ".0e", "nticks": 4}
    shown["yaxis2"] = {
        "title": {"text": "variance", "font": {"size": 12}},
        "type": "log",
        "overlaying": "y",
        "side": "right",
        "showgrid": False,
        "tickformat": ".0e",
        "nticks": 4,
    }
    shown["margin"] = shown["margin"] | {"r": 64}
    return {"data": data, "layout": shown}


def law_figure(found: alignment.BatchLaw) -> plots.Figure:
    """GRZO's cosine against the batch size, with the law and what one shared direction would have."""
    one = 1 / math.sqrt(found.dimension)
    data = [
        _trace(
            found.sizes, found.cosine, "GRZO, measured", "markers", None, {"size": 10, "color": plots.colour("grzo")}
        ),
        _trace(
            found.sizes,
            found.theory(),
            f"law, c = {found.similarity + 0.0:.2f}",
            "lines",
            {"color": plots.colour("grzo"), "width": 2, "dash": "dash"},
        ),
        _trace(
            found.sizes,
            [one] * len(found.sizes),
            "one shared direction (MeZO)",
            "lines",
            {"color": plots.colour("mezo"), "width": 2, "dash": "dot"},
        ),
    ]
    shown = plots.layout("examples in the batch, B", "cosine to the gradient")
    shown["xaxis"] |= {"type": "log", "tickvals": found.sizes}
    shown["yaxis"] |= {"tickformat": ".1e", "rangemode": "tozero"}
    return {"data": data, "layout": shown}


def _trace(x: Any, y: Any, name: str, mode: str, line: Any = None, marker: Any = None) -> plots.Trace:
    look = {key: value for key, value in (("line", line), ("marker", marker)) if value}
    return {
        "type": "scatter",
        "x": [plots.digits(v) for v in x],
        "y": [plots.digits(v, 9) for v in y],
        "name": name,
        "mode": mode,
        **look,
    }
