"""One step of any zeroth-order method: measure along directions, shape, update one tensor at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from zocore.directions.per_example import Touched
from zocore.noise.addressed import Key
from zocore.step.difference import Central, Difference, Measured
from zocore.step.losses import BACKPROP_COST, AnyDirection, Losses
from zocore.step.samplers import Sampler
from zocore.step.shaping import Mean, Shaping
from zocore.step.update import Gradient, Sgd, State, Update, estimate
from zocore.weights.leaf import Leaf


@dataclass(frozen=True)
class Step:
    """What one step did: enough to do it again without a forward pass, unless `gradient` was true."""

    loss: float  # mean of the losses asked, which for a central difference is close to L(theta)
    measured: Measured | None
    directions: tuple[AnyDirection, ...] = ()
    coefficients: tuple[float, ...] = ()  # empty when the step was skipped
    touched: Touched | None = None
    skipped: bool = False  # a loss was not finite: the weights stayed


class Stepper(Protocol):
    """What the loop needs of a method."""

    @property
    def name(self) -> str:
        """The name it is chosen by."""

    @property
    def per_example(self) -> bool:
        """Whether each example has its own direction."""

    def forward_passes(self) -> int:
        """Forward passes of one step."""

    def forward_cost(self, call: float) -> float:
        """The cost of one step in plain forwards, when a displaced forward costs `call`."""

    def prepared(self, leaves: Sequence[Leaf]) -> "Stepper":
        """Return the method as it holds for these leaves at the start of a run."""

    def step(self, leaves: Sequence[Leaf], losses: Losses, key: Key, lr: float, eps: float, state: State) -> Step:
        """Do one step."""


@dataclass(frozen=True)
class Method:
    """A zeroth-order method as a value composed of parts."""

    name: str
    sampler: Sampler
    difference: Difference = Central()
    shaping: Shaping = Mean()
    update: Update = Sgd()

    def __post_init__(self) -> None:
        if self.sampler.count is not None and self.sampler.count < self.shaping.least:
            raise ValueError(
                f"{type(self.shaping).__name__} shaping and the {self.sampler.count} direction of "
                f"{type(self.sampler).__name__} sampling do not go together: it needs at least {self.shaping.least}"
            )

    @property
    def per_example(self) -> bool:
        """Whether each example has its own direction."""
        return self.sampler.count is None

    def prepared(self, leaves: Sequence[Leaf]) -> "Method":
        """Return the method with its law prepared for the leaves as they are now."""
        return replace(self, sampler=self.sampler.prepared(leaves))

    def step(self, leaves: Sequence[Leaf], losses: Losses, key: Key, lr: float, eps: float, state: State) -> Step:
        """Do one step; a non-finite loss skips the update. Raises what a forward raises, weights unmoved."""
        directions = tuple(self.sampler(key, losses, eps))  # which way; may ask losses to choose
        measured = self.difference(losses, directions, eps)  # forward passes -> what they told us
        if not measured.finite:
            return Step(_mean_loss(measured), measured, directions, skipped=True)
        coefficients = tuple(self.shaping(measured).tolist())  # one per direction, or per example
        touched = losses.touched
        self.apply(leaves, directions, coefficients, touched, key, lr, state)
        return Step(_mean_loss(measured), measured, directions, coefficients, touched)

    def apply(
        self,
        leaves: Sequence[Leaf],
        directions: Sequence[AnyDirection],
        coefficients: Sequence[float],
        touched: Touched | None,
        key: Key,
        lr: float,
        state: State,
    ) -> None:
        """Update every leaf along g = sum_k c_k z_k, z made again from its address: live and in a replay."""
        g = estimate(directions, coefficients, touched)
        with torch.no_grad():
            for leaf in leaves:
                self.update(leaf, g, lr, key, state)

    def forward_passes(self) -> int:
        """Forward passes of one step."""
        return self.sampler.passes() + self.difference.passes(self.sampler.count or 1)

    def forward_cost(self, call: float) -> float:
        """Every pass at the cost of a displaced one."""
        return call * self.forward_passes()


@dataclass(frozen=True)
class Backprop:
    """The reference: the true gradient of the mean loss. The only method that builds a gradient whole."""

    name: str
    update: Update
    per_example = False

    def prepared(self, leaves: Sequence[Leaf]) -> "Backprop":
        """Nothing depends on the leaves."""
        return self

    def step(self, leaves: Sequence[Leaf], losses: Losses, key: Key, lr: float, eps: float, state: State) -> Step:
        """Do one step of backprop; `eps` is unused."""
        values, gradients = losses.gradient()
        loss = float(values.double().mean())
        if not all(bool(torch.isfinite(t).all()) for t in (values, *gradients.values())):
            return Step(loss, None, skipped=True)
        g = Gradient(gradients)
        with torch.no_grad():
            for leaf in leaves:
                self.update(leaf, g, lr, key, state)
        return Step(loss, None)

    def forward_passes(self) -> int:
        """One forward; its backward is in the cost."""
        return 1

    def forward_cost(self, call: float) -> float:
        """A forward and a backward."""
        return BACKPROP_COST


def _mean_loss(measured: Measured) -> float:
    both: Tensor = torch.cat([measured.plus, measured.minus])
    return float(both.mean())
