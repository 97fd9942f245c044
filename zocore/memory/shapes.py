"""The sizes of a language model, read from its configuration alone: no weights are opened.

`shape_of("opt-13b")` gives a `ModelShape`, which lists every trainable tensor and so counts parameters
exactly. The count is that of the class with a language-model head (`...ForCausalLM`, or `...ForMaskedLM`
for BERT and RoBERTa, without a pooler), the form in which prompts are scored; a tied head counts once.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

Config = Mapping[str, Any]


class Linear(NamedTuple):
    """One weight matrix of a block, as outputs (rows) x inputs (cols)."""

    rows: int
    cols: int
    bias: bool

    @property
    def weights(self) -> int:
        """Number of weights, without the bias."""
        return self.rows * self.cols


@dataclass(frozen=True)
class ModelShape:
    """The sizes that fix a transformer's tensors, counted in elements rather than bytes."""

    name: str
    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    positions: int  # longest input, in tokens
    tied: bool  # the head shares the embedding's storage
    activation: str
    position_rows: int = 0  # rows of a learned position table; rotary models have none
    token_types: int = 0
    embedding_width: int = 0  # 0: as wide as the hidden state; opt-350m embeds narrower
    gated_mlp: bool = False
    rms_norm: bool = False  # a norm without an offset
    qk_norm: bool = False
    fused_qkv: bool = False
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    outer_norms: int = 1  # norms outside the blocks and the head
    masked_head: bool = False  # BERT's head: dense, norm and an offset per word

    @property
    def block_linears(self) -> tuple[Linear, ...]:
        """The weight matrices of one block, in the order in which they are used."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        parts = (query + 2 * key,) if self.fused_qkv else (query, key, key)
        widen = Linear(self.intermediate, self.hidden, self.mlp_bias)
        return (
            *(Linear(rows, self.hidden, self.qkv_bias) for rows in parts),
            Linear(self.hidden, query, self.out_bias),
            *([widen] * (2 if self.gated_mlp else 1)),
            Linear(self.hidden, self.intermediate, self.mlp_bias),
        )

    @property
    def writers(self) -> tuple[Linear, Linear]:
        """The two matrices of a block that write into the hidden state: of its attention, and of its MLP."""
        linears = self.block_linears
        return linears[1 if self.fused_qkv else 3], linears[-1]

    @property
    def tensor_sizes(self) -> tuple[int, ...]:
        """The size of every trainable tensor, in elements."""
        block = _linear_sizes(self.block_linears) + 2 * self._norm + [self.head_dim] * (2 * self.qk_norm)
        return (*self._embeddings, *(self.layers * block), *(self.outer_norms * self._norm), *self._head)

    @property
    def parameters(self) -> int:
        """Number of parameters, tied weights counted once."""
        return sum(self.tensor_sizes)

    @property
    def block_linear_parameters(self) -> int:
        """Number of weights in the blocks' matrices: the part that a 4-bit model quantises."""
        return self.layers * sum(linear.weights for linear in self.block_linears)

    @property
    def largest_tensor(self) -> int:
        """Size of the largest trainable tensor, in elements; it is always a matrix."""
        return max(self.tensor_sizes)

    @property
    def _norm(self) -> list[int]:
        return [self.hidden] if self.rms_norm else [self.hidden, self.hidden]

    @property
    def _embeddings(self) -> list[int]:
        width = self.embedding_width or self.hidden
        projections = [width * self.hidden] * 2 if width != self.hidden else []  # in, and back out
        tables = [self.vocab * width, self.position_rows * self.hidden, self.token_types * self.hidden]
        return [size for size in tables if size] + projections

    @property
    def _head(self) -> list[int]:
        words = [] if self.tied else [self.vocab * (self.embedding_width or self.hidden)]
        if not self.masked_head:
            return words
        offsets = [self.vocab] * (1 if self.tied else 2)  # untied, transformers gives the decoder its own
        return [self.hidden * self.hidden, self.hidden, *self._norm, *offsets, *words]


def _linear_sizes(linears: tuple[Linear, ...]) -> list[int]:
    return [linear.weights for linear in linears] + [linear.rows for linear in linears if linear.bias]


# One reader per family, over the names that most configurations use; `_SYNONYMS` renames the others. The
# fallbacks are those of transformers' classes, because a config.json may leave out what it does not change.

_SYNONYMS = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "n_inner": "intermediate_size",
    "ffn_dim": "intermediate_size",
    "activation_function": "hidden_act",
}


def _size(config: Config, key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"the configuration gives {key} as {value!r}, not as a positive integer.")
    return value


def _common(config: Config, activation: str, tied: bool) -> dict[str, Any]:
    hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    return {
        "layers": _size(config, "num_hidden_layers"),
        "hidden": hidden,
        "intermediate": config.get("intermediate_size") or 4 * hidden,
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or hidden // heads,
        "vocab": _size(config, "vocab_size"),
        "positions": _size(config, "max_position_embeddings"),
        "activation": config.get("hidden_act", activation),
        "tied": config.get("tie_word_embeddings", tied),
    }


def _llama(config: Config) -> dict[str, Any]:
    attention, mlp = config.get("attention_bias", False), config.get("mlp_bias", False)
    biases = {"qkv_bias": attention, "out_bias": attention, "mlp_bias": mlp}
    return _common(config, "silu", tied=False) | biases | {"gated_mlp": True, "rms_norm": True}


def _mistral(config: Config) -> dict[str, Any]:
    return _llama(config) | {"qkv_bias": False, "out_bias": False, "mlp_bias": False}


def _qwen2(config: Config) -> dict[str, Any]:
    return _mistral(config) | {"qkv_bias": True}


def _qwen3(config: Config) -> dict[str, Any]:
    # Unlike the others', Qwen3's heads are 128 wide unless the configuration says otherwise.
    return _llama(config) | {"mlp_bias": False, "qk_norm": True, "head_dim": config.get("head_dim") or 128}


def _opt(config: Config) -> dict[str, Any]:
    if not config.get("layer_norm_elementwise_affine", True):
        raise ValueError("an opt model whose norms have no weights is not supported.")
    final_norm = config.get("do_layer_norm_before", True) and not config.get("_remove_final_layer_norm", False)
    bias = config.get("enable_bias", True)
    return _common(config, "relu", tied=True) | {
        "position_rows": _size(config, "max_position_embeddings") + 2,  # OPT's positions start at row 2
        "embedding_width": config.get("word_embed_proj_dim") or config["hidden_size"],
        "outer_norms": int(final_norm),
        "qkv_bias": bias,
        "out_bias": bias,
        "mlp_bias": bias,
    }


def _gpt2(config: Config) -> dict[str, Any]:
    fields = _common(config, "gelu_new", tied=True)
    return fields | {"position_rows": fields["positions"], "fused_qkv": True}


def _gpt_neox(config: Config) -> dict[str, Any]:
    bias = config.get("attention_bias", True)
    return _common(config, "gelu", tied=False) | {"fused_qkv": True, "qkv_bias": bias, "out_bias": bias}


def _bert(config: Config) -> dict[str, Any]:
    return _common(config, "gelu", tied=True) | {
        "position_rows": _size(config, "max_position_embeddings"),
        "token_types": config.get("type_vocab_size", 2),
        "masked_head": True,
    }


def _roberta(config: Config) -> dict[str, Any]:
    # Positions count from the padding id + 1 = 2, so two rows of the table never belong to a token.
    return _bert(config) | {"positions": _size(config, "max_position_embeddings") - 2}


_READERS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "opt": _opt,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "bert": _bert,
    "roberta": _roberta,
}

_COLUMNS = (
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
)

# The published config.json of each model. fmt: off
_ROWS: dict[str, tuple[Any, ...]] = {
    "roberta-large": ("roberta", 24, 1024, 4096, 16, 16, 50265, 514, {"type_vocab_size": 1}),
    "bert-base": ("bert", 12, 768, 3072, 12, 12, 30522, 512),
    "minilm-l6": ("bert", 6, 384, 1536, 12, 12, 30522, 512),
    "gpt2": ("gpt2", 12, 768, 3072, 12, 12, 50257, 1024),
    "distilgpt2": ("gpt2", 6, 768, 3072, 12, 12, 50257, 1024),
    "pythia-14m": ("gpt_neox", 6, 128, 512, 4, 4, 50304, 2048),
    "opt-125m": ("opt", 12, 768, 3072, 12, 12, 50272, 2048),
    "opt-350m": (
        "opt",
        24,
        1024,
        4096,
        16,
        16,
        50272,
        2048,
        {"word_embed_proj_dim": 512, "do_layer_norm_before": False},
    ),
    "opt-1.3b": ("opt", 24, 2048, 8192, 32, 32, 50272, 2048),
    "opt-2.7b": ("opt", 32, 2560, 10240, 32, 32, 50272, 2048),
    "opt-6.7b": ("opt", 32, 4096, 16384, 32, 32, 50272, 2048),
    "opt-13b": ("opt", 40, 5120, 20480, 40, 40, 50272, 2048),
    "opt-30b": ("opt", 48, 7168, 28672, 56, 56, 50272, 2048),
    "opt-66b": ("opt", 64, 9216, 36864, 72, 72, 50272, 2048),
    "llama-2-7b": ("llama", 32, 4096, 11008, 32, 32, 32000, 4096),
    "llama-2-13b": ("llama", 40, 5120, 13824, 40, 40, 32000, 4096),
    "llama-3-8b": ("llama", 32, 4096, 14336, 32, 8, 128256, 8192),
    "llama-3.2-1b": ("llama", 16, 2048, 8192, 32, 8, 128256, 131072, {"tie_word_embeddings": True}),
    "smollm2-135m": ("llama", 30, 576, 1536, 9, 3, 49152, 8192, {"tie_word_embeddings": True}),
    "qwen2.5-0.5b": ("qwen2", 24, 896, 4864, 14, 2, 151936, 32768, {"tie_word_embeddings": True}),
    "qwen2.5-7b": ("qwen2", 28, 3584, 18944, 28, 4, 152064, 131072),
}
# fmt: on

BUILT_IN: dict[str, Config] = {
    name: dict(zip(_COLUMNS, row, strict=False)) | (row[-1] if isinstance(row[-1], dict) else {})
    for name, row in _ROWS.items()
}


def shape_of(source: Any) -> ModelShape:
    """The shape of a built-in name, a folder holding config.json, a transformers configuration or what it holds."""
    if isinstance(source, str) and source.lower() in BUILT_IN:
        return _shape(source.lower(), BUILT_IN[source.lower()])
    if isinstance(source, str | Path):
        return _shape(Path(source).name, _config_in(Path(source)))
    if isinstance(source, dict):
        return _shape(Path(str(source.get("_name_or_path") or source.get("model_type"))).name, source)
    if hasattr(source, "to_dict"):
        config = source.to_dict()
        name = Path(getattr(source, "name_or_path", "")).name or str(config.get("model_type"))
        return _shape(name, config)
    raise ValueError(f"a model is a name, a folder or a configuration, not of type {type(source).__name__}.")


def _config_in(folder: Path) -> Config:
    path = folder / "config.json"
    if not path.is_file():
        names = ", ".join(BUILT_IN)
        raise ValueError(f"unknown model '{folder}': give a folder holding config.json, or one of {names}.")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        raise ValueError(f"'{path}' does not hold a JSON object.") from None


def _shape(name: str, config: Config) -> ModelShape:
    family = str(config.get("model_type"))
    if family not in _READERS:
        raise ValueError(f"model family '{family}' is not supported: choose one of {', '.join(_READERS)}.")
    fields = _READERS[family]({_SYNONYMS.get(key, key): value for key, value in config.items()})
    return ModelShape(name=name, family=family, **fields)
