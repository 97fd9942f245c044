"""Loading a language model for its losses: in eval mode, frozen, without a key-value cache, from safetensors.

No code from a checkpoint is ever run, and weights that a checkpoint lacks are drawn from the run's own seed.
"""

import hashlib
import inspect
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from zocore.errors import InputError
from zocore.models.files import Source, find_model
from zocore.models.kinds import KINDS, kind_of
from zocore.models.quiet import quiet
from zocore.noise import addressed

QUANTISERS = ("nf4", "fp4", "int8")

LOADING = threading.Lock()  # transformers patches torch while it loads: two threads at once break each other
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready for losses and moves, with its tokenizer and what identifies its weights."""

    model: nn.Module
    tokenizer: Any
    kind: str  # one of `KINDS`
    name: str  # as the user gave it
    path: str  # folder or hub id
    fingerprint: str  # sha256 over the names and bytes of all weights as loaded
    notes: tuple[str, ...] = ()  # what the user should know, one sentence for each thing


def load(
    name_or_path: str | Path = "bundled",
    *,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str = "cpu",
    quantise: str | None = None,
    kind: str | None = None,
    labels: Sequence[str] | None = None,
    allow_pickle: bool = False,
    seed: int = 0,
) -> LoadedModel:
    """Load "bundled", a Hugging Face folder or a hub id, quantised to nf4, fp4 or int8 if wished.

    The kind (causal, masked, classifier or encoder) is taken from the configuration unless it is given.
    `labels` name the outputs of a classification head; a head that is missing, or of another size, is drawn
    from `seed` and mentioned in `notes`. Raises InputError with one sentence for whatever cannot be loaded.
    """
    source = find_model(name_or_path, allow_pickle)
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": source.offline}
    with LOADING, quiet():
        config = _tried(source, transformers.AutoConfig.from_pretrained, options)
        kind = _checked_kind(kind or kind_of(config), config, quantise)
        tokenizer = _tried(source, transformers.AutoTokenizer.from_pretrained, options)
        if KINDS[kind].labelled and labels is not None:
            _name_outputs(config, labels)
        options |= _class_options(kind, config) | _quantisation(quantise, _dtype(dtype), device)
        options |= {"device_map": "auto"} if device == "auto" else {}
        options |= {"config": config, "dtype": _dtype(dtype), "use_safetensors": not allow_pickle or None}
        options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = _tried(source, KINDS[kind].load_class().from_pretrained, options)
    notes = _complete(model, kind, info, seed, source)
    if device == "auto":
        _refuse_offload(model, source)
    elif quantise is None:
        model.to(device)
    _prepare(model, tokenizer)
    return LoadedModel(model, tokenizer, kind, source.name, source.location, fingerprint(model), notes)


def fingerprint(model: nn.Module) -> str:
    """Return the sha256 (hex) over names, dtypes, shapes and bytes of all weights, tied ones once."""
    digest = hashlib.sha256()
    storages: set[int] = set()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor) and tensor.data_ptr() not in storages:
            storages.add(tensor.data_ptr())
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().reshape(-1).contiguous().cpu()
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    named = DTYPES.get(dtype) or getattr(torch, dtype, None)
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise InputError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    return named


def _checked_kind(kind: str, config: Any, quantise: str | None) -> str:
    if kind not in KINDS:
        raise InputError(f"unknown model kind {kind!r}: choose one of {', '.join(KINDS)}")
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"models of type {config.model_type} are encoder-decoders, which are not supported: "
            "choose a decoder such as Llama or OPT, or an encoder such as BERT"
        )
    if quantise is not None and quantise not in QUANTISERS:
        raise InputError(f"unknown quantisation {quantise!r}: choose one of {', '.join(QUANTISERS)}")
    return kind


def _name_outputs(config: Any, labels: Sequence[str]) -> None:
    """Give the head one output per label; outputs that have names of their own keep them."""
    if config.num_labels != len(labels):
        config.num_labels = len(labels)  # this calls them LABEL_0, LABEL_1, ...
    if all(name == f"LABEL_{number}" for number, name in config.id2label.items()):
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: number for number, name in enumerate(labels)}


def _class_options(kind: str, config: Any) -> dict[str, Any]:
    """Leave out the pooling layer of a plain encoder, which nothing would read."""
    if not KINDS[kind].bare:
        return {}
    encoder: Any = transformers.AutoModel._model_mapping.get(type(config), None)
    pools = encoder is not None and "add_pooling_layer" in inspect.signature(encoder).parameters
    return {"add_pooling_layer": False} if pools else {}


def _quantisation(quantise: str | None, dtype: torch.dtype, device: torch.device | str) -> dict[str, Any]:
    if quantise is None:
        return {}
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise InputError("quantised loading needs the package bitsandbytes: install it") from None
    if quantise == "int8":
        settings = transformers.BitsAndBytesConfig(load_in_8bit=True)
    else:
        settings = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=quantise, bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": settings, "device_map": "auto" if device == "auto" else {"": str(device)}}


def _tried(source: Source, load: Any, options: dict[str, Any]) -> Any:
    """Call a loader of transformers, and turn whatever it raises into one sentence."""
    try:
        with torch.random.fork_rng(devices=[]):  # it draws what is missing, which `_draw` draws again
            return load(source.location, **options)
    except Exception as error:  # of a dozen classes, some of them not public
        if source.offline and not Path(source.location).is_dir():
            raise InputError(
                f"the model {source.name!r} is no folder and was never downloaded, and the model hub "
                "cannot be reached: give a local folder or connect to the network"
            ) from error
        first = " ".join(str(error).split("\n")[0].split())[:300].rstrip(".")
        raise InputError(f"the model {source.name!r} cannot be loaded: {first or type(error).__name__}") from error


def _refuse_offload(model: Any, source: Source) -> None:
    """Weights outside the GPUs would be fetched in every forward, behind the back of the probes."""
    outside = [name for name, place in model.hf_device_map.items() if str(place) in ("cpu", "disk")]
    if outside:
        raise InputError(
            f"the model {source.name!r} does not fit on this machine's GPUs ({outside[0]} would stay outside): "
            "load it in fewer bits with --quantise nf4, or on a larger machine"
        )


def _complete(model: nn.Module, kind: str, info: Any, seed: int, source: Source) -> tuple[str, ...]:
    """Draw the head that a checkpoint lacks from the seed; any other missing weight is an error."""
    mismatched = {entry[0] if isinstance(entry, tuple) else entry for entry in info["mismatched_keys"]}
    missing = sorted(set(info["missing_keys"]) | mismatched)
    prefix = f"{model.base_model_prefix}."
    allowed = [name for name in missing if not name.startswith(prefix) or ".pooler." in name]
    if missing and (not KINDS[kind].labelled or len(allowed) < len(missing)):
        lacking = next(name for name in missing if not KINDS[kind].labelled or name not in allowed)
        raise InputError(
            f"the weights of {source.name!r} do not fit a {kind} model: {len(missing)} tensors are missing "
            f"or of another shape, such as {lacking}"
        )
    if not missing:
        return ()
    _draw(model, missing, seed)
    return (f"The classification head is new, drawn from seed {seed}: the checkpoint has none that fits.",)


def _draw(model: nn.Module, names: Sequence[str], seed: int) -> None:
    """Matrices get small normals, offsets zeros, the gains of norms ones, as in BERT."""
    scale = getattr(model.config, "initializer_range", 0.02)
    parameters = dict(model.named_parameters())
    for number, name in enumerate(names):
        data = parameters[name].data
        if data.ndim < 2:
            data.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            where = addressed.address(addressed.Key(seed, 0), number, addressed.Purpose.INITIAL)
            data.copy_(addressed.normals(where, 0, data.numel()).view(data.shape) * scale)


def _prepare(model: Any, tokenizer: Any) -> None:
    model.eval()
    model.requires_grad_(False)
    model.config.use_cache = False
    rows = model.get_input_embeddings().num_embeddings
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise InputError("the model's tokenizer has neither a padding nor an end token: add one to its files")
    model.config.pad_token_id = tokenizer.pad_token_id
