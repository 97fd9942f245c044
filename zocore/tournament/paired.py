"""Two entries compared seed by seed: the mean difference of their losses and how sure it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import cos, gamma, inf, pi, sqrt, tan
from statistics import fmean, stdev

LEVEL = 0.95
PANELS = 400


@dataclass(frozen=True)
class Paired:
    """The mean difference of losses, first minus second, and its interval at `LEVEL`."""

    seeds: int
    mean: float
    low: float
    high: float

    @property
    def says(self) -> str:
        """Which of the two is better, if that can be said."""
        if self.seeds < 2:
            return "one seed" if self.seeds else "no seed in common"
        return "better" if self.high < 0 else "worse" if self.low > 0 else "no clear winner"


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> Paired:
    """Return the comparison of two entries' losses by seed, on the seeds that both have."""
    differences = [one[seed] - other[seed] for seed in one if seed in other]
    if not differences:
        return Paired(0, float("nan"), -inf, inf)
    mean = fmean(differences)
    if len(differences) == 1:
        return Paired(1, mean, -inf, inf)
    half = t_quantile((1 + LEVEL) / 2, len(differences) - 1) * stdev(differences) / sqrt(len(differences))
    return Paired(len(differences), mean, mean - half, mean + half)


@cache
def t_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t, for a probability of at least a half."""
    low, high = 0.0, pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _distribution(angle, freedom) < probability else (low, angle)
    return sqrt(freedom) * tan(low)


def _distribution(angle: float, freedom: int) -> float:
    """The chance of t below sqrt(freedom) tan(angle): with that substitution the density is a power of the cosine."""
    scale = gamma((freedom + 1) / 2) / (gamma(freedom / 2) * sqrt(pi))
    step = angle / PANELS
    weights = (1 if place in (0, PANELS) else 4 if place % 2 else 2 for place in range(PANELS + 1))  # Simpson's
    return 0.5 + scale * step / 3 * sum(w * cos(place * step) ** (freedom - 1) for place, w in enumerate(weights))
