"""Which directions a step measures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from zocore.directions.laws import Combination, Direction, Gaussian, Law, Rademacher
from zocore.directions.per_example import PerExample
from zocore.directions.pushes import Pushes, Tie
from zocore.noise.addressed import Key
from zocore.step.losses import AnyDirection, Losses
from zocore.weights.leaf import Leaf


class Sampler(Protocol):
    """Chooses the directions of one step, and may spend forward passes to do so."""

    @property
    def law(self) -> Law:
        """The law that directions are drawn from."""

    @property
    def count(self) -> int | None:
        """Measurements a step will have; None when there is one per example."""

    @property
    def draws(self) -> int:
        """Directions a step asks points along."""

    @property
    def pushes(self) -> Tie | None:
        """Which tokens share a push, where outputs are moved in place of weights; None for weights."""

    def __call__(self, key: Key, losses: Losses, eps: float) -> Sequence[AnyDirection]:
        """Return the directions to measure; the weights are left as they were."""

    def passes(self) -> int:
        """Forward passes spent on choosing."""

    def prepared(self, leaves: Sequence[Leaf]) -> "Sampler":
        """Return the sampler with its law prepared for the leaves."""


@dataclass(frozen=True)
class Fresh:
    """n independent directions, numbered 0 to n - 1 within the step."""

    count: int = 1
    law: Law = Gaussian()
    pushes = None

    @property
    def draws(self) -> int:
        """As many as there are directions."""
        return self.count

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a step needs at least 1 direction, not {self.count}")

    def __call__(self, key: Key, losses: Losses, eps: float) -> list[AnyDirection]:
        """Return the n directions; no forward is spent."""
        return [Direction(replace(key, direction=key.direction + number), self.law) for number in range(self.count)]

    def passes(self) -> int:
        """None."""
        return 0

    def prepared(self, leaves: Sequence[Leaf]) -> "Fresh":
        """Prepare the law."""
        return replace(self, law=self.law.prepared(leaves))


@dataclass(frozen=True)
class OnePerExample:
    """One pseudo-independent direction for each example of the batch (GRZO, arXiv 2606.02857)."""

    law: Law = Gaussian()
    count = None
    draws = 1
    pushes = None

    def __call__(self, key: Key, losses: Losses, eps: float) -> list[AnyDirection]:
        """Return the batch's directions as one; no forward is spent."""
        return [PerExample(key, self.law, losses.count)]

    def passes(self) -> int:
        """None."""
        return 0

    def prepared(self, leaves: Sequence[Leaf]) -> "OnePerExample":
        """Prepare the law."""
        return replace(self, law=self.law.prepared(leaves))


@dataclass(frozen=True)
class OnOutputs:
    """K pushes on the outputs of linear layers, each row's own: activity perturbation (arXiv 2210.03310)."""

    draws: int = 2
    pushes: Tie = "tokens"
    law: Law = Rademacher()
    count = None

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"a step needs at least 1 direction, not {self.draws}")

    def __call__(self, key: Key, losses: Losses, eps: float) -> list[AnyDirection]:
        """Return the K pushes; no forward is spent."""
        return [Pushes(replace(key, direction=key.direction + number), self.pushes) for number in range(self.draws)]

    def passes(self) -> int:
        """None: pushes are drawn blind."""
        return 0

    def prepared(self, leaves: Sequence[Leaf]) -> "OnOutputs":
        """Nothing depends on the leaves."""
        return self


@dataclass(frozen=True)
class Guided:
    """Draw a pool, evaluate the loss at +eps along each candidate, and build one direction from the ranking.

    (MeZO-GV and MeZO-Greedy, arXiv 2601.04710.) `share` of the pool is the elite. GV's direction is the mean
    of the elite less the mean of the rest, not normalised, as the paper has it: its variance per coordinate is
    w = 1/|elite| + 1/|rest|, so the probe sits at eps sqrt(w) and the step is that of lr w. Greedy takes the
    candidate of lowest loss. A pool of 2 is MeZO at twice the price: swapping the two only turns v into -v.
    The authors' default trainer rebuilds v from seeds per tensor and so updates along another vector.
    """

    pool: int = 4
    share: float = 0.5
    greedy: bool = False
    reuse: bool = True  # take the pool's loss of the greedy candidate as its loss at +eps: one forward less
    law: Law = Gaussian()
    count = 1
    draws = 1
    pushes = None

    def __post_init__(self) -> None:
        if self.pool < 2:
            raise ValueError(f"a guided direction needs a pool of at least 2 candidates, not {self.pool}")
        if not self.greedy and not 1 <= self.elite < self.pool:
            raise ValueError(
                f"an elite share of {self.share} of a pool of {self.pool} leaves the elite or the rest empty: "
                "floor(share * pool) must be from 1 to pool - 1"
            )

    @property
    def elite(self) -> int:
        """floor(share * pool) candidates."""
        return int(self.share * self.pool + 1e-9)  # 0.29 * 100 is a hair below 29

    def __call__(self, key: Key, losses: Losses, eps: float) -> list[AnyDirection]:
        """Spend `pool` forwards and return one direction."""
        candidates = [
            Direction(replace(key, direction=key.direction + number), self.law) for number in range(self.pool)
        ]
        # ties go to the earlier candidate: the sort is stable
        asked = dict(zip(candidates, _probe(losses, candidates, eps), strict=True))
        ranked = sorted(candidates, key=asked.__getitem__)
        if not (self.greedy and self.reuse):
            losses.forget()
        return [ranked[0]] if self.greedy else [self._contrast(ranked)]

    def passes(self) -> int:
        """The pool, less the one forward that greedy reuses."""
        return self.pool - (self.greedy and self.reuse)

    def prepared(self, leaves: Sequence[Leaf]) -> "Guided":
        """Prepare the law."""
        return replace(self, law=self.law.prepared(leaves))

    def _contrast(self, ranked: list[Direction]) -> Combination:
        best, rest = 1 / self.elite, -1 / (self.pool - self.elite)
        weights = [best if place < self.elite else rest for place in range(self.pool)]
        return Combination(tuple(zip(weights, ranked, strict=True)))


def _probe(losses: Losses, candidates: Sequence[Direction], eps: float) -> list[float]:
    """The candidates' mean losses at +eps, fetched at once after the last forward."""
    losses_at = []
    for candidate in candidates:
        with losses.along(candidate) as at:
            losses_at.append(at(+eps))
    means = [float(loss.mean()) for loss in torch.stack(losses_at).cpu().double()]
    return [mean if mean == mean else float("inf") for mean in means]  # NaN has no rank: such a candidate comes last
