"""From the estimate to new weights, one leaf at a time: plain descent, momentum, Adam."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zocore.carriers.outputs import Seen
from zocore.directions.laws import Combination
from zocore.directions.per_example import PerExample, WeightedExamples
from zocore.noise.addressed import Key, Purpose, address
from zocore.noise.shift import Shift
from zocore.step.losses import AnyDirection, Trace
from zocore.step.outer import pushed
from zocore.weights.displaced import SMALL, Job, Rows, displace_all, wide
from zocore.weights.leaf import Leaf, tiles
from zocore.weights.rounding import store

State = dict[tuple[str, int], Tensor]  # (buffer name, leaf id) -> float32 buffer of the leaf's matrix shape


class Estimate(Protocol):
    """g, of which any rows of any leaf can be added to something: it never exists as a whole."""

    def displace(self, out: Tensor, base: Tensor, leaf: Leaf, c: float, rows: Rows = 0) -> None:
        """Write base + c * g into `out`, both (n, width): the given rows of `leaf`."""

    def shift(self, leaf: Leaf) -> Shift | None:
        """Return g of a leaf as one pass can write it, or None when it takes several."""

    def rows(self, leaf: Leaf) -> Tensor | None:
        """The only rows where g is not zero, or None when it may be anywhere."""


def estimate(directions: Sequence[AnyDirection], coefficients: Sequence[float], trace: Trace | None = None) -> Estimate:
    """Return g = sum_k c_k z_k for shared directions, or sum_i c_i Delta_i for one direction per example.

    Pushes on activities give outer products with the inputs in `trace`, a clean forward's.
    """
    first = directions[0]
    if isinstance(trace, Seen):
        return pushed(directions, coefficients, trace)  # type: ignore[arg-type]
    if isinstance(first, PerExample):
        return WeightedExamples(first, tuple(coefficients), trace or {})
    return Combination(tuple(zip(coefficients, directions, strict=True)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Gradient:
    """A gradient that does exist, from backprop: the reference for all others."""

    tensors: dict[int, Tensor]

    def displace(self, out: Tensor, base: Tensor, leaf: Leaf, c: float, rows: Rows = 0) -> None:
        """Write base + c * gradient into `out`, multiplied first: a fused sum rounds otherwise on other devices."""
        matrix = self.tensors[leaf.id].reshape(leaf.matrix.shape)
        part = matrix[rows : rows + len(out)] if isinstance(rows, int) else matrix[rows]
        for tile in tiles(out):
            torch.add(base[tile], part[tile].to(out.dtype) * c, out=out[tile])

    def shift(self, leaf: Leaf) -> None:
        """A tensor that exists is no noise."""

    def rows(self, leaf: Leaf) -> None:
        """Every row may move."""


class Update(Protocol):
    """Changes one leaf. `state` holds the buffers of the run; `key` addresses the rounding of 16-bit leaves."""

    @property
    def decay(self) -> float:
        """Weight decay per unit of lr."""

    @property
    def plain_move(self) -> float | None:
        """The decay of a rule that does nothing but theta -= lr * (g + decay * theta), None for any other."""

    def __call__(self, leaf: Leaf, g: Estimate, lr: float, key: Key, state: State) -> None:
        """Move the leaf by one step of size lr and let its modules read it."""


@dataclass(frozen=True)
class Sgd:
    """theta -= lr * (g + decay * theta), then the leaf's floor; keeps no state."""

    decay: float = 0.0

    @property
    def plain_move(self) -> float:
        """It is one."""
        return self.decay

    def __call__(self, leaf: Leaf, g: Estimate, lr: float, key: Key, state: State) -> None:
        """Add -lr * g tile by tile."""
        move(leaf, g, -lr, _shrink(leaf, lr, self.decay), key)


@dataclass(frozen=True)
class Momentum:
    """m = beta m + g, theta -= lr * m; keeps one float32 copy of the leaves."""

    beta: float = 0.9
    decay: float = 0.0
    plain_move = None

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
    plain_move = None

    def __call__(self, leaf: Leaf, g: Estimate, lr: float, key: Key, state: State) -> None:
        """Refresh both moments, correct their bias, then step."""
        m, v = _buffer("first moment", leaf, state), _buffer("second moment", leaf, state)
        steps = state.setdefault(("steps", leaf.id), torch.zeros(()))
        steps += 1
        now = torch.zeros_like(m)
        g.displace(now, now, leaf, 1.0)
        for tile in tiles(m):
            _adam(now[tile], m[tile], v[tile], self, float(steps))
        move(leaf, Gradient({leaf.id: now}), -lr, _shrink(leaf, lr, self.decay), key)


UPDATES: dict[str, type[Sgd] | type[Momentum] | type[Adam]] = {"sgd": Sgd, "momentum": Momentum, "adam": Adam}
"""The rules by the name that --update takes."""


def small_ones(update: Update, leaves: Sequence[Leaf], g: Estimate, lr: float, key: Key) -> list[Leaf]:
    """Move small leaves together where one launch can, since a GPU spends more on launching; return the others."""
    decay = update.plain_move
    small = [] if decay is None else [leaf for leaf in leaves if leaf.tensor.numel() <= SMALL]
    jobs = {leaf.id: _job(leaf, g, _shrink(leaf, lr, decay or 0.0), key) for leaf in small}
    together = {number: job for number, job in jobs.items() if job is not None and job.kind is not None}
    displace_all(list(together.values()), -lr)
    for leaf in small:
        if leaf.id in together:
            _settle(leaf)
    return [leaf for leaf in leaves if leaf.id not in together]


def _adam(g: Tensor, m: Tensor, v: Tensor, rule: Adam, steps: float) -> None:
    """Refresh both moments with g and write the step into g, in operations that round alike on every device."""
    m.mul_(rule.beta1).add_(g * (1 - rule.beta1))
    v.mul_(rule.beta2).add_(g.square().mul_(1 - rule.beta2))
    deviation = (v * (1 / (1 - rule.beta2**steps))).double().sqrt_().to(v.dtype)  # float32's own is not exact on CPUs
    torch.div(m * (1 / (1 - rule.beta1**steps)), deviation.add_(rule.epsilon), out=g)


def move(leaf: Leaf, g: Estimate, c: float, shrink: float, key: Key) -> None:
    """theta = shrink * theta + c * g, floored, with one rounding of the stored value per element."""
    rows, matrix, job = g.rows(leaf), leaf.matrix, _job(leaf, g, shrink, key)
    if job is not None:
        displace_all([job], c)
    elif leaf.tensor.dtype == wide(leaf.tensor.dtype):
        # a sparse law chooses by the weights, so these must not shrink before the noise is added
        if rows is None:
            g.displace(matrix, matrix if shrink == 1 else matrix * shrink, leaf, c)
        else:
            chosen = matrix[rows] * shrink
            g.displace(chosen, chosen, leaf, c, rows)
            if shrink != 1:
                matrix.mul_(shrink)
            matrix[rows] = chosen
    else:
        _move_rounded(leaf, g, c, shrink, key)
    _settle(leaf)


def _job(leaf: Leaf, g: Estimate, shrink: float, key: Key) -> Job | None:
    """The move as one pass, where g is one; 16-bit leaves are rounded stochastically."""
    shift, narrow = g.shift(leaf), leaf.tensor.dtype != wide(leaf.tensor.dtype)
    rounding = address(key, leaf.id, Purpose.ROUNDING) if narrow else None
    return None if shift is None else Job(leaf.matrix, leaf.matrix, shift, shrink, rounding)


def _settle(leaf: Leaf) -> None:
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
