"""One rule for every method's rate: a few a factor 3 apart, more while the best lies on an edge, chosen on dev."""

from collections.abc import Mapping, Sequence
from math import exp, inf, isfinite, log
from statistics import fmean

FACTOR = 3.0


def rate(middle: float, place: int) -> float:
    """Return the rate `place` factors above the middle one, to three digits, so that the same is always the same."""
    return float(f"{middle * FACTOR**place:.3g}")


def asked(middle: float, losses: Mapping[float, float], first: int, most: int) -> list[float]:
    """Return the rates still to be tried, given the dev losses of those that were; none when the search is over.

    First come `first` rates around `middle`. Then one more beyond the edge on which the best lies, until it lies
    inside or `most` rates were tried. A run that failed has an infinite loss; if all did, lower rates are tried.
    """
    if len(losses) < first:
        around = (rate(middle, place) for place in range(-(first // 2), first - first // 2))
        return [lr for lr in around if lr not in losses]
    lowest, highest = min(losses), max(losses)
    best = chosen(losses)
    if len(losses) >= most or best not in (None, lowest, highest):
        return []
    return [rate(highest, 1) if best == highest else rate(lowest, -1)]


def chosen(losses: Mapping[float, float]) -> float | None:
    """Return the rate of least dev loss, the smaller one of equals; None when every run failed."""
    finite = {lr: loss for lr, loss in losses.items() if isfinite(loss)}
    return min(sorted(finite), key=lambda lr: finite.get(lr, inf), default=None)


def carried(rates: Sequence[float]) -> float:
    """Return the rate for a task that none was found on: the geometric mean of those found elsewhere."""
    return float(f"{exp(fmean(map(log, rates))):.3g}")
