"""One pseudo-independent direction per example from one shared tensor of noise (GRZO, arXiv 2606.02857).

Example i moves along Delta_i = U * (r_i s_i^T): the base U is shared, the Rademacher vectors r_i (rows) and
s_i (columns) are its own, after Flipout (Wen et al., arXiv 1803.04386). A vector has U * r_i alone. Signs come
from the counter-based generator; the authors' code hashes norm and embedding signs linearly, which leaves
only two distinct vectors over all seeds, so those tensors move along one fixed axis there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zocore.directions.laws import Direction, Law, LowRank, Rows, draw_signs, pick
from zocore.noise.addressed import Key, Purpose
from zocore.weights.leaf import Leaf

TILE = 2**17  # elements of U made at once

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
        law = self.directions.law
        if isinstance(law, LowRank) and leaf.tensor.ndim > 1 and leaf.id not in self.touched:
            return self._displace_thin(out, base, leaf, c, rows, law)
        r, s = self._signs(leaf, rows, len(out), out)
        for first in range(0, len(out), step := max(1, TILE // out.shape[1])):  # temporaries stay in cache
            tile = slice(first, first + step)
            u = torch.zeros_like(out[tile])
            self.directions.base.displace(u, u, leaf, c, rows + first if isinstance(rows, int) else rows[tile])
            torch.add(base[tile], u.mul_(r[tile] @ s), out=out[tile])

    def _displace_thin(self, out: Tensor, base: Tensor, leaf: Leaf, c: float, rows: Rows, law: LowRank) -> None:
        """U = L V^T gives sum_i a_i (r_i * L) (s_i * V)^T: one product of B times rank columns, added in place."""
        left, right = law.factors(leaf, self.directions.key, out.device)
        r = self.directions.row_signs(leaf, out.device)  # (B, rows)
        s = self.directions.column_signs(leaf, out.device)  # (B, width)
        a = torch.tensor(self.weights, dtype=out.dtype, device=out.device) * c
        scaled = pick(r.T, rows, len(out)).to(out.dtype) * a  # (n, B)
        thin = (scaled.unsqueeze(2) * pick(left, rows, len(out)).to(out.dtype).unsqueeze(1)).flatten(1)  # (n, B rank)
        wide = (s.T.unsqueeze(2) * right.unsqueeze(1)).flatten(1).to(out.dtype)  # (width, B rank)
        torch.addmm(base, thin, wide.T, out=out)

    def rows(self, leaf: Leaf) -> Tensor | None:
        """Return the only rows that move, ascending, for a table that was looked up; None when all do."""
        touched = self.touched.get(leaf.id)
        return None if touched is None else torch.unique(torch.cat(list(touched)))

    def _signs(self, leaf: Leaf, rows: Rows, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """R^T diag(a), (count, B), for the given rows, and S, (B, width)."""
        r = pick(self.directions.row_signs(leaf, like.device).T, rows, count)
        touched = self.touched.get(leaf.id)
        if touched is not None:
            numbers = torch.arange(rows, rows + count) if isinstance(rows, int) else rows
            r = r * torch.stack([torch.isin(numbers, looked_up.to(numbers.device)) for looked_up in touched], dim=1)
        a = torch.tensor(self.weights, dtype=like.dtype, device=like.device)
        return r.to(like.dtype) * a, self.directions.column_signs(leaf, like.device).to(like.dtype)
