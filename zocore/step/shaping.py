"""From what was measured to one coefficient per direction: the step is theta -= lr * sum_k c_k z_k."""

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from zocore.step.difference import Measured

TINY = 1e-8  # GRZO's epsilon: keeps an all-zero group at zero


class Shaping(Protocol):
    """Turns K measurements into K coefficients, float64."""

    @property
    def least(self) -> int:
        """The fewest measurements it works with."""

    @property
    def follows_slope(self) -> bool:
        """Whether coefficients grow with the measured slopes; if not, lr alone sets the length of a step."""

    def __call__(self, measured: Measured) -> Tensor:
        """Return the coefficients (K,)."""


@dataclass(frozen=True)
class Mean:
    """c_k = d_k / K: the plain average of the estimates d_k z_k."""

    least = 1
    follows_slope = True

    def __call__(self, measured: Measured) -> Tensor:
        """Return the projected gradients over their number."""
        return measured.projected_grad / len(measured.projected_grad)


@dataclass(frozen=True)
class Clip:
    """d_k -> clip(d_k, -C, C), then another shaping: QZO's directional-derivative clipping (arXiv 2505.13430).

    The clipped estimate keeps its direction and is shorter by erf(C / (sqrt(2) |g|)); it is not unbiased, as
    the paper's Theorem 1 says. A non-finite d never gets here: the step is skipped, where the authors'
    `min(max(-C, nan), C)` takes a full step.
    """

    threshold: float = 100.0
    then: Shaping = Mean()

    @property
    def least(self) -> int:
        """As many as what follows."""
        return self.then.least

    @property
    def follows_slope(self) -> bool:
        """As what follows."""
        return self.then.follows_slope

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(f"the clipping threshold must be above 0, not {self.threshold}")

    def __call__(self, measured: Measured) -> Tensor:
        """Return the coefficients of the clipped measurements."""
        clipped = measured.projected_grad.clamp(-self.threshold, self.threshold)
        return self.then(replace(measured, projected_grad=clipped))


@dataclass(frozen=True)
class Normalise:
    """c_k = d_k / (scale(d) K), with the numerator not centred, so the step's length is set by lr alone.

    `rms` divides by sqrt(mean d^2): sum (K c)^2 = K always, and K = 1 gives the sign of d. `std` divides by the
    standard deviation about the mean (divisor K - 1), as GRZO (arXiv 2606.02857) and FZOO (2506.09034) are
    published; with few directions it is heavy-tailed. lr is the length of a step,
    whatever eps: the papers' lr over 2 eps for GRZO's central difference and over eps for FZOO's one-sided one.
    """

    by: Literal["rms", "std"] = "rms"
    floor: float = 0.0  # smallest scale: below it the step shrinks with d, so rounding noise is not blown up
    follows_slope = False

    @property
    def least(self) -> int:
        """A deviation needs two."""
        return 2 if self.by == "std" else 1

    def __call__(self, measured: Measured) -> Tensor:
        """Return the normalised coefficients. Raises ValueError for the std of a single measurement."""
        d = measured.projected_grad
        if self.by == "std" and len(d) < 2:
            raise ValueError("scaling by the standard deviation and a single direction or example do not go together")
        scale = d.std() if self.by == "std" else d.square().mean().sqrt()
        return d / ((scale.clamp(min=self.floor) + TINY) * len(d))


@dataclass(frozen=True)
class CentredRank:
    """OpenAI-ES's fitness shaping (arXiv 1703.03864): losses replaced by their ranks in [-1/2, 1/2]."""

    least = 2
    follows_slope = False

    def __call__(self, measured: Measured) -> Tensor:
        """Return (rank(plus_k) - rank(minus_k)) / (2 K); equal losses share their mean rank, so a plateau gives 0."""
        count = len(measured.plus)
        losses = torch.cat([measured.plus, measured.minus])
        below, above = (losses < losses[:, None]).sum(1), (losses > losses[:, None]).sum(1)
        ranks = (below - above).double() / 2 / (2 * count - 1)
        return (ranks[:count] - ranks[count:]) / (2 * count)
