"""What may move: leaves (trainable storages) and sites (the places where a module reads one).

A leaf owns the tensor that updates change. A site shows a module some other tensor in the leaf's place for
the length of one forward, so a probe never writes to the weights. For an ordinary parameter the two are one
storage; a quantisation scale (`quant.py`) or a 16-bit parameter with a float32 master has them apart.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

TILE = 2**17  # elements handled at once where a float32 copy is needed: half a megabyte stays in cache

# MeZO exempts tensors by these substrings of the name (large_models/trainer.py); norms of other names decay too
DECAY_EXEMPT = ("bias", "layer_norm", "layernorm")


class Site(Protocol):
    """One place where a module reads a leaf."""

    @property
    def module(self) -> nn.Module:
        """The module that reads it."""

    def show(self, tensor: Tensor) -> None:
        """Make the module read `tensor` in the leaf's place."""

    def hide(self) -> None:
        """Make the module read the leaf again."""

    def commit(self) -> None:
        """Make the module read the leaf as an update left it."""


@dataclass(frozen=True, eq=False)
class ParameterSite:
    """A parameter of a module; showing swaps the data pointer, so the parameter object keeps its identity."""

    module: nn.Module
    attribute: str
    stored: Tensor  # the parameter's own data
    master: Tensor | None = None  # a wider copy that updates change, where there is one

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter object itself."""
        return self.module._parameters[self.attribute]  # type: ignore[return-value]

    def show(self, tensor: Tensor) -> None:
        """Point the parameter at `tensor`, of the parameter's shape and dtype."""
        self.parameter.data = tensor

    def hide(self) -> None:
        """Point the parameter back at its own storage."""
        self.parameter.data = self.stored

    def commit(self) -> None:
        """Round the master, if there is one, into the parameter's own storage."""
        if self.master is not None:
            self.stored.copy_(self.master)
        self.hide()


@dataclass(frozen=True, eq=False)
class Leaf:
    """One trainable storage, ties counted once; `id` is its place in the model's full list of storages."""

    name: str
    id: int
    tensor: Tensor  # what an update changes, of any shape
    sites: tuple[Site, ...]
    decay: bool = True  # whether weight decay acts on it
    floor: float | None = None  # smallest value an update may leave
    shown_dtype: torch.dtype | None = None  # dtype the module reads, where it is not the tensor's own
    products: int | None = None  # weights of a per-example forward's extra product, where not the tensor's size

    @property
    def matrix(self) -> Tensor:
        """The tensor as (rows, width): vectors as one column, convolutions with the first axis as rows."""
        return self.tensor.reshape(self.tensor.shape[0], -1) if self.tensor.ndim else self.tensor.view(1, 1)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype in which the module reads the leaf."""
        return self.shown_dtype or self.tensor.dtype

    def tiles(self) -> Iterator[slice]:
        """Slices of rows of `matrix` of about TILE elements."""
        rows, width = self.matrix.shape
        step = max(1, TILE // max(width, 1))
        return (slice(first, min(first + step, rows)) for first in range(0, rows, step))

    def commit(self) -> None:
        """Make the module read the updated tensor, where it reads a copy of it."""
        for site in self.sites:
            site.commit()


@dataclass
class _Storage:
    name: str
    tensor: Tensor
    sites: list["ParameterSite"] = field(default_factory=list)


def all_weights(model: nn.Module, master: bool = False) -> list[Leaf]:
    """Return every floating-point parameter as a leaf, tied ones once (MeZO's full-parameter tuning)."""
    return matching(model, "", master)


def matching(model: nn.Module, pattern: str, master: bool = False) -> list[Leaf]:
    """Return the parameters whose name matches the regular expression somewhere.

    With `master`, 16-bit parameters get a float32 copy that updates change, so that small steps add up.

    Raises ValueError when the pattern is not a regular expression or no floating-point parameter matches.
    """
    wanted = name_pattern(pattern)
    storages = [s for s in _storages(model) if s.tensor.is_floating_point()]
    leaves = [_leaf(s, number, master) for number, s in enumerate(storages) if wanted.search(s.name)]
    if not leaves:
        names = ", ".join(s.name for s in storages[:4])
        raise ValueError(f"no parameter name matches {pattern!r}; names look like {names}")
    return leaves


def _leaf(storage: _Storage, number: int, master: bool) -> Leaf:
    decay = not any(word in storage.name for word in DECAY_EXEMPT)
    if not (master and storage.tensor.itemsize == 2):
        return Leaf(storage.name, number, storage.tensor, tuple(storage.sites), decay)
    tensor = storage.tensor.float()
    sites = tuple(replace(site, master=tensor) for site in storage.sites)
    return Leaf(storage.name, number, tensor, sites, decay, shown_dtype=storage.tensor.dtype)


def name_pattern(pattern: str) -> re.Pattern[str]:
    """Return the compiled pattern of a subspace. Raises ValueError when it is not a regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"the subspace pattern {pattern!r} is not a regular expression: {error}") from None


def without(leaves: Sequence[Leaf], names: Sequence[str]) -> list[Leaf]:
    """Return the leaves whose name is not among `names`; ids stay."""
    return [leaf for leaf in leaves if leaf.name not in names]


def _storages(model: nn.Module) -> list[_Storage]:
    """Every parameter storage once, in the order of `named_parameters`, with all sites that read it."""
    found: dict[int, _Storage] = {}
    for prefix, module in model.named_modules(remove_duplicate=True):
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                name = f"{prefix}.{attribute}" if prefix else attribute
                parameter.data = parameter.data.contiguous()  # so that a leaf's matrix is a view of it
                storage = found.setdefault(id(parameter), _Storage(name, parameter.data))
                storage.sites.append(ParameterSite(module, attribute, storage.tensor))
    return list(found.values())
