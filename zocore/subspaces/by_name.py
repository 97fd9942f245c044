"""Subspaces by name: every parameter of a model, or those whose name matches a pattern, as leaves."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from zocore.weights.leaf import Leaf, ParameterSite

# MeZO exempts tensors by these substrings of the name (large_models/trainer.py); norms of other names decay too
DECAY_EXEMPT = ("bias", "layer_norm", "layernorm")


@dataclass
class _Storage:
    name: str
    tensor: Tensor
    sites: list[ParameterSite] = field(default_factory=list)


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
    storages: dict[int, _Storage] = {}
    for prefix, module in model.named_modules(remove_duplicate=True):
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                name = f"{prefix}.{attribute}" if prefix else attribute
                parameter.data = parameter.data.contiguous()  # so that a leaf's matrix is a view of it
                storage = storages.setdefault(id(parameter), _Storage(name, parameter.data))
                storage.sites.append(ParameterSite(module, attribute, storage.tensor))
    return list(storages.values())
