"""From an estimate of the gradient to new weights, one leaf at a time: plain descent, momentum, Adam."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zocore.carriers.scratch import wide
from zocore.directions.laws import Combination, Rows
from zocore.directions.per_example import PerExample, Touched, WeightedExamples
from zocore.noise.addressed import Key, Purpose, address
from zocore.step.losses import AnyDirection
from zocore.weights.leaf import Leaf
from zocore.weights.rounding import store

State = dict[tuple[str, int], Tensor]  # (buffer name, leaf id) -> float32 buffer of the leaf's matrix shape


class Estimate(Protocol):
    """An estimate g of the gradient that is never built whole: any rows of any leaf can be added to something."""

    def displace(self, out: Tensor, base: Tensor, leaf: Leaf, c: float, rows: Rows = 0) -> None:
        """Write base + c * g into `out`, both (n, width): the given rows of `leaf`."""

    def rows(self, leaf: Leaf) -> Tensor | None:
        """The only rows where g is not zero, or None when it may be anywhere."""


def estimate(
    directions: Sequence[AnyDirection], coefficients: Sequence[float], touched: Touched | None = None
) -> Estimate:
    """Return g = sum_k c_k z_k for shared directions, or sum_i c_i Delta_i for one direction per example."""
    first = directions[0]
    if isinstance(first, PerExample):
        return WeightedExamples(first, tuple(coefficients), touched or {})
    return Combination(tuple(zip(coefficients, directions, strict=True)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Gradient:
    """A gradient that is built whole, from backprop: the reference for all estimates."""

    tensors: dict[int, Tensor]

    def displace(self, out: Tensor, base: Tensor, leaf: Leaf, c: float, rows: Rows = 0) -> None:
        """Write base + c * gradient into `out`."""
        matrix = self.tensors[leaf.id].reshape(leaf.matrix.shape)
        part = matrix[rows : rows + len(out)] if isinstance(rows, int) else matrix[rows]
        torch.add(base, part.to(out.dtype), alpha=c, out=out)

    def rows(self, leaf: Leaf) -> None:
        """Every row may move."""


class Update(Protocol):
    """Changes one leaf. `state` holds the buffers of the run; `key` addresses the rounding of 16-bit leaves."""

    @property
    def decay(self) -> float:
        """Weight decay per unit of lr."""

    def __call__(self, leaf: Leaf, g: Estimate, lr: float, key: Key, state: State) -> None:
        """Move the leaf by one step of size lr and let its modules read it."""


@dataclass(frozen=True)
class Sgd:
    """theta -= lr * (g + decay * theta), then the leaf's floor; keeps no state."""

    decay: float = 0.0

    def __call__(self, leaf: Leaf, g: Estimate, lr: float, key: Key, state: State) -> None:
        """Add -lr * g tile by tile."""
        move(leaf, g, -lr, _shrink(leaf, lr, self.decay), key)


@dataclass(frozen=True)
class Momentum:
    """m = beta m + g, theta -= lr * m; keeps one float32 copy of the leaves."""

    beta: float = 0.9
    decay: float = 0.0

    def __call__(self, leaf: Leaf, g: Estimate, lr: float, key: Key, state: State) -> None:
        """Refresh the buffer, then step along it."""
        m = _buffer("momentum", leaf, state)
        g.displace(m, m.mul_(self.beta), leaf, 1.0)
        move(leaf, Gradient({leaf.id: m}), -lr, _shrink(leaf, lr, self.decay), key)


@dataclass(frozen=True)
class Adam:
    """Adam (arXiv 1412.6980) with decoupled decay; keeps two float32 copies of the leaves."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.0

    def __call__(self, leaf: Leaf, g: Estimate, lr: float, key: Key, state: State) -> None:
        """Refresh both moments, correct their bias, then step."""
        m, v = _buffer("first moment", leaf, state), _buffer("second moment", leaf, state)
        steps = state.setdefault(("steps", leaf.id), torch.zeros(()))
        steps += 1
        now = torch.zeros_like(m)
        g.displace(now, now, leaf, 1.0)
        m.lerp_(now, 1 - self.beta1)
        v.mul_(self.beta2).addcmul_(now, now, value=1 - self.beta2)
        unbiased = m / (1 - self.beta1 ** float(steps))
        step = unbiased / ((v / (1 - self.beta2 ** float(steps))).sqrt() + self.epsilon)
        move(leaf, Gradient({leaf.id: step}), -lr, _shrink(leaf, lr, self.decay), key)


def move(leaf: Leaf, g: Estimate, c: float, shrink: float, key: Key) -> None:
    """theta = shrink * theta + c * g, floored, with one rounding of the stored value per element."""
    rows = g.rows(leaf)
    matrix = leaf.matrix
    if leaf.tensor.dtype == wide(leaf.tensor.dtype):
        # a sparse law chooses by the weights, so these must not shrink before the noise is added
        if rows is None:
            g.displace(matrix, matrix if shrink == 1 else matrix * shrink, leaf, c)
        else:
            touched = matrix[rows] * shrink
            g.displace(touched, touched, leaf, c, rows)
            if shrink != 1:
                matrix.mul_(shrink)
            matrix[rows] = touched
    else:
        _move_rounded(leaf, g, c, shrink, key)
    if leaf.floor is not None:
        leaf.tensor.clamp_(min=leaf.floor)
    leaf.commit()


def _move_rounded(leaf: Leaf, g: Estimate, c: float, shrink: float, key: Key) -> None:
    where = address(key, leaf.id, Purpose.ROUNDING)
    for tile in leaf.tiles():
        work = leaf.matrix[tile].float().mul_(shrink)
        g.displace(work, work, leaf, c, tile.start)
        store(leaf.matrix[tile], work, where, tile.start * work.shape[1])


def _shrink(leaf: Leaf, lr: float, decay: float) -> float:
    return 1 - lr * decay if leaf.decay else 1.0


def _buffer(name: str, leaf: Leaf, state: State) -> Tensor:
    if (name, leaf.id) not in state:
        state[name, leaf.id] = torch.zeros(leaf.matrix.shape, dtype=wide(leaf.tensor.dtype), device=leaf.tensor.device)
    return state[name, leaf.id]
