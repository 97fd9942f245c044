"""A tuned model written as a Hugging Face folder, its adapters folded into the weights they adapt."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zocore.errors import InputError
from zocore.models.objectives.encoder import LabelSimilarity
from zocore.models.quiet import quiet
from zocore.runs.session import Session
from zocore.subspaces.quantised import is_four_bit, is_int8


def check_free(folder: Path) -> None:
    """Raise InputError when the folder to write already holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} already exists and is not empty: choose another --to")


@contextmanager
def whole(to: Path) -> Iterator[Path]:
    """A folder to write into that becomes `to` at the end, so that a killed export leaves no half of one there."""
    stage = to.parent / f".{to.name}.unfinished"
    shutil.rmtree(stage, ignore_errors=True)  # of an export that was killed
    stage.mkdir(parents=True)
    try:
        yield stage
        if to.exists():
            to.rmdir()
        stage.replace(to)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_model(session: Session, folder: Path) -> str:
    """Write the session's model and tokenizer; return a note on its precision, empty for the usual one."""
    model = session.loaded.model
    widened = merge_adapters(model)
    with torch.no_grad(), quiet():
        model.save_pretrained(folder)  # type: ignore[operator]
    session.loaded.tokenizer.save_pretrained(folder)
    if isinstance(session.objective, LabelSimilarity):
        session.objective.save_anchors(folder)
    return ", in full precision: its few bits would round the adapters away" if widened else ""


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
