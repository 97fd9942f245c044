"""Directions: which z the weights move along, made one tile at a time from its address.

A law says what z is made of (normals, signs, two thin factors, a mask); a direction is a law at an address.
Every direction does one thing, `displace`: write base + c * z into `out`, for some rows of one leaf. Probe
and update call the same function, so the update cannot move along anything but what was probed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from zocore.noise.addressed import Key, Purpose, address
from zocore.noise.shift import Shift
from zocore.weights.displaced import Rows, displace
from zocore.weights.leaf import Leaf


class Law(Protocol):
    """What z is made of."""

    def displace(self, out: Tensor, base: Tensor, leaf: Leaf, key: Key, c: float, rows: Rows) -> None:
        """Write base + c * z into `out`, both (n, width), for the given rows of `leaf`."""

    def shift(self, leaf: Leaf, key: Key) -> Shift | None:
        """Return z as one pass can write it in any dtype, or None when it takes several."""

    def prepared(self, leaves: Sequence[Leaf]) -> "Law":
        """Return the law as it holds for these leaves at the start of a run."""

    @property
    def reads_weights(self) -> bool:
        """Whether z depends on the weights, which then must not move during a probe."""


@dataclass(frozen=True)
class Gaussian:
    """z ~ N(0, 1) in every element: MeZO's direction."""

    reads_weights = False

    def displace(self, out: Tensor, base: Tensor, leaf: Leaf, key: Key, c: float, rows: Rows) -> None:
        """Write base + c * z into `out`."""
        displace(out, base, self.shift(leaf, key), c, rows)

    def shift(self, leaf: Leaf, key: Key) -> Shift:
        """Normals at the leaf's address."""
        return Shift(address(key, leaf.id, Purpose.NORMAL))

    def prepared(self, leaves: Sequence[Leaf]) -> "Gaussian":
        """Nothing depends on the leaves."""
        return self


@dataclass(frozen=True)
class Rademacher:
    """z = +1 or -1 with equal chance: E[z z^T] = I as for the Gaussian, a thirtieth of the arithmetic."""

    reads_weights = False

    def displace(self, out: Tensor, base: Tensor, leaf: Leaf, key: Key, c: float, rows: Rows) -> None:
        """Write base + c * z into `out`."""
        displace(out, base, self.shift(leaf, key), c, rows)

    def shift(self, leaf: Leaf, key: Key) -> Shift:
        """Signs at the leaf's address."""
        return Shift(address(key, leaf.id, Purpose.SIGN), signs=True)

    def prepared(self, leaves: Sequence[Leaf]) -> "Rademacher":
        """Nothing depends on the leaves."""
        return self


@dataclass(frozen=True)
class LowRank:
    """z = U V^T / sqrt(rank) on matrices (LOZO, arXiv 2410.07698), normals on vectors.

    U (rows, rank) is new at each step, V (width, rank) stays for `refresh` steps. LOZO divides by the rank in
    the update alone; here z itself has unit variance, so eps and lr mean what they mean in MeZO.
    """

    rank: int = 8
    refresh: int = 50
    reads_weights = False

    def __post_init__(self) -> None:
        if self.rank < 1 or self.refresh < 1:
            raise ValueError(f"rank and refresh must be at least 1, not {self.rank} and {self.refresh}")

    def factors(self, leaf: Leaf, key: Key, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return U (rows, rank) and V / sqrt(rank) (width, rank), float32."""
        rows, width = leaf.matrix.shape
        lazy = replace(key, step=key.step - key.step % self.refresh)
        u, v = torch.zeros(rows, self.rank, device=device), torch.zeros(width, self.rank, device=device)
        displace(u, u, Shift(address(key, leaf.id, Purpose.LEFT_FACTOR)), 1.0)
        displace(v, v, Shift(address(lazy, leaf.id, Purpose.RIGHT_FACTOR)), self.rank**-0.5)
        return u, v

    def displace(self, out: Tensor, base: Tensor, leaf: Leaf, key: Key, c: float, rows: Rows) -> None:
        """Write base + c * z into `out`."""
        displace(out, base, self.shift(leaf, key), c, rows)

    def shift(self, leaf: Leaf, key: Key) -> Shift:
        """The product of the factors, or the normals of a vector."""
        if leaf.tensor.ndim < 2:
            return Gaussian().shift(leaf, key)
        u, v = self.factors(leaf, key, leaf.tensor.device)
        return Shift(left=u, right=v.T.contiguous())

    def prepared(self, leaves: Sequence[Leaf]) -> "LowRank":
        """Nothing depends on the leaves."""
        return self


@dataclass(frozen=True)
class Masked:
    """The inner law on the smallest weights of each leaf, zero elsewhere (Sparse-MeZO, arXiv 2402.15751).

    The thresholds |theta| are fixed when a run starts; the mask follows the weights as they stand at a step.
    """

    inner: Law
    keep: float = 0.25  # share of each leaf that may move
    thresholds: Mapping[int, float] | None = field(default=None, compare=False, hash=False)
    reads_weights = True

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"the share of weights that may move must be above 0 and at most 1, not {self.keep}")

    def displace(self, out: Tensor, base: Tensor, leaf: Leaf, key: Key, c: float, rows: Rows) -> None:
        """Write base + c * mask * z into `out`."""
        if self.thresholds is None:
            raise ValueError("a sparse law must be prepared for its leaves before it is used")
        weights = pick(leaf.matrix, rows, len(out))
        mask = weights.abs() <= self.thresholds[leaf.id]
        z = torch.zeros_like(out)
        self.inner.displace(z, z, leaf, key, 1.0, rows)
        torch.add(base, z.mul_(mask).mul_(c), out=out)

    def shift(self, leaf: Leaf, key: Key) -> None:
        """The mask takes a pass of its own."""

    def prepared(self, leaves: Sequence[Leaf]) -> "Masked":
        """Fix each leaf's threshold at the `keep` quantile of |theta|."""
        return replace(
            self, inner=self.inner.prepared(leaves), thresholds={leaf.id: self._cut(leaf) for leaf in leaves}
        )

    def _cut(self, leaf: Leaf) -> float:
        rank = max(1, round(self.keep * leaf.tensor.numel()))
        weights = leaf.tensor.to(torch.promote_types(leaf.tensor.dtype, torch.float32))
        return float(weights.abs().flatten().kthvalue(rank).values)


LAWS: Mapping[str, Law] = {"gaussian": Gaussian(), "rademacher": Rademacher()}
"""The laws of a single number, by the name that --noise takes."""


def law(noise: str = "gaussian", *, rank: int = 0, keep: float = 1.0) -> Law:
    """Return the law of the directions: numbers of a law by name, thin factors when rank > 0, sparse when keep < 1.

    Raises ValueError for an unknown noise or a share outside (0, 1].
    """
    if noise not in LAWS:
        raise ValueError(f"unknown noise {noise!r}: choose one of {', '.join(LAWS)}")
    inner = LowRank(rank) if rank else LAWS[noise]
    return inner if keep == 1 else Masked(inner, keep)


@dataclass(frozen=True)
class Direction:
    """One z over all leaves, shared by the whole batch."""

    key: Key
    law: Law
    shared = True

    def displace(self, out: Tensor, base: Tensor, leaf: Leaf, c: float, rows: Rows = 0) -> None:
        """Write base + c * z into `out`, both (n, width): the given rows of `leaf`; `out` may be `base`."""
        self.law.displace(out, base, leaf, self.key, c, rows)

    def shift(self, leaf: Leaf) -> Shift | None:
        """Return z of a leaf as one pass can write it, or None."""
        return self.law.shift(leaf, self.key)

    @property
    def reads_weights(self) -> bool:
        """Whether z depends on the weights."""
        return self.law.reads_weights

    def tensor(self, leaf: Leaf) -> Tensor:
        """Return z of one leaf whole, in its shape, float32 (float64 for a float64 leaf)."""
        return _whole(self, leaf)


@dataclass(frozen=True)
class Combination:
    """v = sum_i w_i z_i with nothing stored: each tile of v is rebuilt from the addresses of its terms."""

    terms: tuple[tuple[float, "Direction | Combination"], ...]
    shared = True

    def displace(self, out: Tensor, base: Tensor, leaf: Leaf, c: float, rows: Rows = 0) -> None:
        """Write base + c * v into `out`, with one rounding of the stored value."""
        if len(self.terms) == 1:
            weight, direction = self.terms[0]
            return direction.displace(out, base, leaf, c * weight, rows)
        v = torch.zeros_like(out)
        for weight, direction in self.terms:
            direction.displace(v, v, leaf, weight, rows)
        torch.add(base, v.mul_(c), out=out)

    def shift(self, leaf: Leaf) -> Shift | None:
        """Return v of a leaf as one pass can write it, or None for several terms."""
        if len(self.terms) > 1:
            return None
        weight, direction = self.terms[0]
        shift = direction.shift(leaf)
        return shift and replace(shift, weight=weight * shift.weight)

    def tensor(self, leaf: Leaf) -> Tensor:
        """Return v of one leaf whole, in its shape."""
        return _whole(self, leaf)

    @property
    def reads_weights(self) -> bool:
        """Whether any term depends on the weights."""
        return any(direction.reads_weights for _, direction in self.terms)

    def rows(self, leaf: Leaf) -> None:
        """Every row moves."""


SharedDirection = Direction | Combination


def _whole(direction: SharedDirection, leaf: Leaf) -> Tensor:
    dtype = torch.float64 if leaf.tensor.dtype == torch.float64 else torch.float32
    z = torch.zeros(leaf.matrix.shape, dtype=dtype, device=leaf.tensor.device)
    direction.displace(z, z, leaf, 1.0)
    return z.view(leaf.tensor.shape)


def draw_signs(key: Key, leaf: Leaf, purpose: Purpose, rows: int, width: int, device: torch.device) -> Tensor:
    """Return independent Rademacher signs (rows, width), float32, of one leaf and purpose."""
    z = torch.zeros(rows, width, device=device)
    displace(z, z, Shift(address(key, leaf.id, purpose), signs=True), 1.0)
    return z


def draw_rows(key: Key, leaf_id: int, purpose: Purpose, rows: Tensor, width: int) -> Tensor:
    """Return the rows so numbered (n,) of a matrix of independent Rademacher signs: (n, width), float32."""
    z = torch.zeros(len(rows), width, device=rows.device)
    displace(z, z, Shift(address(key, leaf_id, purpose), signs=True), 1.0, rows)
    return z


def pick(matrix: Tensor, rows: Rows, count: int) -> Tensor:
    """Return `count` rows of `matrix` (rows, width): from a first row on, or those numbered."""
    return matrix[rows : rows + count] if isinstance(rows, int) else matrix[rows.to(matrix.device)]
