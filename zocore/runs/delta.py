"""What a run changed, as one safetensors file, and a base model made the tuned one again by it.

A file holds the values of the leaves by name; its metadata say which base model they belong to, with the run's
settings, labels and prompt, so that the file and the base model are enough to predict or export. Two formats:

    zocore delta 1     parameters and adapters; the base is known by the fingerprint of all its weights
    zocore scales 1    float32 quantisation scales; the base is known by its codes, for scales mean nothing on
                       others, and by those of its scales that are not in the file
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zocore.config import RunConfig
from zocore.data.tasks import Task
from zocore.errors import InputError
from zocore.runs.opening import open_session
from zocore.runs.session import Session
from zocore.subspaces.quantised import is_four_bit, quant_scales, quantised
from zocore.subspaces.quantised_sites import FourBitScales, RowScales, refuse_packed
from zocore.weights.leaf import Leaf

WEIGHTS, SCALES = "zocore delta 1", "zocore scales 1"
TASK = ("name", "title", "template", "label_names", "label_words")  # of the task, what a prediction needs


@dataclass(frozen=True)
class Delta:
    """A file of changes, read: each leaf's tensor by name, and what they belong to."""

    name: str  # of the file
    metadata: dict[str, str]
    tensors: dict[str, Tensor]

    def lay_over(self, leaves: Sequence[Leaf], model: nn.Module, fingerprint: str) -> None:
        """Give the leaves of a freshly loaded base model the file's values.

        `fingerprint` is that of all the base's weights. Raises InputError when the file belongs to other weights,
        or has other tensors than the leaves.
        """
        if self.metadata["format"] == SCALES:
            leaves = [leaf for leaf in leaves if leaf.name in self.tensors]
            self._check_scales(leaves, model)
        else:
            self._check_weights(leaves, fingerprint)
        with torch.no_grad():
            for leaf in leaves:
                leaf.tensor.copy_(self.tensors[leaf.name])
                leaf.commit()

    def _check_weights(self, leaves: Sequence[Leaf], fingerprint: str) -> None:
        if self.metadata["base_fingerprint"] != fingerprint:
            raise InputError(f"{self.name} belongs to other base weights ({self.metadata['base_model']})")
        if {leaf.name: leaf.tensor.shape for leaf in leaves} != {name: t.shape for name, t in self.tensors.items()}:
            raise InputError(f"{self.name} holds other tensors than this subspace: take the settings of its run")

    def _check_scales(self, leaves: Sequence[Leaf], model: nn.Module) -> None:
        base = f"the scales in {self.name!r} belong to {self.metadata['base_model']} in {self.metadata['quantiser']}"
        missing = self.tensors.keys() - {leaf.name for leaf in leaves}
        if missing:
            raise InputError(f"{base}: this model has no {min(missing)}")
        for leaf in leaves:
            there, here = tuple(self.tensors[leaf.name].shape), tuple(leaf.tensor.shape)
            if there != here:
                raise InputError(f"{base}: {leaf.name} has shape {there} there and {here} here")
        if self.metadata["codes"] != codes_fingerprint(model):
            raise InputError(f"{base}: this model has other quantised weights")
        if self.metadata["other_scales"] != _other_scales(leaves, model):
            nested = self.metadata["nested"]
            raise InputError(f"{base} (double quantisation: {nested}): this model's other scales differ")


def save_delta(path: Path, leaves: Sequence[Leaf], model: nn.Module, about: dict[str, str]) -> None:
    """Write the leaves' tensors with the metadata `about` them: base_model, base_fingerprint and more.

    The format is that of scales when all leaves are quantisation scales. Raises ValueError when only some are.
    """
    scales = [isinstance(leaf.sites[0], FourBitScales | RowScales) for leaf in leaves]
    if any(scales) and not all(scales):
        other = leaves[scales.index(False)].name
        raise ValueError(f"{other} is no quantisation scale: one file cannot hold it and scales")
    metadata = {"format": SCALES, **_about_scales(leaves, model)} if all(scales) else {"format": WEIGHTS}
    tensors = {leaf.name: leaf.tensor.detach().cpu().contiguous() for leaf in leaves}
    save_file(tensors, path, about | metadata)


def save_session(folder: Path, session: Session) -> None:
    """Write what a session's run changed into a folder: scales.safetensors, or delta.safetensors for all else."""
    name = "scales" if session.config.subspace == "scales" else "delta"
    about = {
        "base_model": session.loaded.name,
        "base_fingerprint": session.loaded.fingerprint,
        "settings": json.dumps(session.config.to_json()),
        "frozen": json.dumps(list(session.frozen)),
        "task": json.dumps({field: getattr(session.task, field) for field in TASK}),
    }
    save_delta(folder / f"{name}.safetensors", session.leaves, session.loaded.model, about)


def read_delta(path: Path) -> Delta:
    """Read a file of changes. Raises InputError when it is none or cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"there is no file {str(path)!r}") from None
    except (OSError, SafetensorError):
        raise InputError(f"the file {path.name!r} is not a safetensors file that can be read") from None
    if metadata.get("format") not in (WEIGHTS, SCALES):
        raise InputError(f"the file {path.name!r} does not hold what a run changed: `zocore export --delta` writes one")
    return Delta(path.name, metadata, tensors)


def open_delta(model: str, path: Path) -> Session:
    """Return a session on a base model ("bundled", folder or hub id) that the file has made the tuned one.

    Its task has the run's prompt and labels and no examples. Raises InputError when file and model do not fit.
    """
    delta = read_delta(path)
    if "settings" not in delta.metadata:
        raise InputError(f"{path.name} does not say how its model was loaded: export it again from its run")
    config = RunConfig.from_json(json.loads(delta.metadata["settings"]))
    if str(config.device).startswith("cuda") and not torch.cuda.is_available():
        config = replace(config, device="cpu")
    texts = json.loads(delta.metadata["task"])
    texts |= {"label_names": tuple(texts["label_names"]), "label_words": tuple(texts["label_words"])}
    task = Task(**texts, train=(), dev=(), test=())
    session = open_session(replace(config, model=model), json.loads(delta.metadata["frozen"]), task)
    delta.lay_over(session.leaves, session.loaded.model, session.loaded.fingerprint)
    return session


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


def _about_scales(leaves: Iterable[Leaf], model: nn.Module) -> dict[str, str]:
    modules = [module for _, module in quantised(model)]
    return {
        "codes": codes_fingerprint(model),
        "other_scales": _other_scales(leaves, model),
        "quantiser": _all(_quantiser(module) for module in modules),
        "block_size": _all(str(_block(module)) for module in modules),
        "nested": _all(str(_nested(module)) for module in modules),
        **{package: version(package) for package in ("bitsandbytes", "torch", "transformers")},
    }


def _other_scales(leaves: Iterable[Leaf], model: nn.Module) -> str:
    """Hash of the scales that are not in the file: they too must be those of the base model."""
    in_file = {leaf.name for leaf in leaves}
    digest = hashlib.sha256()
    for leaf in quant_scales(model):
        if leaf.name not in in_file:
            digest.update(leaf.name.encode() + _bytes(leaf.tensor))
    return digest.hexdigest()


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
