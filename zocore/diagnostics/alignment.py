"""How far estimates are from the true gradient: against the number of directions, and against the size of the batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor

from zocore.data.tasks import Example
from zocore.diagnostics.loss_slices import FIRST, direction
from zocore.directions.laws import Direction
from zocore.directions.per_example import PerExample
from zocore.runs.estimator import STRIDE
from zocore.runs.session import Session
from zocore.step.losses import Losses
from zocore.step.update import estimate
from zocore.weights.leaf import Leaf

Sums = dict[int, Tensor]


@dataclass(frozen=True)
class Alignment:
    """Estimates of a growing number of directions against the true gradient."""

    counts: list[int]
    cosine: list[float]  # root mean square over the repeats
    variance: list[float]  # trace of the covariance
    dimension: int

    def theory(self) -> list[float]:
        """sqrt(n / (n + d + 1)): the expected cosine for n Gaussian directions in d dimensions."""
        return [sqrt(n / (n + self.dimension + 1)) for n in self.counts]


@dataclass(frozen=True)
class BatchLaw:
    """One direction per example against the size of the batch."""

    sizes: list[int]
    cosine: list[float]
    effective: list[float]  # B_eff = B |mean g_i|^2 / mean |g_i|^2 of the examples' gradients, for each size
    dimension: int

    @property
    def similarity(self) -> float:
        """c of B_eff = c B + 1 - c at the largest size: the mean pairwise cosine where the norms are equal."""
        return (self.effective[-1] - 1) / (self.sizes[-1] - 1)

    def theory(self) -> list[float]:
        """Root mean square cosine sqrt((B_eff + 1 - B_eff / B) / d), for gradients of equal norm and large d.

        The paper's sqrt(B_eff / d) is its limit for large B_eff; the rest is what a direction
        measures even where the examples disagree, and gives MeZO's sqrt(1 / d) for B = 1.
        """
        pairs = zip(self.effective, self.sizes, strict=True)
        return [sqrt((e + 1 - e / b) / self.dimension) for e, b in pairs]


def alignment(session: Session, counts: Sequence[int], repeats: int = 2) -> Alignment:
    """Measure the mean of n one-direction estimates against the gradient, for each n.

    `repeats` times the largest n directions are drawn once and cut into disjoint groups of each size.
    """
    eps, losses = session.config.eps or 1e-3, session.losses(1)
    truth = losses.gradient()[1]
    along = [direction(session, k) for k in range(repeats * max(counts))]
    slopes = [_slope(losses, one, eps) for one in along]
    inner = {n: torch.zeros(len(along) // n, dtype=torch.float64) for n in counts}  # g . truth of each group
    square = {n: torch.zeros(len(along) // n, dtype=torch.float64) for n in counts}  # |g|^2 of each group
    for leaf in session.leaves:
        _group(leaf, along, slopes, truth[leaf.id], inner, square)
    length = sum(float(t.double().square().sum()) for t in truth.values())
    cosine = [sqrt(float((inner[n].square() / square[n].clamp(min=1e-300)).mean()) / length) for n in counts]
    variance = [max(0.0, float(square[n].mean()) - length) for n in counts]
    return Alignment(list(counts), cosine, variance, session.trainable)


def _slope(losses: Losses, along: Direction, eps: float) -> float:
    with losses.along(along) as at:
        slope = float((at(eps).double().mean() - at(-eps).double().mean()) / (2 * eps))
    losses.forget()
    return slope


def _group(
    leaf: Leaf, along: Sequence[Direction], slopes: Sequence[float], truth: Tensor, inner: Sums, square: Sums
) -> None:
    """Add one leaf's part of every group's products; each direction is drawn once for all group sizes."""
    target = truth.reshape(leaf.matrix.shape)
    sums = {n: torch.zeros(leaf.matrix.shape) for n in inner}
    for k, (one, slope) in enumerate(zip(along, slopes, strict=True)):
        term = torch.zeros(leaf.matrix.shape)
        one.displace(term, term, leaf, slope)
        for n, total in sums.items():
            total += term
            if (k + 1) % n == 0 and k // n < len(inner[n]):
                inner[n][k // n] += float((total * target).sum(dtype=torch.float64)) / n
                square[n][k // n] += float(total.square().sum(dtype=torch.float64)) / n**2
                total.zero_()


def batch_law(session: Session, sizes: Sequence[int], repeats: int = 8) -> BatchLaw:
    """Measure GRZO's unshaped estimate against the batch's gradient, for each size of the batch."""
    if session.flipout is None:
        raise ValueError("the batch law needs a method with one direction for each example: choose GRZO")
    examples = session.examples(1)
    cosines = [_of_batch(session, examples[:size], repeats) for size in sizes]
    return BatchLaw(list(sizes), cosines, _effective(session, sizes), session.trainable)


def _of_batch(session: Session, examples: Sequence[Example], repeats: int) -> float:
    losses, eps = session.losses_of(examples), session.config.eps or 1e-3
    truth = losses.gradient()[1]
    length = sum(float(t.double().square().sum()) for t in truth.values())
    squares = 0.0
    for repeat in range(repeats):
        key = replace(session.key(FIRST), direction=(repeat + 1) * STRIDE)
        one = PerExample(key, direction(session).law, len(examples))
        with losses.along(one) as at:
            slopes = (at(eps).double() - at(-eps).double()) / (2 * eps)
        g = estimate((one,), tuple((slopes / len(examples)).tolist()), losses.touched)
        losses.forget()
        inner = square = 0.0
        for leaf in session.leaves:
            now = torch.zeros(leaf.matrix.shape)
            g.displace(now, now, leaf, 1.0)
            inner += float((now.double() * truth[leaf.id].reshape(now.shape).double()).sum())
            square += float(now.double().square().sum())
        squares += inner * inner / max(square, 1e-300) / length
    return sqrt(squares / repeats)


def _effective(session: Session, sizes: Sequence[int]) -> list[float]:
    """B |mean g_i|^2 / mean |g_i|^2 of the first B examples, for each B."""
    total: dict[int, torch.Tensor] = {}
    lengths, effective = 0.0, {}
    for count, example in enumerate(session.examples(1)[: max(sizes)], 1):
        for name, tensor in session.losses_of([example]).gradient()[1].items():
            lengths += float(tensor.double().square().sum())
            total[name] = total.get(name, torch.zeros_like(tensor)) + tensor
        effective[count] = sum(float(t.double().square().sum()) for t in total.values()) / max(lengths, 1e-300)
    return [effective[size] for size in sizes]
