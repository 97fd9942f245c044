"""The models the page offers, and the sizes it knows of any model without opening weights."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from transformers import AutoConfig

from app.jobs.lessons import clean
from app.words import size
from zocore.errors import InputError
from zocore.memory.bill import bill
from zocore.memory.shapes import BUILT_IN, ModelShape, shape_of
from zocore.models.files import BUNDLED, HUB_ID
from zocore.models.kinds import kind_of
from zocore.recipes.recipe import recipes

MOST_CONFIG = 20_000  # characters of a pasted config.json
MOST_SIZE, MOST_LAYERS = 10_000_000, 1000
SIZES = (
    *("num_hidden_layers", "n_layer", "hidden_size", "n_embd", "intermediate_size", "n_inner", "ffn_dim"),
    *("num_attention_heads", "n_head", "num_key_value_heads", "head_dim", "vocab_size", "type_vocab_size"),
    *("max_position_embeddings", "n_positions", "word_embed_proj_dim"),
)
SHORT = 24  # tokens of the texts for which a model is offered with its memory
HUB: Mapping[str, str] = {  # hub id -> name in `shapes`; all have safetensors
    "EleutherAI/pythia-14m": "pythia-14m",
    "sentence-transformers/all-MiniLM-L6-v2": "minilm-l6",
    "distilbert/distilgpt2": "distilgpt2",
    "openai-community/gpt2": "gpt2",
    "HuggingFaceTB/SmolLM2-135M": "smollm2-135m",
    "FacebookAI/roberta-large": "roberta-large",
    "Qwen/Qwen2.5-0.5B": "qwen2.5-0.5b",
    "meta-llama/Llama-3.2-1B": "llama-3.2-1b",
    "Qwen/Qwen2.5-7B": "qwen2.5-7b",
    "meta-llama/Meta-Llama-3-8B": "llama-3-8b",
}


OF_RECIPES = {row.config.model: row.shape for row in recipes().values()}
ENCODERS = ("sentence-transformers/all-MiniLM-L6-v2",)
MASKED = ("FacebookAI/roberta-large",)


def kind(model: str) -> str | None:
    """Return the kind of a model where it can be known before loading it: on the list, or a folder here."""
    if model in HUB:
        return "encoder" if model in ENCODERS else "masked" if model in MASKED else None
    folder = Path(model).expanduser()
    try:
        return kind_of(AutoConfig.from_pretrained(folder)) if (folder / "config.json").is_file() else None
    except (ValueError, OSError, KeyError):
        return None


@lru_cache(maxsize=64)
def shape(model: str) -> ModelShape | None:
    """Return a model's sizes, None when they are not known without a download."""
    try:
        if model == "bundled":
            return shape_of(BUNDLED)
        if model in HUB:
            return shape_of(HUB[model])
        if model in OF_RECIPES:
            return shape_of(OF_RECIPES[model])
        if model in BUILT_IN or (Path(model).expanduser() / "config.json").is_file():
            return shape_of(model)
    except (ValueError, OSError, KeyError):
        return None
    return _cached(model)


def is_named(model: str) -> bool:
    """Whether a model is called by a name of the lists or by a hub id, not by a place on this machine."""
    return model == "bundled" or model in HUB or model in BUILT_IN or bool(HUB_ID.fullmatch(model))


def shape_of_text(text: str) -> ModelShape:
    """Return the sizes in a pasted config.json. Raises InputError for what is none, or would make no model."""
    if len(text) > MOST_CONFIG:
        raise InputError(
            f"this has {len(text):,} characters, over the limit of {MOST_CONFIG:,}: paste config.json alone"
        )
    try:
        config = json.loads(text)
        if not isinstance(config, dict):
            raise InputError("config.json is an object of names and values: { ... }")
        for name, value in config.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            most = MOST_LAYERS if name in ("num_hidden_layers", "n_layer") else MOST_SIZE
            if number and name in SIZES and not (isinstance(value, int) and 1 <= value <= most):
                raise InputError(f"{name} must be a whole number from 1 to {most:,}, not {value}")
        for name in ("hidden_act", "activation_function"):
            if not isinstance(config.get(name, ""), str):
                raise InputError(f"{name} must be the name of a function")
        sizes = shape_of(config)
        _ = sizes.parameters, sizes.largest_tensor  # sizes of a wrong type fail here
        return replace(sizes, name=clean(f"your {sizes.name[:60]}"))
    except InputError:
        raise
    except (RecursionError, KeyError, TypeError, AttributeError, ZeroDivisionError, ArithmeticError):
        raise InputError("this configuration makes no model: its sizes are missing or of the wrong type") from None
    except ValueError as error:
        reason = "this is no JSON" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"the configuration cannot be read: {reason}") from None


def _cached(model: str) -> ModelShape | None:
    """The sizes of a hub model that was downloaded before."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model, "config.json")
        return shape_of(Path(cached).parent) if isinstance(cached, str) else None
    except (ValueError, OSError, HFValidationError):
        return None


def downloaded(model: str) -> bool:
    """Whether the model is here already."""
    from huggingface_hub import try_to_load_from_cache

    if model == "bundled" or Path(model).expanduser().is_dir():
        return True
    try:
        return isinstance(try_to_load_from_cache(model, "model.safetensors"), str)
    except (ValueError, OSError):
        return False


def choices() -> list[tuple[str, str]]:
    """Return (label, model) of the models on offer, with their sizes and what a MeZO step takes."""
    choices = [(_label("Bundled tiny model", "bundled", "fp32"), "bundled")]
    return choices + [(_label(name, name, "bf16"), name) for name in HUB]


def _label(title: str, model: str, dtype: str) -> str:
    sizes = shape(model)
    if sizes is None:
        return title
    need = bill(sizes, "mezo", 16, SHORT, dtype).total
    count = sizes.parameters
    text = f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.1f} M" if count < 1e7 else f"{count / 1e6:.0f} M"
    return f"{title} · {text} · {size(need)}"
