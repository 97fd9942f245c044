"""What a run changed, as one safetensors file, and adapters folded into the weights they adapt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from zocore.errors import InputError
from zocore.runs.events import RunStarted
from zocore.subspaces.quantised import is_four_bit, is_int8
from zocore.weights.leaf import Leaf

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


def merge_adapters(model: Any) -> bool:
    """Add every adapter's product to the layer it adapts and put that layer back in its place.

    An adapter is finer than the steps of a few-bit weight, which would round it away: a quantised model with
    adapters is widened first, all its layers. Returns whether it was.
    """
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    widened = bool(adapted) and getattr(model, "hf_quantizer", None) is not None
    for name, module in adapted.items():
        layer = _plain(module.base_layer) if widened else module.base_layer
        for adapter in module.active_adapters:
            layer.weight.data += module.get_delta_weight(adapter).to(layer.weight.dtype)
        _replace(model, name, layer)
    if widened:
        for name, module in [(n, m) for n, m in model.named_modules() if is_four_bit(m) or is_int8(m)]:
            _replace(model, name, _plain(module))
        model.hf_quantizer.remove_quantization_config(model)
    return widened


def _plain(layer: nn.Module) -> nn.Module:
    """Return a quantised linear layer in the precision of its other weights, any other layer as it is."""
    if not (is_four_bit(layer) or is_int8(layer)):
        return layer
    from peft.utils.integrations import dequantize_module_weight

    weight = dequantize_module_weight(layer).detach()
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)
    plain.bias = layer.bias  # type: ignore[assignment]
    return plain.eval()


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
