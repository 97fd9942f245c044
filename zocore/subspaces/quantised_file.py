"""Tuned scales as a small file, to be laid over the same quantised base model again.

A safetensors file holds each layer's float32 scales under the name the leaf has; its metadata says which base
model they belong to. A hash of the codes ties the two together: scales mean nothing on other codes.
"""

import hashlib
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zocore.errors import InputError
from zocore.subspaces.quantised import is_four_bit, quant_scales, quantised
from zocore.subspaces.quantised_sites import FourBitScales, RowScales, refuse_packed
from zocore.weights.leaf import Leaf

FORMAT = "zocore scales 1"


def codes_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of every quantised layer's codes, name, quantiser and block size, not its scales.

    Raises RuntimeError when a layer was packed, which puts its codes in another order.
    """
    digest = hashlib.sha256()
    for name, module in quantised(model):
        if is_four_bit(module):
            refuse_packed(module.weight.quant_state)
        digest.update(f"{name} {_quantiser(module)} {_block(module)}\n".encode())
        digest.update(_bytes(module.weight.data))
    return digest.hexdigest()


def save_scales(path: str | Path, leaves: Sequence[Leaf], model: nn.Module, base_id: str) -> None:
    """Write the leaves' scales and what they belong to; `base_id` names the base model for people.

    Raises ValueError when a leaf is no quantisation scale.
    """
    other = [leaf.name for leaf in leaves if not isinstance(leaf.sites[0], FourBitScales | RowScales)]
    if other:
        raise ValueError(f"{other[0]} is no quantisation scale: a file of scales cannot hold it")
    save_file({leaf.name: leaf.tensor.cpu() for leaf in leaves}, path, _metadata(leaves, model, base_id))


def load_scales(path: str | Path, model: nn.Module) -> list[Leaf]:
    """Prepare a freshly loaded base model, give it the file's scales and return them as leaves.

    Raises InputError when the file cannot be read or belongs to other codes, shapes or layers.
    """
    metadata, scales = _read(Path(path))
    leaves = [leaf for leaf in quant_scales(model) if leaf.name in scales]
    _check(Path(path).name, metadata, scales, leaves, model)
    for leaf in leaves:
        leaf.tensor.copy_(scales[leaf.name])
        leaf.commit()
    return leaves


def _metadata(leaves: Iterable[Leaf], model: nn.Module, base_id: str) -> dict[str, str]:
    modules = [module for _, module in quantised(model)]
    return {
        "format": FORMAT,
        "base_model": base_id,
        "codes": codes_fingerprint(model),
        "other_scales": _other_scales(leaves, model),
        "quantiser": _all(_quantiser(module) for module in modules),
        "block_size": _all(str(_block(module)) for module in modules),
        "nested": _all(str(_nested(module)) for module in modules),
        **{package: version(package) for package in ("bitsandbytes", "torch", "transformers")},
    }


def _other_scales(leaves: Iterable[Leaf], model: nn.Module) -> str:
    """Hash of the scales that are not in the file: they too must be those of the base model."""
    chosen = {leaf.name for leaf in leaves}
    digest = hashlib.sha256()
    for leaf in quant_scales(model):
        if leaf.name not in chosen:
            digest.update(leaf.name.encode() + _bytes(leaf.tensor))
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            scales = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"there is no file {str(path)!r}") from None
    except (OSError, SafetensorError):
        raise InputError(f"the file {path.name!r} is not a safetensors file that can be read") from None
    if metadata.get("format") != FORMAT:
        raise InputError(f"the file {path.name!r} does not hold tuned quantisation scales")
    return metadata, scales


def _check(
    name: str, metadata: dict[str, str], scales: dict[str, Tensor], leaves: Sequence[Leaf], model: nn.Module
) -> None:
    base = f"the scales in {name!r} belong to {metadata['base_model']} in {metadata['quantiser']}"
    missing = scales.keys() - {leaf.name for leaf in leaves}
    if missing:
        raise InputError(f"{base}: this model has no {min(missing)}")
    for leaf in leaves:
        if leaf.tensor.shape != scales[leaf.name].shape:
            found, here = tuple(scales[leaf.name].shape), tuple(leaf.tensor.shape)
            raise InputError(f"{base}: {leaf.name} has shape {found} there and {here} here")
    if metadata["codes"] != codes_fingerprint(model):
        raise InputError(f"{base}: this model has other quantised weights")
    if metadata["other_scales"] != _other_scales(leaves, model):
        raise InputError(f"{base} (double quantisation: {metadata['nested']}): this model's other scales differ")


def _quantiser(module: Any) -> str:
    return str(module.weight.quant_state.quant_type) if is_four_bit(module) else "int8"


def _block(module: Any) -> int:
    """Weights that share one scale."""
    return int(module.weight.quant_state.blocksize if is_four_bit(module) else module.in_features)


def _nested(module: Any) -> bool:
    """Whether the layer was double quantised before it was prepared."""
    return is_four_bit(module) and bool(module.weight.compress_statistics)


def _all(words: Iterable[str]) -> str:
    return ", ".join(sorted(set(words)))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().reshape(-1).contiguous().cpu().view(torch.uint8).numpy().tobytes()
