"""What may move: leaves (trainable storages) and sites (the places where a module reads one).

A leaf owns the tensor that updates change. A site shows a module some other tensor in the leaf's place for
the length of one forward, so a probe never writes to the weights. For an ordinary parameter the two are one
storage; a quantisation scale (`subspaces/quantised.py`) or a 16-bit parameter with a float32 master has them apart.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

TILE = 2**17  # elements handled at once where a float32 copy is needed: half a megabyte stays in cache
GPU_TILE = 2**24  # there a launch costs more than the traffic it saves


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
        """Slices of rows of `matrix` that are worked on at once."""
        return tiles(self.matrix)

    def commit(self) -> None:
        """Make the module read the updated tensor, where it reads a copy of it."""
        for site in self.sites:
            site.commit()


Item = TypeVar("Item")


def by_module(pairs: Iterable[tuple[nn.Module, Item]]) -> list[tuple[nn.Module, list[Item]]]:
    """Return each module once with all that was paired with it, in the order of first appearance."""
    groups: dict[int, tuple[nn.Module, list[Item]]] = {}
    for module, item in pairs:
        groups.setdefault(id(module), (module, []))[1].append(item)
    return list(groups.values())


def tiles(matrix: Tensor) -> Iterator[slice]:
    """Slices of rows of a matrix, of about TILE elements each, or GPU_TILE."""
    rows, width = matrix.shape
    step = max(1, (TILE if matrix.device.type == "cpu" else GPU_TILE) // max(width, 1))
    return (slice(first, min(first + step, rows)) for first in range(0, rows, step))
