"""What a run changed, as one safetensors file, and adapters folded into the weights they adapt."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from zocore.errors import InputError
from zocore.events import RunStarted
from zocore.subspace import Leaf

FORMAT = "zocore delta 1"


def save_delta(path: Path, leaves: Sequence[Leaf], header: RunStarted) -> None:
    """Write the leaves' tensors by name, with the base model's id and fingerprint."""
    metadata = {"format": FORMAT, "base_model": header.model, "base_fingerprint": header.fingerprint}
    save_file({leaf.name: leaf.tensor.detach().cpu().contiguous() for leaf in leaves}, path, metadata)


def load_delta(path: Path, leaves: Sequence[Leaf], fingerprint: str) -> None:
    """Give the leaves of a freshly loaded base model the file's values.

    Raises InputError when the file is none of ours, or belongs to another base model or other tensors.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise InputError(f"{path.name} is no file of tuned weights")
        if metadata["base_fingerprint"] != fingerprint:
            raise InputError(f"{path.name} belongs to other base weights ({metadata['base_model']})")
        found = {name: file.get_tensor(name) for name in list(file.keys())}
    if {leaf.name: leaf.tensor.shape for leaf in leaves} != {name: t.shape for name, t in found.items()}:
        raise InputError(
            f"{path.name} holds other tensors than this subspace: open the model with the run's --subspace"
        )
    with torch.no_grad():
        for leaf in leaves:
            leaf.tensor.copy_(found[leaf.name])
            leaf.commit()


def merge_adapters(model: nn.Module) -> None:
    """Add every adapter's product to the layer it adapts and put that layer back in its place."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "base_layer") and hasattr(module, "merge"):
            module.merge()
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, module.base_layer)
