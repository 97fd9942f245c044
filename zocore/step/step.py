"""One step of any zeroth-order method: measure along directions, shape, update one tensor at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from zocore.carriers.outputs import Seen
from zocore.directions.laws import Gaussian, Law
from zocore.directions.per_example import Touched
from zocore.directions.pushes import Tie
from zocore.noise.addressed import Key
from zocore.step.difference import Central, Difference, Measured
from zocore.step.losses import AnyDirection, Losses, Trace
from zocore.step.readout import Head
from zocore.step.samplers import Sampler
from zocore.step.shaping import Mean, Shaping
from zocore.step.update import Estimate, Gradient, Sgd, State, Update, estimate, small_ones
from zocore.weights.leaf import Leaf


@dataclass(frozen=True)
class Step:
    """What one step did: enough to do it again, for methods on weights without a forward pass."""

    loss: float  # mean of the losses evaluated, which for a central difference is close to L(theta)
    measured: Measured | None
    directions: tuple[AnyDirection, ...] = ()
    coefficients: tuple[float, ...] = ()  # empty when the step was skipped
    touched: Touched | None = None
    skipped: bool = False  # a loss was not finite: the weights stayed
    responses: Tensor | None = None  # (K, B, L): how the label scores answered each push, for feedback onto scores
    unexplained: float | None = None  # share of the responses that the learned feedback did not foresee


@dataclass(frozen=True)
class Recorded:
    """What a recording keeps of a step that moved the weights."""

    lr: float
    directions: tuple[AnyDirection, ...]
    coefficients: tuple[float, ...] = ()
    touched: Touched | None = None
    responses: Tensor | None = None
    eps: float = 0.0  # distance of the probes, for methods that ask them again


class Stepper(Protocol):
    """What the loop needs of a method."""

    @property
    def name(self) -> str:
        """The name it is chosen by."""

    @property
    def per_example(self) -> bool:
        """Whether each example has its own direction in the weights."""

    @property
    def pushes(self) -> Tie | None:
        """Which tokens share a push, where outputs are moved in place of weights; None for weights."""

    @property
    def law(self) -> Law:
        """What its directions in the weights are made of; normals where it draws none."""

    @property
    def zeroth_order(self) -> bool:
        """Whether it takes no gradient: its steps can be measured, traced and done again from a recording."""

    @property
    def reads_errors(self) -> bool:
        """Whether it reads the derivative of each example's value in its label scores."""

    def replay_passes(self, steps: int = 1) -> int:
        """Forward passes that doing the first `steps` recorded steps again takes; any needs the step's batch."""

    def forward_passes(self, steps: int = 1) -> int:
        """Forward passes of the first `steps` steps."""

    def forward_cost(self, call: float, steps: int = 1) -> float:
        """The cost of as many in plain forwards, when a call of the oracle (displaced, or a gradient) costs `call`."""

    def prepared(self, leaves: Sequence[Leaf], head: Head | None = None) -> "Stepper":
        """Return the method made ready for these leaves, and a known head over them, at the start of a run."""

    def step(self, leaves: Sequence[Leaf], losses: Losses, key: Key, lr: float, eps: float, state: State) -> Step:
        """Do step `key.step` with learning rate `lr` and probe distance `eps`; `state` holds the update's buffers."""

    def propose(self, losses: Losses, key: Key, eps: float, state: State) -> Estimate | None:
        """Return a step's estimate of the gradient without doing the step; None when a loss was not finite."""

    def replay(
        self, leaves: Sequence[Leaf], recorded: Recorded, losses: Callable[[], Losses], key: Key, state: State
    ) -> None:
        """Do a recorded step again; `losses` makes the oracle of its batch, for methods that ask it."""


@dataclass(frozen=True)
class Method:
    """A zeroth-order method as a value composed of parts."""

    name: str
    sampler: Sampler
    difference: Difference = Central()
    shaping: Shaping = Mean()
    update: Update = Sgd()
    zeroth_order = True
    reads_errors = False

    def __post_init__(self) -> None:
        if self.sampler.count is not None and self.sampler.count < self.shaping.least:
            raise ValueError(
                f"{type(self.shaping).__name__} shaping and the {self.sampler.count} direction of "
                f"{type(self.sampler).__name__} sampling do not go together: it needs at least {self.shaping.least}"
            )

    @property
    def per_example(self) -> bool:
        """Whether each example has its own direction in the weights."""
        return self.sampler.count is None and self.pushes is None

    @property
    def pushes(self) -> Tie | None:
        """As its sampler draws."""
        return self.sampler.pushes

    @property
    def law(self) -> Law:
        """As its sampler draws."""
        return self.sampler.law

    def prepared(self, leaves: Sequence[Leaf], head: Head | None = None) -> "Method":
        """Return the method with its law prepared for the leaves as they are now."""
        return replace(self, sampler=self.sampler.prepared(leaves))

    def step(self, leaves: Sequence[Leaf], losses: Losses, key: Key, lr: float, eps: float, state: State) -> Step:
        """Do one step; a non-finite loss skips the update. Raises what a forward raises, weights unmoved."""
        done, trace = self.ask(losses, key, eps)
        if not done.skipped:
            self.apply(leaves, done.directions, done.coefficients, trace, key, lr, state)
        return done

    def ask(self, losses: Losses, key: Key, eps: float) -> tuple[Step, Trace | None]:
        """Do the forwards of a step: what it is to do, and what else an update needs; the weights stay."""
        directions = tuple(self.sampler(key, losses, eps))  # which way; may ask losses to choose
        measured = self.difference(losses, directions, eps)  # forward passes -> measurements
        if not measured.finite:
            return Step(_mean_loss(measured), measured, directions, skipped=True), None
        coefficients = tuple(self.shaping(measured).tolist())  # one per direction, or per example
        trace = losses.trace(directions)
        touched = {} if isinstance(trace, Seen) else trace
        return Step(_mean_loss(measured), measured, directions, coefficients, touched), trace

    def apply(
        self,
        leaves: Sequence[Leaf],
        directions: Sequence[AnyDirection],
        coefficients: Sequence[float],
        trace: Trace | None,
        key: Key,
        lr: float,
        state: State,
    ) -> None:
        """Update every leaf along g = sum_k c_k z_k, z made again from its address: live and in a replay."""
        g = estimate(directions, coefficients, trace)
        with torch.no_grad():
            for leaf in small_ones(self.update, leaves, g, lr, key):
                self.update(leaf, g, lr, key, state)

    def propose(self, losses: Losses, key: Key, eps: float, state: State) -> Estimate | None:
        """Return a step's estimate without doing the step; None when a loss was not finite."""
        asked, trace = self.ask(losses, key, eps)
        return None if asked.skipped else estimate(asked.directions, asked.coefficients, trace)

    def replay(
        self, leaves: Sequence[Leaf], recorded: Recorded, losses: Callable[[], Losses], key: Key, state: State
    ) -> None:
        """Do a recorded step again, without a forward pass unless outputs were pushed."""
        if not recorded.coefficients:
            raise ValueError(f"step {key.step} was recorded without its coefficients: it cannot be replayed")
        trace = losses().trace(recorded.directions) if self.replay_passes() else recorded.touched
        self.apply(leaves, recorded.directions, recorded.coefficients, trace, key, recorded.lr, state)

    def forward_passes(self, steps: int = 1) -> int:
        """The same in every step; pushes on outputs need a clean one for the inputs of layers."""
        clean = self.pushes is not None and not self.difference.asks_base
        return steps * (self.sampler.passes() + self.difference.passes(self.sampler.draws) + clean)

    def replay_passes(self, steps: int = 1) -> int:
        """One a step where an update reads the inputs of layers, which only a forward can tell."""
        return steps * int(self.pushes is not None)

    def forward_cost(self, call: float, steps: int = 1) -> float:
        """Every pass at the cost of a displaced one."""
        return call * self.forward_passes(steps)


@dataclass(frozen=True)
class Backprop:
    """The reference: the true gradient of the mean loss. The only method that builds a gradient whole."""

    name: str
    update: Update
    per_example = False
    pushes = None
    law: Law = field(default=Gaussian(), init=False)
    zeroth_order = False
    reads_errors = False

    def prepared(self, leaves: Sequence[Leaf], head: Head | None = None) -> "Backprop":
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
            for leaf in small_ones(self.update, leaves, g, lr, key):
                self.update(leaf, g, lr, key, state)
        return Step(loss, None)

    def propose(self, losses: Losses, key: Key, eps: float, state: State) -> Estimate | None:
        """Return the true gradient."""
        return Gradient(losses.gradient()[1])

    def replay(
        self, leaves: Sequence[Leaf], recorded: Recorded, losses: Callable[[], Losses], key: Key, state: State
    ) -> None:
        """Raise ValueError: a gradient is not recorded."""
        raise ValueError(f"{self.name} and replay do not go together: its gradients are not in the recording")

    def forward_passes(self, steps: int = 1) -> int:
        """One forward a step; its backward is in the cost."""
        return steps

    def replay_passes(self, steps: int = 1) -> int:
        """None, as there is no replay."""
        return 0

    def forward_cost(self, call: float, steps: int = 1) -> float:
        """One call a step, with its backward."""
        return call * steps


def _mean_loss(measured: Measured) -> float:
    both: Tensor = torch.cat([measured.plus, measured.minus])
    return float(both.mean())
