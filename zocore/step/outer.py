"""The estimate that activity perturbation gives: gradients of outputs times inputs, one thin product per layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zocore.carriers.outputs import OutputSite, Seen
from zocore.directions.laws import pick
from zocore.directions.pushes import Pushes
from zocore.weights.displaced import Rows
from zocore.weights.leaf import Leaf


@dataclass(frozen=True)
class OuterProducts:
    """g_W = sum_m gy_m x_m^T and g_b = sum_m gy_m, for y = W x + b and the gradients gy of the outputs."""

    seen: Seen
    gradients: Callable[[OutputSite], Tensor]  # gy of a site (m, out): one entry for each of its inputs (m, in)

    def displace(self, out: Tensor, base: Tensor, leaf: Leaf, c: float, rows: Rows = 0) -> None:
        """Write base + c * g into `out`, both (n, width): the given rows of `leaf`."""
        site = next(site for site in self.seen.sites if leaf in (site.weight, site.bias))
        gy = self.gradients(site).to(out.dtype)
        if leaf is site.bias:
            torch.add(base, pick(gy.sum(0).unsqueeze(1), rows, len(out)), alpha=c, out=out)
            return
        x = self.seen.inputs[site.id].to(out.dtype)
        left, right = (x, gy) if site.transposed else (gy, x)
        torch.addmm(base, pick(left.T, rows, len(out)), right, alpha=c, out=out)

    def shift(self, leaf: Leaf) -> None:
        """A product with what layers read is no noise."""

    def rows(self, leaf: Leaf) -> None:
        """Every row may move."""


def pushed(directions: Sequence[Pushes], coefficients: Sequence[float], seen: Seen) -> OuterProducts:
    """Return the estimate of activity perturbation: gy = sum_k c_ki xi_k for each row of example i.

    `coefficients` are those of the first direction's examples, then of the second's, and so on: (K * B,).
    """
    by_draw = torch.tensor(coefficients, dtype=torch.float32).view(len(directions), -1)

    def gradients(site: OutputSite) -> Tensor:
        counted = seen.counted[site.id]
        total = torch.zeros((), device=counted.device)
        for direction, own in zip(directions, by_draw.to(counted.device), strict=True):
            xi = direction.signs(site.id, seen.numbers, counted.shape[1], site.width)
            total = total + own[seen.examples].view(-1, 1, 1) * xi
        if directions[0].tie == "none":
            total = total * counted.unsqueeze(-1)
        return total.reshape(-1, site.width)

    return OuterProducts(seen, gradients)
