"""Per-example directions inside one batched forward: what each layer adds to its output for example i.

At theta + c * Delta_i, a layer that is linear in its weight gives its own output plus c times its response to
Delta_i alone, and since Delta_i = U * (r_i s_i^T), one product with U serves the whole batch:

    linear, Conv1D    r_i * ((s_i * x) U^T)
    bias              u * r_i
    norm weight       r_i * x_hat * u          from the module itself, its weight set to w + u
    table look-up     r_i[t] * s_i * U[t]      for token t
    tied head         as linear, with the table's own U, r_i and s_i

(GRZO, arXiv 2606.02857, completed for every kind of layer; the released code covers linear layers so, and
the others in part.) The weights are never touched. Any other layer is refused by name.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zocore.carriers.carrier import MoveTo
from zocore.carriers.layout import Layout
from zocore.carriers.scratch import looked_up, looks_up_rows
from zocore.directions.laws import LowRank
from zocore.directions.per_example import PerExample
from zocore.weights.leaf import Leaf, ParameterSite, Site, by_module
from zocore.weights.linear import is_conv1d, is_linear


@dataclass(frozen=True)
class Call:
    """One call of a module inside a per-example forward."""

    direction: PerExample
    leaf: Leaf
    layout: Layout
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor  # the module's own
    shifted: Tensor  # the same with what other leaves of the module added
    offset: float

    @property
    def x(self) -> Tensor:
        """The activation the layer read; where a model is spread over devices it may come from another one."""
        return self.args[0].to(self.output.device)

    def add(self, response: Tensor) -> Tensor:
        """Return the shifted output plus offset times the response to this leaf's direction."""
        return torch.add(self.shifted, response, alpha=self.offset)

    def row_signs(self, activation: Tensor) -> Tensor:
        """r of each leading index of `activation`, shaped to broadcast against it."""
        return self._spread(self.direction.row_signs(self.leaf, activation.device), activation)

    def column_signs(self, activation: Tensor) -> Tensor:
        """s of each leading index of `activation`, shaped to broadcast against it."""
        return self._spread(self.direction.column_signs(self.leaf, activation.device), activation)

    def base(self, dtype: torch.dtype) -> Tensor:
        """U of the leaf, in its shape."""
        return self.direction.base.tensor(self.leaf).to(dtype)

    def _spread(self, signs: Tensor, activation: Tensor) -> Tensor:
        of_rows = signs[self.layout.of(activation)].to(activation.dtype)
        return of_rows.view(len(of_rows), *(1,) * (activation.ndim - 2), of_rows.shape[1])


Responder = Callable[[Call], Tensor]  # the layer's output, shifted by offset times that under Delta_i alone


@dataclass
class Flipout:
    """Carries per-example directions. Raises ValueError when a leaf's layer has no per-example form."""

    leaves: Sequence[Leaf]
    matmul_weights: int  # weights that take part in a matrix product of one plain forward
    layout: Layout | None = None  # of the forward to come; set by the losses
    _lookups: list[tuple[int, Layout, Tensor]] = field(default_factory=list)  # leaf id, rows of the forward, ids

    def __post_init__(self) -> None:
        self._responders = [
            (leaf, site.module, responder(site, leaf, self)) for leaf in self.leaves for site in _readers(leaf)
        ]

    @contextmanager
    def along(self, direction: PerExample) -> Iterator[MoveTo]:
        """Yield `move_to(offset)`: until the block ends, example i sees theta + offset * Delta_i."""
        self._lookups.clear()
        offset, moved = 0.0, False
        reached: set[int] = set()

        def move_to(to: float) -> None:
            nonlocal offset, moved
            offset, moved = to, moved or to != 0

        def hook(responders: Sequence[tuple[Leaf, Responder]]) -> Callable[..., Tensor | None]:
            def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
                reached.update(leaf.id for leaf, _ in responders)
                if offset == 0:
                    return None
                assert self.layout is not None, "the losses set the layout before each forward"
                shifted = output
                for leaf, respond in responders:
                    # a row scale reads the module's own output, which the bias of the same module must not have shifted
                    shifted = respond(Call(direction, leaf, self.layout, args, kwargs, output, shifted, offset))
                return shifted

            return add

        handles = [
            module.register_forward_hook(hook(responders), with_kwargs=True) for module, responders in self._by_module()
        ]
        try:
            yield move_to
        finally:
            for handle in handles:
                handle.remove()
        missed = [leaf.name for leaf in self.leaves if leaf.id not in reached]
        if moved and missed:
            raise RuntimeError(
                f"the forward pass never ran the layer of {', '.join(missed[:3])}: leave it out of the subspace"
            )

    def cost(self, direction: PerExample) -> float:
        """Return what a displaced forward costs in plain ones: each perturbed product is done twice."""
        extra = sum(_product_cost(leaf, direction) for leaf, _, _ in self._matrix_sites())
        return 1.0 + extra / max(self.matmul_weights, 1)

    def record(self, leaf: Leaf, layout: Layout, ids: Tensor) -> None:
        """Remember the row numbers that one call of a table's module looked up."""
        recorded = any(number == leaf.id and numbers is ids for number, _, numbers in self._lookups)
        if not recorded:  # both forwards of a step look up the same batch
            self._lookups.append((leaf.id, layout, ids))

    @property
    def touched(self) -> dict[int, dict[int, Tensor]]:
        """Leaf id -> example -> rows of a table it looked up, on the CPU; worked out after the forwards."""
        rows_of: dict[int, dict[int, Tensor]] = {}
        for number, layout, ids in self._lookups:
            rows = rows_of.setdefault(number, {})
            for example, numbers in zip(layout.members, layout.distinct(ids.cpu()), strict=True):
                rows[example] = torch.unique(torch.cat([numbers, rows.get(example, numbers)]))
        return rows_of

    def _by_module(self) -> list[tuple[nn.Module, list[tuple[Leaf, Responder]]]]:
        return by_module((module, (leaf, respond)) for leaf, module, respond in self._responders)

    def _matrix_sites(self) -> list[tuple[Leaf, nn.Module, Responder]]:
        return [entry for entry in self._responders if entry[0].tensor.ndim > 1 and not _is_table(entry[1])]


def matmul_weights(model: nn.Module) -> int:
    """Return how many weights take part in a matrix product of one plain forward."""
    return sum(
        module.in_features * module.out_features if isinstance(module, nn.Linear) else _size(module)
        for module in model.modules()
        if is_linear(module)
    )


def backprop_cost(model: nn.Module, leaves: Sequence[Leaf], spared: float = 0.0) -> float:
    """Return what a forward and a backward cost in plain forwards: 3 where all weights move, 2 where few do.

    The backward goes through every product once, and once more where the weight's own gradient is wanted;
    a share of the products may be spared, those below the first layer that moves.
    """
    moving = sum(
        leaf.tensor.numel()
        for leaf in leaves
        if leaf.tensor.ndim > 1 and any(is_linear(site.module) for site in leaf.sites)
    )
    return 2.0 * (1.0 - spared) + min(1.0 - spared, moving / max(matmul_weights(model), 1))


def _size(module: nn.Module) -> int:
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.numel()


def _readers(leaf: Leaf) -> list[Site]:
    """The sites that read the leaf; a module that hands its parameter to a child (BERT's decoder bias) does not."""
    modules = {site.module for site in leaf.sites}
    return [site for site in leaf.sites if not modules & set(list(site.module.modules())[1:])]


def _is_table(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding)


def _product_cost(leaf: Leaf, direction: PerExample) -> float:
    if leaf.products is not None:
        return leaf.products
    rows, width = leaf.matrix.shape
    return direction.law.rank * (rows + width) if isinstance(direction.law, LowRank) else rows * width


@singledispatch
def responder(site: Site, leaf: Leaf, carrier: Flipout) -> Responder:
    """Return how a site's layer responds to per-example directions; other kinds of site register their own."""
    raise refusal(leaf, site)


@responder.register
def _(site: ParameterSite, leaf: Leaf, carrier: Flipout) -> Responder:
    module = site.module
    if isinstance(module, nn.Embedding):
        return _Table(site, leaf, carrier)
    if leaf.tensor.ndim == 1 and site.attribute == "bias":
        return _offset
    if leaf.tensor.ndim == 1 and site.attribute == "weight" and set(module._parameters) <= {"weight", "bias"}:
        return _NormWeight(site)
    if is_conv1d(module) and site.attribute == "weight":
        return _conv1d
    if isinstance(module, nn.Linear) and site.attribute == "weight":
        return _linear
    raise refusal(leaf, site)


def refusal(leaf: Leaf, site: Site) -> ValueError:
    """The error for a layer that cannot give each example its own direction."""
    kind = type(site.module).__name__
    return ValueError(
        f"per-example directions and {leaf.name} ({kind}) do not go together: leave it out of the subspace, or take "
        "a method with one direction for the whole batch"
    )


def _linear(call: Call) -> Tensor:
    x = call.x
    if isinstance(call.direction.law, LowRank):
        return _thin(call, call.direction.law)
    product = functional.linear(x * call.column_signs(x), call.base(x.dtype))
    return call.add(product * call.row_signs(product))


def _thin(call: Call, law: LowRank) -> Tensor:
    """U = L V^T: the signs go to the thin factors, (r_i * L) and (s_i * V), so activations are read once."""
    x = call.x
    left, right = (factor.to(x.dtype) for factor in law.factors(call.leaf, call.direction.key, x.device))
    examples = call.layout.on(x.device)
    r = call.direction.row_signs(call.leaf, x.device)[examples].to(x.dtype)
    s = call.direction.column_signs(call.leaf, x.device)[examples].to(x.dtype)
    call.layout.of(x)  # refuses a shape that does not split into rows
    stacked = x.reshape(call.layout.rows, -1, x.shape[-1])  # (rows, tokens, in)
    inner = torch.bmm(stacked, s.unsqueeze(2) * right)  # (rows, tokens, rank)
    outer = (r.unsqueeze(2) * left).transpose(1, 2)  # (rows, rank, out)
    shifted = call.shifted.reshape(call.layout.rows, -1, outer.shape[2])
    return torch.baddbmm(shifted, inner, outer, alpha=call.offset).view(call.shifted.shape)


def _conv1d(call: Call) -> Tensor:
    """Conv1D stores (in, out): the row signs meet the input, the column signs the output."""
    x = call.x
    product = (x * call.row_signs(x)) @ call.base(x.dtype)
    return call.add(product * call.column_signs(product))


def _offset(call: Call) -> Tensor:
    return call.add(call.base(call.output.dtype) * call.row_signs(call.output))


@dataclass(frozen=True)
class _NormWeight:
    """x_hat * u is the module's output with weight w + u less its own output, whatever its class."""

    site: ParameterSite

    def __call__(self, call: Call) -> Tensor:
        try:
            self.site.show(self.site.stored + call.base(self.site.stored.dtype))
            response = self.site.module.forward(*call.args, **call.kwargs) - call.output
        finally:
            self.site.hide()
        return call.add(response * call.row_signs(response))


@dataclass(frozen=True)
class _Table:
    """A look-up, also one that computes its row numbers itself (OPT's positions) or scales its output."""

    site: ParameterSite
    leaf: Leaf
    carrier: Flipout
    scales: list[float] = field(default_factory=list)  # what the module multiplies its output by, once observed

    def __call__(self, call: Call) -> Tensor:
        ids, scale = (call.x, 1.0) if looks_up_rows(self.site.module) else self._observe(call)
        ids = ids.expand(call.layout.rows, -1) if ids.shape[0] == 1 else ids
        if all(isinstance(site.module, nn.Embedding) for site in self.leaf.sites):
            self.carrier.record(self.leaf, call.layout, ids)
        numbers, inverse = looked_up(ids)
        u = torch.zeros(len(numbers), self.leaf.matrix.shape[1], device=ids.device, dtype=call.output.dtype)
        call.direction.base.displace(u, u, self.leaf, scale, numbers)
        examples = call.layout.of(ids)
        r = call.direction.row_signs(self.leaf, ids.device)[examples].gather(1, ids)
        s = call.direction.column_signs(self.leaf, ids.device)[examples]
        return call.add(functional.embedding(inverse, u) * (r.unsqueeze(-1) * s.unsqueeze(1)).to(u.dtype))

    def _observe(self, call: Call) -> tuple[Tensor, float]:
        """Find the row numbers and the scale by looking up a table of ones and a table of row numbers."""
        rows = len(self.leaf.tensor)
        ones = torch.ones(rows, 1, device=call.output.device)
        numbers = torch.arange(rows, device=ones.device, dtype=torch.float32).unsqueeze(1)
        try:
            if not self.scales:  # fetching it stops a GPU: once in a run
                self.site.show(ones)
                self.scales.append(float(self.site.module.forward(*call.args, **call.kwargs).max()))
            self.site.show(numbers)
            row_numbers = self.site.module.forward(*call.args, **call.kwargs).squeeze(-1) / self.scales[0]
        finally:
            self.site.hide()
        return row_numbers.round().long(), self.scales[0]
