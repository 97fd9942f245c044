"""Measuring the estimator itself: many estimates at the same weights and batch, and the true gradient.

One tensor is built at a time and no weight moves. What to expect: with n shared
directions in d dimensions the root mean square cosine is about sqrt(n / d), with one direction per example
about sqrt(B_eff / d), B_eff = c B + 1 - c for a mean pairwise cosine c of the examples' gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor

from zocore.noise.addressed import Key
from zocore.step.losses import Losses
from zocore.step.step import Stepper
from zocore.step.update import Estimate, State
from zocore.weights.leaf import Leaf

STRIDE = 2**16  # directions between two estimates of one step's key: more than any method draws


@dataclass(frozen=True)
class Reading:
    """What K estimates at one point show about the estimator."""

    estimates: int
    variance: float  # trace of the covariance of g
    norm: float  # root mean square length of g
    cosine: float | None  # root mean square cosine to the true gradient
    norm_ratio: float | None  # norm over the true gradient's length
    forward_passes: int


def measure(
    method: Stepper,
    leaves: Sequence[Leaf],
    losses: Losses,
    key: Key,
    eps: float,
    state: State | None = None,
    *,
    count: int = 8,
    backprop: bool = True,
) -> Reading | None:
    """Return the reading over `count` fresh estimates, or None when a loss was not finite.

    `losses` must not be the step's own: its forward passes are counted apart. Raises what a forward raises.
    """
    drawn = []
    for k in range(count):
        drawn.append(method.propose(losses, replace(key, direction=(k + 1) * STRIDE), eps, state or {}))
        losses.forget()
    estimates = [g for g in drawn if g is not None]
    if len(estimates) < count:
        return None
    truth = _truth(losses) if backprop else None
    sums = [_on_leaf(estimates, leaf, None if truth is None else truth[leaf.id]) for leaf in leaves]
    squares, mean_square, inner, true_square = (torch.stack(parts).sum(0) for parts in zip(*sums, strict=True))
    variance = float(squares.sum() - count * mean_square) / (count - 1)
    norm = sqrt(float(squares.mean()))
    length = sqrt(float(true_square))
    has_gradient = truth is not None and length > 0
    cosine = sqrt(float((inner.square() / squares.clamp(min=1e-300)).mean())) / length if has_gradient else None
    return Reading(count, variance, norm, cosine, norm / length if has_gradient else None, losses.forward_passes)


def _truth(losses: Losses) -> dict[int, Tensor] | None:
    """The true gradient, or None when backprop does not fit: the run goes on without it."""
    try:
        return losses.gradient()[1]
    except (torch.OutOfMemoryError, MemoryError):
        return None


def _on_leaf(estimates: Sequence[Estimate], leaf: Leaf, truth: Tensor | None) -> tuple[Tensor, ...]:
    """|g_k|^2 (K,), |mean g|^2, g_k . truth (K,) and |truth|^2 of one leaf, in float64."""
    nothing = torch.zeros(leaf.matrix.shape, device=leaf.tensor.device)
    total = nothing.double().cpu().reshape(-1)  # in float32, estimates that are all the same would seem to vary
    flat = torch.zeros(nothing.numel()) if truth is None else truth.reshape(-1).double().cpu()
    squares, inner = [], []
    for g in estimates:
        now = torch.zeros_like(nothing)
        g.displace(now, now, leaf, 1.0)
        values = now.reshape(-1).double().cpu()
        total += values
        squares.append(values @ values)
        inner.append(values @ flat.double())
    mean = total / len(estimates)
    return torch.stack(squares), mean @ mean, torch.stack(inner), (flat.double() @ flat.double())
