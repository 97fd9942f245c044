"""What a step costs, as ratios: every variant in one process, one thread, interleaved, medians.

The yardstick is two plain forwards of the same model, once as Hugging Face runs them (logits at every position)
and once lean (logits at the label only). Seconds on a busy machine mean little; ratios taken side by side do.
"""

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from zocore.bench.published import published_step
from zocore.carriers.flipout import Flipout, matmul_weights
from zocore.carriers.layout import Layout
from zocore.carriers.scratch import Scratch
from zocore.directions.laws import Gaussian, LowRank, Rademacher
from zocore.methods import build
from zocore.models.objectives.label_rows import only_rows
from zocore.models.quiet import quiet
from zocore.noise.addressed import Key
from zocore.step.losses import Losses, Part
from zocore.subspaces.by_name import all_weights
from zocore.tables import markdown
from zocore.weights.leaf import Leaf

EPS, TINY_LR = 1e-3, 1e-9  # a step so small that thousands of them leave the model what it was

SHAPES: Mapping[str, Callable[[], nn.Module]] = {
    "llama-15M": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8192,
            hidden_size=384,
            intermediate_size=1280,
            num_hidden_layers=6,
            num_attention_heads=6,
            tie_word_embeddings=True,
        )
    ),
    "opt-30M": lambda: OPTForCausalLM(
        OPTConfig(
            vocab_size=8192,
            hidden_size=512,
            word_embed_proj_dim=512,
            ffn_dim=2048,
            num_hidden_layers=8,
            num_attention_heads=8,
            dropout=0.0,
        )
    ),
}


@dataclass(frozen=True)
class Timing:
    """One variant: seconds of CPU time (of wall time on a GPU), and the two ratios."""

    name: str
    seconds: float
    over_plain: float  # over two forwards with logits everywhere
    over_lean: float  # over two forwards with logits at the label


@dataclass
class Bench:
    """A model, a batch and everything that is timed on them."""

    model: nn.Module
    ids: Tensor  # (B, T)
    mask: Tensor

    def plain(self) -> Tensor:
        """One Hugging Face forward without cache or gradients."""
        with torch.no_grad():
            return self.model(input_ids=self.ids, attention_mask=self.mask, use_cache=False).logits

    def lean(self) -> Tensor:
        """Per-example losses (B,) from logits at the last position alone."""
        last = torch.full((len(self.ids), 1), self.ids.shape[1] - 1)
        with torch.no_grad(), only_rows(self.model, last):
            logits = self.model(input_ids=self.ids, attention_mask=self.mask, use_cache=False).logits
        return -logits[:, 0].float().log_softmax(-1)[:, 0]

    def stepper(self, name: str, leaves: list[Leaf], **knobs: object) -> Callable[[], object]:
        """A function that does one step of a method."""
        method = build(name, **knobs).prepared(leaves)
        layout = Layout(torch.arange(len(self.ids)), self.mask.bool())
        scratch = Scratch(leaves)
        flipout = Flipout(leaves, matmul_weights(self.model)) if method.per_example else None
        count = iter(range(2**31))

        def step() -> object:
            losses = Losses([Part(layout, self.lean)], leaves, scratch, flipout)
            return method.step(leaves, losses, Key(0, next(count)), TINY_LR, EPS, {})

        return step

    def published(self) -> float:
        """One step as published, the global generator put back."""
        with torch.random.fork_rng(devices=[]):
            return published_step(self.model, self.ids, self.mask, TINY_LR, EPS, seed=1)


def bench(shape: str, batch: int = 16, tokens: int = 64, repeats: int = 15) -> list[Timing]:
    """Time every variant on a random model of a named shape. Raises ValueError for an unknown shape."""
    if shape not in SHAPES:
        raise ValueError(f"unknown shape {shape!r}: choose one of {', '.join(SHAPES)}")
    if min(batch, tokens, repeats) < 1:
        raise ValueError(f"examples, tokens and repeats must be at least 1, not {batch}, {tokens} and {repeats}")
    with one_thread(), torch.random.fork_rng(devices=[]):
        b = _bench(SHAPES[shape](), batch, tokens)
        leaves = all_weights(b.model)
        half = Bench(deepcopy(b.model).bfloat16(), b.ids, b.mask)
        masters = all_weights(half.model, master=True)
        low_rank = LowRank(rank=4)
        variants: dict[str, Callable[[], object]] = {
            "MeZO as published": b.published,
            "MeZO, Gaussian": b.stepper("mezo", leaves, law=Gaussian()),
            "MeZO, Gaussian, bfloat16 read from float32 masters": half.stepper("mezo", masters, law=Gaussian()),
            "MeZO, Rademacher": b.stepper("mezo", leaves, law=Rademacher()),
            "MeZO, Rademacher, bfloat16 read from float32 masters": half.stepper("mezo", masters, law=Rademacher()),
            "MeZO, low rank 4 (LOZO)": b.stepper("mezo", leaves, law=low_rank),
            "GRZO, Gaussian base": b.stepper("grzo", leaves, law=Gaussian()),
            "GRZO, Rademacher base": b.stepper("grzo", leaves, law=Rademacher()),
            "GRZO, low rank 4": b.stepper("grzo", leaves, law=low_rank),
            "MeZO-GV, pool 4": b.stepper("mezo-gv", leaves),
            "FZOO, 8 directions": b.stepper("fzoo", leaves),
        }
        return _timed(b, variants, repeats)


def bench_quantised(shape: str, batch: int = 16, tokens: int = 64, repeats: int = 15) -> list[Timing]:
    """Time QZO, and GRZO on scales, over two forwards of the same model in NF4."""
    from tempfile import TemporaryDirectory

    from zocore.subspaces.quantised import quant_scales

    with one_thread(), torch.random.fork_rng(devices=[]), TemporaryDirectory() as folder:
        four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        with quiet():
            SHAPES[shape]().save_pretrained(folder)  # type: ignore[operator]
            model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=four_bit)
        b = _bench(model, batch, tokens)
        leaves = quant_scales(b.model)
        variants = {"QZO, NF4": b.stepper("qzo", leaves), "GRZO on NF4 scales": b.stepper("grzo", leaves)}
        return _timed(b, variants, repeats)


def render(timings: list[Timing]) -> str:
    """Return the timings as a Markdown table."""
    rows = [[t.name, f"{t.seconds * 1e3:.0f}", f"{t.over_plain:.2f}", f"{t.over_lean:.2f}"] for t in timings]
    return markdown(["step", "ms", "over two plain forwards", "over two lean forwards"], rows)


class one_thread:
    """A block in which torch uses one thread: on a loaded machine a second one makes timings worse."""

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)


def _bench(model: nn.Module, batch: int, tokens: int) -> Bench:
    torch.manual_seed(0)  # inside fork_rng: the caller's generator is put back
    ids = torch.randint(3, 1000, (batch, tokens))
    return Bench(model.eval().requires_grad_(False), ids, torch.ones_like(ids))


def _timed(b: Bench, variants: Mapping[str, Callable[[], object]], repeats: int) -> list[Timing]:
    every = {"two plain forwards": lambda: (b.plain(), b.plain()), "two lean forwards": lambda: (b.lean(), b.lean())}
    every |= variants  # type: ignore[arg-type]
    taken: dict[str, list[float]] = {name: [] for name in every}
    for repeat in range(repeats + 1):
        for name, function in every.items():
            started = time.process_time()
            function()
            if repeat:  # the first round warms caches and compiles kernels
                taken[name].append(time.process_time() - started)
    plain, lean = median(taken["two plain forwards"]), median(taken["two lean forwards"])
    return [Timing(name, median(t), median(t) / plain, median(t) / lean) for name, t in taken.items()]
