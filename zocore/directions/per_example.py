"""One pseudo-independent direction per example from one shared tensor of noise (GRZO, arXiv 2606.02857).

Example i moves along Delta_i = U * (r_i s_i^T): the base U is shared, the Rademacher vectors r_i (rows) and
s_i (columns) are its own, after Flipout (Wen et al., arXiv 1803.04386). A vector has U * r_i alone. Signs come
from the counter-based generator; the authors' code hashes norm and embedding signs linearly, which leaves
only two distinct vectors over all seeds, so those tensors move along one fixed axis there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from zocore.directions.laws import Direction, Law, LowRank, draw_signs, pick
from zocore.noise.addressed import Key, Purpose
from zocore.noise.shift import Shift
from zocore.weights.displaced import Rows, displace, thin_product, wide
from zocore.weights.leaf import Leaf, tiles

# for each leaf id that is a lookup table only: the rows each example looked up
Touched = Mapping[int, Sequence[Tensor]]


@dataclass(frozen=True)
class PerExample:
    """The directions Delta_1 .. Delta_B of one step; `count` is B, the examples of the whole batch."""

    key: Key
    law: Law
    count: int
    shared = False

    @property
    def base(self) -> Direction:
        """U, shared by all examples."""
        return Direction(self.key, self.law)

    def row_signs(self, leaf: Leaf, device: torch.device) -> Tensor:
        """Return r (B, rows), float32."""
        return draw_signs(self.key, leaf, Purpose.ROW_SIGN, self.count, leaf.matrix.shape[0], device)

    def column_signs(self, leaf: Leaf, device: torch.device) -> Tensor:
        """Return s (B, width), float32; ones for a vector, which has no columns to flip."""
        if leaf.tensor.ndim < 2:
            return torch.ones(self.count, 1, device=device)
        return draw_signs(self.key, leaf, Purpose.COLUMN_SIGN, self.count, leaf.matrix.shape[1], device)

    def of(self, leaf: Leaf, example: int) -> Tensor:
        """Return Delta_i of one leaf whole, in its shape: the definition, for tests and small models."""
        r, s = self.row_signs(leaf, leaf.tensor.device), self.column_signs(leaf, leaf.tensor.device)
        return self.base.tensor(leaf) * torch.outer(r[example], s[example]).view(leaf.tensor.shape)


@dataclass(frozen=True)
class WeightedExamples:
    """sum_i a_i Delta_i = U * (R^T diag(a) S): one thin product per leaf, no direction ever built alone."""

    directions: PerExample
    weights: tuple[float, ...]  # a_i, one per example
    touched: Touched = field(default_factory=dict, compare=False)

    def displace(self, out: Tensor, base: Tensor, leaf: Leaf, c: float, rows: Rows = 0) -> None:
        """Write base + c * sum_i a_i Delta_i into `out`, both (n, width): the given rows of `leaf`."""
        shift = self.shift(leaf)
        if shift is not None:
            return displace(out, base, shift, c, rows)
        r, s = self._signs(leaf, rows, len(out)), self._column_signs(leaf)
        for tile in tiles(out):
            u = torch.zeros_like(out[tile])
            self.directions.base.displace(u, u, leaf, c, rows + tile.start if isinstance(rows, int) else rows[tile])
            torch.add(base[tile], u.mul_(thin_product(r[tile], s)), out=out[tile])

    def shift(self, leaf: Leaf) -> Shift | None:
        """Return the sum as one pass can write it, or None for a looked-up table or a law of several passes."""
        if leaf.id in self.touched:
            return None
        law = self.directions.law
        if isinstance(law, LowRank) and leaf.tensor.ndim > 1:
            return self._thin(leaf, law)
        base = self.directions.base.shift(leaf)
        return base and replace(base, left=self._signs(leaf, 0, leaf.matrix.shape[0]), right=self._column_signs(leaf))

    def rows(self, leaf: Leaf) -> Tensor | None:
        """Return the only rows that move, ascending, for a table that was looked up; None when all do."""
        touched = self.touched.get(leaf.id)
        return None if touched is None else torch.unique(torch.cat(list(touched))).to(leaf.tensor.device)

    def _thin(self, leaf: Leaf, law: LowRank) -> Shift:
        """U = L V^T gives sum_i a_i (r_i * L) (s_i * V)^T: one product of B times rank terms."""
        factors = law.factors(leaf, self.directions.key, leaf.tensor.device)
        left, right = (factor.to(wide(leaf.tensor.dtype)) for factor in factors)
        r = self._signs(leaf, 0, leaf.matrix.shape[0])  # (rows, B)
        s = self._column_signs(leaf)  # (B, width)
        terms = (r.unsqueeze(2) * left.unsqueeze(1)).flatten(1)  # (rows, B rank)
        return Shift(left=terms, right=(s.unsqueeze(1) * right.T.unsqueeze(0)).flatten(0, 1))  # (B rank, width)

    def _signs(self, leaf: Leaf, rows: Rows, count: int) -> Tensor:
        """R^T diag(a), (count, B), for the given rows: zero where an example did not look a row up."""
        device = leaf.tensor.device
        r = pick(self.directions.row_signs(leaf, device).T, rows, count)
        touched = self.touched.get(leaf.id)
        if touched is not None:
            numbers = torch.arange(rows, rows + count, device=device) if isinstance(rows, int) else rows.to(device)
            r = r * torch.stack([torch.isin(numbers, looked_up.to(device)) for looked_up in touched], dim=1)
        a = torch.tensor(self.weights, dtype=wide(leaf.tensor.dtype))
        # without waiting for the device, which is still busy with the leaf before
        return (r.to(a.dtype) * a.to(device, non_blocking=True)).contiguous()

    def _column_signs(self, leaf: Leaf) -> Tensor:
        """S (B, width)."""
        return self.directions.column_signs(leaf, leaf.tensor.device).to(wide(leaf.tensor.dtype))
