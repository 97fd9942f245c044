"""Random models of known shapes, made on the device they are timed on: nothing is downloaded."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, RobertaConfig, RobertaForMaskedLM


def _llama(vocabulary: int, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, tied: bool) -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            tie_word_embeddings=tied,
        )
    )


def _opt(vocabulary: int, hidden: int, layers: int, heads: int) -> nn.Module:
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            word_embed_proj_dim=hidden,
            ffn_dim=4 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            dropout=0.0,
        )
    )


def _roberta() -> nn.Module:
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=50265,
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            max_position_embeddings=514,
            type_vocab_size=1,
        )
    )


SHAPES: Mapping[str, Callable[[], nn.Module]] = {
    "llama-tiny": lambda: _llama(512, 64, 128, 2, 4, 2, True),
    "llama-15M": lambda: _llama(8192, 384, 1280, 6, 6, 6, True),
    "opt-30M": lambda: _opt(8192, 512, 8, 8),
    "roberta-large": _roberta,
    "opt-1.3b": lambda: _opt(50272, 2048, 24, 32),
    "opt-13b": lambda: _opt(50272, 5120, 40, 40),
    "llama-3-8b": lambda: _llama(128256, 4096, 14336, 32, 32, 8, False),
}


def made(shape: str, device: torch.device, dtype: torch.dtype, shapes: Mapping[str, Any] = SHAPES) -> nn.Module:
    """Return a random model of a shape. Raises ValueError for an unknown one."""
    if shape not in shapes:
        raise ValueError(f"unknown shape {shape!r}: choose one of {', '.join(shapes)}")
    with _default(dtype), device:
        model: nn.Module = shapes[shape]()
    return model.eval().requires_grad_(False)


def in_four_bits(model: nn.Module) -> nn.Module:
    """Put NF4 layers in the place of a model's linear ones, the head apart; one layer at a time is held twice."""
    bnb: Any = import_module("bitsandbytes")

    head = model.get_output_embeddings()  # type: ignore[operator]
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and layer is not head and not isinstance(layer, bnb.nn.Linear4bit):
                kept = layer.weight.data
                dtype, bias = kept.dtype, layer.bias is not None
                packed = bnb.nn.Linear4bit(
                    layer.in_features, layer.out_features, bias, dtype, quant_type="nf4", device="meta"
                )
                packed.weight = bnb.nn.Params4bit(kept.cpu(), requires_grad=False, quant_type="nf4").to(kept.device)
                packed.bias = layer.bias
                setattr(parent, name, packed)
    return model.eval().requires_grad_(False)


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
