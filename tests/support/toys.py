"""Small models with per-example losses: toy networks and random Hugging Face models, float64 unless said
otherwise.
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    Qwen2Config,
    RobertaConfig,
)

from zocore.carriers.flipout import Flipout
from zocore.carriers.in_place import InPlace
from zocore.carriers.layout import Layout
from zocore.carriers.scratch import Scratch, unreached
from zocore.methods import METHODS, build
from zocore.step.losses import AnyDirection, Losses, Part
from zocore.subspaces.by_name import all_weights, without
from zocore.weights.leaf import Leaf

Rows = Tensor  # numbers of examples
ON_WEIGHTS = [name for name in METHODS if build(name).pushes is None]  # methods that move whatever a model has


@dataclass
class Toy:
    """A model, the examples of one batch and their losses."""

    model: Any
    leaves: list[Leaf]
    count: int
    forward: Callable[[Rows], Tensor]  # example numbers (b,) -> losses (b,)
    alone: Callable[[int], Tensor]  # the loss of one example without padding or company
    mask: Any = None  # (count, tokens)
    ids: Any = None  # (count, tokens)

    def part(self, examples: Rows) -> Part:
        """One micro-batch of the given examples."""
        mask = None if self.mask is None else self.mask[examples].bool()
        return Part(Layout(examples, mask), lambda: self.forward(examples))

    def losses(self, sizes: Sequence[int] | None = None, in_place: bool = False, only: Rows | None = None) -> Losses:
        """The losses of the batch (or of the examples `only`), split in micro-batches of the given sizes."""
        examples = torch.arange(self.count) if only is None else only
        parts = [self.part(chunk) for chunk in examples.split(list(sizes or [len(examples)]))]
        shared = InPlace(self.leaves) if in_place else Scratch(self.leaves)
        return Losses(parts, self.leaves, shared, Flipout(self.leaves, matmul_weights(self.leaves)))

    def leaf(self, name: str) -> Leaf:
        """The leaf of that name."""
        return next(leaf for leaf in self.leaves if leaf.name == name)

    def weights(self) -> dict[int, Tensor]:
        """A copy of every leaf."""
        return {leaf.id: leaf.tensor.clone() for leaf in self.leaves}

    def set(self, weights: dict[int, Tensor]) -> None:
        """Write the leaves."""
        for leaf in self.leaves:
            leaf.tensor.copy_(weights[leaf.id])

    @contextmanager
    def moved(self, shift: Callable[[Leaf], Tensor]):
        """Explicitly moved weights for the length of a block: the definition every carrier must equal."""
        before = self.weights()
        for leaf in self.leaves:
            leaf.tensor.add_(shift(leaf).view(leaf.tensor.shape))
        try:
            yield
        finally:
            self.set(before)

    def carried(self, direction: AnyDirection, offsets: Sequence[float], in_place: bool = False) -> list[Tensor]:
        """Losses (B,) at each offset, by the carrier under test."""
        with self.losses(in_place=in_place).along(direction) as at:
            return [at(offset) for offset in offsets]

    def at(self, direction: AnyDirection, offset: float) -> Tensor:
        """Losses (B,) at theta + offset * z, by explicit weights."""
        with self.moved(lambda leaf: offset * direction.tensor(leaf)), torch.no_grad():
            return self.forward(torch.arange(self.count))


def matmul_weights(leaves: Sequence[Leaf]) -> int:
    """Weights of all matrices that take part in a product."""
    return sum(
        leaf.tensor.numel()
        for leaf in leaves
        if leaf.tensor.ndim > 1 and not all(isinstance(site.module, nn.Embedding) for site in leaf.sites)
    )


def flat(tensors: dict[int, Tensor]) -> Tensor:
    """All leaves as one vector."""
    return torch.cat([tensors[number].reshape(-1) for number in sorted(tensors)])


def gradient(toy: Toy, example: int | None = None) -> dict[int, Tensor]:
    """Autograd's gradient of the mean loss, or of one example's."""
    only = None if example is None else torch.tensor([example])
    return toy.losses(only=only).gradient()[1]


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Rows2(nn.Module):
    """A linear layer on fixed inputs, and a loss of its outputs: quadratic, linear, cubic or smooth in the
    weights.
    """

    def __init__(self, count: int, width: int, height: int, kind: str, dtype: torch.dtype) -> None:
        super().__init__()
        g = _seeded(count + 10 * width + 100 * height)
        self.layer = nn.Linear(width, height, bias=False, dtype=dtype)
        self.layer.weight.data.copy_(torch.randn(height, width, generator=g, dtype=dtype))
        self.inputs = torch.randn(count, width, generator=g, dtype=dtype)
        self.targets = torch.randn(count, height, generator=g, dtype=dtype)
        self.kind = kind

    def forward(self, examples: Rows) -> Tensor:
        y, target = self.layer(self.inputs[examples]), self.targets[examples]
        match self.kind:
            case "quadratic":
                return 0.5 * (y - target).square().sum(-1)
            case "linear":
                return (y * target).sum(-1)
            case "cubic":
                return (y - target).pow(3).sum(-1)
            case "smooth":
                return torch.log1p((y - target).square()).sum(-1) + torch.sin(y).sum(-1)
        raise ValueError(self.kind)


def least_squares(
    count: int = 4,
    width: int = 3,
    height: int = 1,
    kind: str = "quadratic",
    dtype: torch.dtype = torch.float64,
) -> Toy:
    """Per-example losses of one weight matrix (height, width): three parameters and quadratic by default."""
    model = Rows2(count, width, height, kind, dtype)
    model.requires_grad_(False)
    return Toy(model, all_weights(model), count, model, lambda i: model(torch.tensor([i]))[0])


class Mixed(nn.Module):
    """Every kind of layer at once: table, learned positions, linear with and without bias, norm, tied
    head.
    """

    def __init__(self, vocabulary: int = 11, width: int = 6) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(9, width)
        self.inner = nn.Linear(width, 8)
        self.norm = nn.LayerNorm(8)
        self.outer = nn.Linear(8, width, bias=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        places = (mask.cumsum(1) - 1).clamp(min=0)
        x = self.table(ids) + self.places(places)
        x = x + self.outer(self.norm(torch.tanh(self.inner(x))))
        pooled = (x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return self.head(pooled)


def _ragged(count: int, tokens: int, vocabulary: int, left: bool, pad: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, a ragged mask and targets; pads carry the id `pad`, which no real token has."""
    g = _seeded(5)
    ids = torch.randint(3, vocabulary, (count, tokens), generator=g)
    ids[:, 2] = ids[:, 4]  # every example uses some token twice
    mask = torch.ones(count, tokens, dtype=torch.long)
    for row in range(count):
        short = row * 2 % 4  # 0, 2, 0, 2, ...
        if short and left:
            mask[row, :short] = 0
        elif short:
            mask[row, tokens - short :] = 0
    return ids.masked_fill(mask == 0, pad), mask, torch.randint(0, 3, (count,), generator=g)


def mixed(count: int = 5, dtype: torch.dtype = torch.float64) -> Toy:
    """A small tanh network with a tied table and ragged left padding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Mixed().to(dtype)
    model.eval().requires_grad_(False)
    ids, mask, target = _ragged(count, 7, 11, left=True)

    def losses(rows: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        logits = model(ids, mask)
        return functional.cross_entropy(logits.to(_wide(dtype)), target[rows], reduction="none")

    return _toy(model, ids, mask, losses)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _toy(model: nn.Module, ids: Tensor, mask: Tensor, losses: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Toy:
    def alone(example: int) -> Tensor:
        real = mask[example].bool()
        rows = torch.tensor([example])
        return losses(rows, ids[rows][:, real], mask[rows][:, real])[0]

    def forward(rows: Tensor) -> Tensor:
        return losses(rows, ids[rows], mask[rows])

    leaves = all_weights(model)
    leaves = without(leaves, unreached(leaves, lambda: forward(torch.arange(len(ids)))))
    return Toy(model, leaves, len(ids), forward, alone, mask, ids)


def _exact_norms(model: nn.Module) -> None:
    """Let RMS norms compute in float64: the library rounds to float32 inside, which would hide small
    errors.
    """
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.forward = partial(_rms_norm, module)


def _rms_norm(module: Any, x: Tensor) -> Tensor:
    return module.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + module.variance_epsilon))


VOCABULARY = 37
NAMES = ("llama", "llama tied", "opt", "gpt2", "qwen2", "bert", "roberta", "bert mlm", "roberta mlm")
CAUSAL = NAMES[:5]


@cache
def _built(name: str) -> nn.Module:
    base: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    causal: dict[str, Any] = {"use_cache": False}
    small: dict[str, Any] = {"intermediate_size": 40, "max_position_embeddings": 24}
    config: Any
    match name.split()[0]:
        case "llama":
            tied: dict[str, Any] = {"tie_word_embeddings": "tied" in name, "num_key_value_heads": 2}
            config = LlamaConfig(**base, **causal, **small, **tied, attention_bias=True)
        case "qwen2":
            config = Qwen2Config(**base, **causal, **small, num_key_value_heads=2, tie_word_embeddings=True)
        case "opt":
            config = OPTConfig(**base, **causal, ffn_dim=40, word_embed_proj_dim=32, max_position_embeddings=24)
        case "gpt2":
            size: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24}
            config = GPT2Config(vocab_size=VOCABULARY, **size, **causal, bos_token_id=2, eos_token_id=2)
        case "bert":
            labels: dict[str, Any] = {"num_labels": 3}
            config = BertConfig(**base, **small, **labels)
        case _:
            labels = {"num_labels": 3, "type_vocab_size": 1, "pad_token_id": 1}
            config = RobertaConfig(**base, **small, **labels)
    kind: Any = AutoModelForCausalLM
    if "bert" in name:
        kind = AutoModelForMaskedLM if "mlm" in name else AutoModelForSequenceClassification
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = kind.from_config(config)
        for parameter in model.parameters():  # biases start at 0 and norms at 1: move them off
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def language_model(name: str, count: int = 5, tokens: int = 7, dtype: torch.dtype = torch.float64) -> Toy:
    """A random Hugging Face model of two layers with a ragged batch, padded where its kind pads."""
    model = deepcopy(_built(name)).to(dtype)
    if dtype == torch.float64:
        _exact_norms(model)
    left = "bert" not in name
    ids, mask, target = _ragged(count, tokens, VOCABULARY, left)

    def losses(rows: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        # OPT and the masked kinds count positions themselves; for rotary ones a shift changes float32 tables
        counted = left and name != "opt"
        extra = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if counted else {}
        logits = model(input_ids=ids, attention_mask=mask, **extra).logits
        if logits.ndim == 3:
            logits = logits[:, -1] if left else logits[:, 0]
        return functional.cross_entropy(logits.to(_wide(dtype)), target[rows], reduction="none")

    return _toy(model, ids, mask, losses)
