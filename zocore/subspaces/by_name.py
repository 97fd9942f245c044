"""Subspaces by name: every parameter of a model, or those whose name matches a pattern, as leaves."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor, nn

from zocore.weights.leaf import Leaf, ParameterSite

# MeZO exempts tensors by these substrings of the name (large_models/trainer.py); norms of other names decay too
DECAY_EXEMPT = ("bias", "layer_norm", "layernorm")
GLOB = "glob:"  # begins a pattern that is no regular expression


@dataclass
class _Storage:
    name: str
    tensor: Tensor
    sites: list[ParameterSite] = field(default_factory=list)


def all_weights(model: nn.Module, master: bool = False) -> list[Leaf]:
    """Return every floating-point parameter as a leaf, tied ones once (MeZO's full-parameter tuning)."""
    return matching(model, "", master)


def matching(model: nn.Module, pattern: str, master: bool = False) -> list[Leaf]:
    """Return the parameters whose name matches the regular expression, or "glob:" and a pattern, somewhere.

    With `master`, 16-bit parameters get a float32 copy that updates change, so that small steps add up.

    Raises ValueError when the pattern is not a regular expression or no floating-point parameter matches.
    """
    matches = name_pattern(pattern)
    storages = [s for s in _storages(model) if s.tensor.is_floating_point()]
    leaves = [_leaf(s, number, master) for number, s in enumerate(storages) if matches(s.name)]
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


def name_pattern(pattern: str) -> Callable[[str], object]:
    """Return what tells whether a name matches a subspace's pattern somewhere.

    A regular expression can take time exponential in the name; "glob:" and a pattern with * and ? cannot, so it is
    what a server takes from strangers. Raises ValueError when the pattern is not a regular expression.
    """
    if pattern.startswith(GLOB):
        return partial(contains, pattern.removeprefix(GLOB))
    try:
        return re.compile(pattern).search
    except re.error as error:
        raise ValueError(f"the subspace pattern {pattern!r} is not a regular expression: {error}") from None


def contains(glob: str, name: str) -> bool:
    """Whether a name holds a pattern somewhere: * stands for any characters, ? for one.

    The pieces between the stars are found one after the other, each as early as possible, so the time is at most
    the product of the two lengths.
    """
    start = 0
    for piece in glob.split("*"):
        fits = (at for at in range(start, len(name) - len(piece) + 1) if _fits(piece, name, at))
        at = next(fits, None)
        if at is None:
            return False
        start = at + len(piece)
    return True


def _fits(piece: str, name: str, at: int) -> bool:
    return all(wanted in ("?", name[at + k]) for k, wanted in enumerate(piece))


def without(leaves: Sequence[Leaf], names: Sequence[str]) -> list[Leaf]:
    """Return the leaves whose name is not among `names`; ids stay."""
    return [leaf for leaf in leaves if leaf.name not in names]


def _storages(model: nn.Module) -> list[_Storage]:
    """Every parameter storage once, in the order of `named_parameters`, with all sites that read it."""
    storages: dict[int, _Storage] = {}
    for prefix, module in model.named_modules(remove_duplicate=True):
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                name = f"{prefix}.{attribute}" if prefix else attribute
                parameter.data = parameter.data.contiguous()  # so that a leaf's matrix is a view of it
                storage = storages.setdefault(id(parameter), _Storage(name, parameter.data))
                storage.sites.append(ParameterSite(module, attribute, storage.tensor))
    return list(storages.values())
