"""Pushes on what linear layers put out, inside one batched forward, and the inputs that turn pushes into updates.

No weight is touched: a hook adds offset * xi to the output of a layer, padding left out. In a forward at offset
zero the same hooks keep what the layers read, since the gradient of W in y = W x + b is the gradient of y times x.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from zocore.carriers.layout import Layout
from zocore.directions.pushes import Pushes, Tie
from zocore.weights.leaf import Leaf, ParameterSite
from zocore.weights.linear import is_conv1d, is_linear, outputs_of


@dataclass(frozen=True, eq=False)
class OutputSite:
    """A linear layer whose output is pushed: y = W x + b, of which the weight, the bias or both may move."""

    module: nn.Module
    weight: Leaf | None
    bias: Leaf | None
    last: bool = False  # nothing after it mixes tokens: only the positions that the head reads can matter

    @property
    def id(self) -> int:
        """Address of its pushes."""
        leaf = self.weight or self.bias
        assert leaf is not None
        return leaf.id

    @property
    def transposed(self) -> bool:
        """Whether the weight is stored as (in, out), as GPT-2's is."""
        return is_conv1d(self.module)

    @property
    def width(self) -> int:
        """Number of outputs."""
        return outputs_of(self.module)


def output_sites(leaves: Sequence[Leaf], last: Sequence[nn.Module] = ()) -> list[OutputSite]:
    """Return the linear layers that read the leaves, each once; `last` are those after which tokens no longer mix.

    Raises ValueError for a leaf that is not the weight or bias of one linear layer.
    """
    layers: dict[nn.Module, dict[str, Leaf]] = {}
    for leaf in leaves:
        site = leaf.sites[0]
        if len(leaf.sites) > 1 or not isinstance(site, ParameterSite) or not is_linear(site.module):
            raise ValueError(
                f"pushes on activities and {leaf.name} ({type(site.module).__name__}) do not go together: they move "
                "linear layers alone; take --subspace writers or lora"
            )
        layers.setdefault(site.module, {})[site.attribute] = leaf
    return [OutputSite(module, own.get("weight"), own.get("bias"), module in last) for module, own in layers.items()]


@dataclass(frozen=True)
class Seen:
    """What each site read in one clean forward, by site id.

    Tied over tokens (rows, in): the mean over the positions that count. Else (rows * tokens, in), zero where they
    do not. `numbers` are the rows' numbers over the whole batch, `examples` the example of each row.
    """

    sites: Sequence[OutputSite]
    inputs: dict[int, Tensor]
    counted: dict[int, Tensor]  # (rows, tokens) float: 1 where a position counts
    numbers: Tensor
    examples: Tensor


def joined(parts: Sequence[Seen]) -> Seen:
    """Return what the micro-batches of one batch read as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Seen(
        first.sites,
        {site: torch.cat([part.inputs[site] for part in parts]) for site in first.inputs},
        {site: torch.cat([part.counted[site] for part in parts]) for site in first.counted},
        torch.cat([part.numbers for part in parts]),
        torch.cat([part.examples for part in parts]),
    )


@dataclass
class Outputs:
    """Carries pushes. Raises RuntimeError when a forward never runs a site."""

    sites: Sequence[OutputSite]
    tie: Tie = "tokens"
    layout: Layout | None = None  # of the forward to come; set by the losses
    _inputs: dict[int, Tensor] = field(default_factory=dict)
    _counted: dict[int, Tensor] = field(default_factory=dict)

    @contextmanager
    def along(self, direction: Pushes) -> Iterator[Callable[[float], None]]:
        """Yield `move_to(offset)`: until the block ends, the sites put out y + offset * xi."""
        offset = 0.0

        def move_to(to: float) -> None:
            nonlocal offset
            offset = to

        def hook(site: OutputSite) -> Callable[..., Tensor | None]:
            def push(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
                return None if offset == 0 else torch.add(output, self._push(site, direction, output), alpha=offset)

            return push

        handles = [site.module.register_forward_hook(hook(site)) for site in self.sites]
        try:
            yield move_to
        finally:
            _remove(handles)

    @contextmanager
    def watching(self) -> Iterator[Callable[[], Seen]]:
        """Yield a function that returns what the sites read in the forward just done inside the block."""
        self._inputs, self._counted = {}, {}
        handles = [site.module.register_forward_pre_hook(self._keep(site)) for site in self.sites]
        try:
            yield self._seen
        finally:
            _remove(handles)
            self._inputs, self._counted = {}, {}

    def cost(self, direction: Pushes) -> float:
        """A pushed forward does the arithmetic of a plain one."""
        return 1.0

    def _push(self, site: OutputSite, direction: Pushes, output: Tensor) -> Tensor:
        layout = self._current
        counts = layout.counted(site.last).to(output.device, non_blocking=True)
        numbers = layout.numbers.to(output.device, non_blocking=True)
        xi = direction.signs(site.id, numbers, counts.shape[1], output.shape[-1])
        pushed = xi * counts.unsqueeze(-1)
        return pushed.to(output.dtype).reshape(output.shape)

    def _keep(self, site: OutputSite) -> Callable[..., None]:
        def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            counts = self._current.counted(site.last).to(args[0].device)
            x = args[0].detach().reshape(*counts.shape, -1).float() * counts.unsqueeze(-1)
            if self.tie == "tokens":
                x = x.sum(1) / counts.sum(1, keepdim=True).clamp(min=1)
            self._inputs[site.id] = x.reshape(-1, x.shape[-1])
            self._counted[site.id] = counts

        return keep

    def _seen(self) -> Seen:
        missed = [site for site in self.sites if site.id not in self._inputs]
        if missed:
            leaf = missed[0].weight or missed[0].bias
            raise RuntimeError(f"the forward pass never ran the layer of {leaf.name if leaf else ''}: leave it out")
        layout = self._current
        device = next(iter(self._inputs.values())).device
        numbers = layout.numbers.to(device, non_blocking=True)
        return Seen(self.sites, dict(self._inputs), dict(self._counted), numbers, layout.on(device))

    @property
    def _current(self) -> Layout:
        assert self.layout is not None, "the losses set the layout before each forward"
        return self.layout


def _remove(handles: Sequence[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
