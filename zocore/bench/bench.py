"""What a step costs, as ratios: every variant in one process, interleaved, medians; on a CPU in one thread.

The yardstick is two plain forwards of the same model, once as Hugging Face runs them (logits at every position)
and once lean (logits at the label only). On a busy machine seconds mean little, so ratios
of times taken side by side are given too.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from zocore.bench.published import published_step
from zocore.bench.shapes import SHAPES, in_four_bits, made
from zocore.carriers.flipout import Flipout, matmul_weights
from zocore.carriers.layout import Layout
from zocore.carriers.scratch import Scratch
from zocore.defaults import checked_device
from zocore.directions.laws import Gaussian, LowRank, Rademacher
from zocore.methods import build
from zocore.models.objectives.label_rows import only_rows
from zocore.noise.addressed import Key
from zocore.step.losses import Losses, Part
from zocore.subspaces.by_name import all_weights
from zocore.tables import markdown
from zocore.weights.leaf import Leaf

EPS, TINY_LR = 1e-3, 1e-9  # a step so small that thousands of them leave the model what it was


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

    @property
    def inputs(self) -> dict[str, Any]:
        """What the model is called with; an encoder has no cache to leave out."""
        decoder = "masked" not in type(self.model).__name__.lower()
        cache = {"use_cache": False} if decoder else {}
        return {"input_ids": self.ids, "attention_mask": self.mask, **cache}

    def plain(self) -> Tensor:
        """One Hugging Face forward without cache or gradients."""
        with torch.no_grad():
            return self.model(**self.inputs).logits

    def lean(self) -> Tensor:
        """Per-example losses (B,) from logits at the last position alone, without gradients."""
        with torch.no_grad():
            return self.losses()

    def losses(self) -> Tensor:
        """The same, with gradients where they are asked for."""
        last = torch.full((len(self.ids), 1), self.ids.shape[1] - 1, device=self.ids.device)
        with only_rows(self.model, last):
            logits = self.model(**self.inputs).logits
        return -logits[:, 0].float().log_softmax(-1)[:, 0]

    def stepper(self, name: str, leaves: list[Leaf], **knobs: object) -> Callable[[], object]:
        """A function that does one step of a method."""
        method = build(name, **knobs).prepared(leaves)
        layout = Layout(torch.arange(len(self.ids)), self.mask.bool())
        scratch = Scratch(leaves)
        flipout = Flipout(leaves, matmul_weights(self.model)) if method.per_example else None
        count = iter(range(2**31))

        def step() -> object:
            losses = Losses([Part(layout, self.losses)], leaves, scratch, flipout)
            return method.step(leaves, losses, Key(0, next(count)), TINY_LR, EPS, {})

        return step

    def published(self) -> float:
        """One step as published, the global generator put back."""
        devices = [self.ids.device] if self.ids.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return published_step(self.model, self.ids, self.mask, TINY_LR, EPS, seed=1)


def bench(shape: str, batch: int = 16, tokens: int = 64, repeats: int = 15, device: str = "cpu") -> list[Timing]:
    """Time every variant on a random model of a named shape: float32 on a CPU, bfloat16 on a GPU.

    Raises ValueError for an unknown shape or device.
    """
    if min(batch, tokens, repeats) < 1:
        raise ValueError(f"examples, tokens and repeats must be at least 1, not {batch}, {tokens} and {repeats}")
    place = torch.device(checked_device(device))
    on_cpu = place.type == "cpu"
    with one_thread(), torch.random.fork_rng(devices=[]):
        b = on_batch(made(shape, place, torch.float32 if on_cpu else torch.bfloat16, SHAPES), batch, tokens)
        variants = steps(b)
        if on_cpu:
            half = Bench(deepcopy(b.model).bfloat16(), b.ids, b.mask)
            masters = all_weights(half.model, master=True)
            for name, law in (("Gaussian", Gaussian()), ("Rademacher", Rademacher())):
                title = f"MeZO, {name}, bfloat16 read from float32 masters"
                variants[title] = half.stepper("mezo", masters, law=law)
        return timed(b, variants, repeats)


def steps(b: Bench) -> dict[str, Callable[[], object]]:
    """One function for each variant of a step on all weights."""
    leaves, low_rank = all_weights(b.model), LowRank(rank=4)
    published = {} if "use_cache" not in b.inputs else {"MeZO as published": b.published}
    return {
        **published,
        "MeZO, Gaussian": b.stepper("mezo", leaves, law=Gaussian()),
        "MeZO, Rademacher": b.stepper("mezo", leaves, law=Rademacher()),
        "MeZO, low rank 4 (LOZO)": b.stepper("mezo", leaves, law=low_rank),
        "GRZO, Gaussian base": b.stepper("grzo", leaves, law=Gaussian()),
        "GRZO, Rademacher base": b.stepper("grzo", leaves, law=Rademacher()),
        "GRZO, low rank 4": b.stepper("grzo", leaves, law=low_rank),
        "MeZO-GV, pool 4": b.stepper("mezo-gv", leaves),
        "FZOO, 8 directions": b.stepper("fzoo", leaves),
    }


def quantised_steps(b: Bench) -> dict[str, Callable[[], object]]:
    """The same for a model in few bits, whose scales move."""
    from zocore.subspaces.quantised import quant_scales

    leaves = quant_scales(b.model)
    return {"QZO, NF4": b.stepper("qzo", leaves), "GRZO on NF4 scales": b.stepper("grzo", leaves)}


def bench_quantised(
    shape: str, batch: int = 16, tokens: int = 64, repeats: int = 15, device: str = "cpu"
) -> list[Timing]:
    """Time QZO, and GRZO on scales, over two forwards of the same model in NF4."""
    place = torch.device(checked_device(device))
    with one_thread(), torch.random.fork_rng(devices=[]):
        dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
        b = on_batch(in_four_bits(made(shape, place, dtype, SHAPES)), batch, tokens)
        return timed(b, quantised_steps(b), repeats)


def render(timings: list[Timing]) -> str:
    """Return the timings as a Markdown table."""
    rows = [[t.name, f"{t.seconds * 1e3:.0f}", f"{t.over_plain:.2f}", f"{t.over_lean:.2f}"] for t in timings]
    return markdown(["step", "ms", "over two plain forwards", "over two lean forwards"], rows)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside a block: on a loaded machine a second one makes timings worse."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_batch(model: nn.Module, batch: int, tokens: int) -> Bench:
    """A model and a random batch on its device, the same each time."""
    ids = torch.randint(3, 500, (batch, tokens), generator=torch.Generator().manual_seed(0))
    ids = ids.to(next(model.parameters()).device)
    return Bench(model.eval().requires_grad_(False), ids, torch.ones_like(ids))


def timed(b: Bench, variants: Mapping[str, Callable[[], object]], repeats: int) -> list[Timing]:
    """Time the variants in turn, so that whatever else the machine does meets them alike."""
    every = {"two plain forwards": lambda: (b.plain(), b.plain()), "two lean forwards": lambda: (b.lean(), b.lean())}
    every |= variants  # type: ignore[arg-type]
    taken: dict[str, list[float]] = {name: [] for name in every}
    for repeat in range(repeats + 1):
        for name, function in every.items():
            seconds = clocked(function, b.ids.device)
            if repeat:  # the first round warms caches and compiles kernels
                taken[name].append(seconds)
    plain, lean = median(taken["two plain forwards"]), median(taken["two lean forwards"])
    return [Timing(name, median(t), median(t) / plain, median(t) / lean) for name, t in taken.items()]


def clocked(function: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that a function takes: of CPU time, on a GPU of wall time until all its work is done."""
    if device.type == "cpu":
        started = time.process_time()
        function()
        return time.process_time() - started
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    function()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started
