"""The oracle a zeroth-order method asks: per-example losses of one batch, here or displaced along a direction.

It counts two things. `forward_passes` are calls of the model on the batch, as the papers count them;
`forward_cost` is the same in plain forwards' worth of arithmetic, where a per-example call costs about 2.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from zocore.carriers.layout import Layout
from zocore.directions.laws import Combination, Direction
from zocore.directions.per_example import PerExample, Touched
from zocore.parallel.ranks import Ranks
from zocore.weights.leaf import Leaf, ParameterSite

AnyDirection = Direction | Combination | PerExample


class Carrier(Protocol):
    """A way to let forwards see theta + offset * z."""

    layout: Layout | None

    def along(self, direction: Any) -> Any:
        """A block that yields `move_to(offset)` and ends with the weights where they were."""

    def cost(self, direction: Any) -> float:
        """What one displaced forward costs, in plain ones."""


@dataclass(frozen=True)
class Part:
    """One micro-batch: which rows belong to which example, and a forward that returns its losses (b,)."""

    layout: Layout
    evaluate: Callable[[], Tensor]


@dataclass
class Losses:
    """Per-example losses (B,) of one batch, float32 or float64, in the order of the whole batch's examples.

    Where several processes share the batch, `parts` are this one's, `counts` the examples of each.
    Raises TypeError when a forward returns anything but one loss per example.
    """

    parts: Sequence[Part]
    leaves: Sequence[Leaf]
    shared: Carrier  # for directions the whole batch shares
    per_example: Carrier | None = None
    ranks: Ranks = field(default_factory=Ranks)
    counts: Sequence[int] = ()
    forward_passes: int = 0
    forward_cost: float = 0.0
    _seen: dict[tuple[AnyDirection, float], Tensor] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """B, the examples of the whole batch."""
        return sum(self.counts) or sum(len(part.layout.numbers) for part in self.parts)

    @property
    def positions(self) -> int:
        """Tokens, padding included, of the largest micro-batch: what a step's memory grows with."""
        return max(part.layout.positions for part in self.parts)

    def __call__(self) -> Tensor:
        """Return the losses (B,) at the weights as they stand."""
        return self._forward(1.0, [])

    @contextmanager
    def along(self, direction: AnyDirection) -> Iterator[Callable[[float], Tensor]]:
        """Yield `at(offset)`, the losses (B,) at theta + offset * z; a point asked twice is not run twice."""
        carrier = self._carrier(direction)
        with carrier.along(direction) as move_to:

            def at(offset: float) -> Tensor:
                if (direction, offset) not in self._seen:
                    move_to(offset)
                    self._seen[direction, offset] = self._forward(carrier.cost(direction), [carrier])
                return self._seen[direction, offset]

            yield at

    def forget(self) -> None:
        """Drop remembered points, so that each is a forward pass again."""
        self._seen.clear()

    @property
    def touched(self) -> Touched:
        """Table rows each example looked up in the last per-example forwards, by leaf id."""
        if self.per_example is None:
            return {}
        recorded = getattr(self.per_example, "touched", {})
        own = {str(leaf): [rows[example].tolist() for example in sorted(rows)] for leaf, rows in recorded.items()}
        told = self.ranks.told(own)
        return {leaf: [_rows(rows) for each in told for rows in each[str(leaf)]] for leaf in recorded}

    def gradient(self) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the losses (B,) and the true gradient of their mean by backprop, for each leaf id.

        Raises ValueError when a leaf is not an ordinary floating-point parameter.
        """
        if self.ranks.count > 1:
            raise ValueError("backprop and several processes do not go together here: gradients are not exchanged")
        parameters = [_parameter(leaf) for leaf in self.leaves]
        was = [parameter.requires_grad for parameter in parameters]
        try:
            for parameter in parameters:
                parameter.requires_grad_(True)
            with torch.enable_grad():
                losses = torch.cat([part.evaluate() for part in self.parts])
                found = torch.autograd.grad(losses.mean(), parameters, allow_unused=True)
        finally:
            for parameter, flag in zip(parameters, was, strict=True):
                parameter.requires_grad_(flag)
        self.forward_passes, self.forward_cost = self.forward_passes + 1, self.forward_cost + BACKPROP_COST
        gradients = {
            leaf.id: torch.zeros_like(leaf.tensor) if g is None else g.detach()
            for leaf, g in zip(self.leaves, found, strict=True)
        }
        return losses.detach(), gradients

    def _carrier(self, direction: AnyDirection) -> Carrier:
        if direction.shared:
            return self.shared
        if self.per_example is None:
            raise ValueError("per-example directions and this model do not go together: it has no per-example carrier")
        return self.per_example

    def _forward(self, cost: float, carriers: Sequence[Carrier]) -> Tensor:
        results = []
        for part in self.parts:
            for carrier in carriers:
                carrier.layout = part.layout
            # inside the call, not around the step: grad mode is per thread, and callers may yield between steps
            with torch.no_grad():
                results.append(_checked(part.evaluate(), part.layout))
        self.forward_passes += 1
        self.forward_cost += cost
        return self.ranks.losses(torch.cat(results), self.counts)


def _rows(numbers: list[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


BACKPROP_COST = 3.0  # a backward pass does two matrix products for the forward's one


def _checked(losses: Tensor, layout: Layout) -> Tensor:
    expected = len(layout.numbers)
    if losses.shape != (expected,) or losses.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"a forward must return one float32 loss per example, shape ({expected},), "
            f"not {losses.dtype} of shape {tuple(losses.shape)}"
        )
    return losses


def _parameter(leaf: Leaf) -> torch.nn.Parameter:
    site = leaf.sites[0]
    if not isinstance(site, ParameterSite) or site.parameter.data_ptr() != leaf.tensor.data_ptr():
        raise ValueError(f"backprop and {leaf.name} do not go together: it is not an ordinary parameter")
    return site.parameter
