"""Time and peak memory of every variant of a step on a random model, against goals and the memory table."""

from collections.abc import Callable, Iterator

import torch

from zocore.bench.bench import Bench, on_batch, quantised_steps, steps, timed
from zocore.bench.findings import Finding, Place, at_least, at_most
from zocore.bench.shapes import in_four_bits, made
from zocore.memory.bill import bill
from zocore.memory.shapes import shape_of
from zocore.runs.tensor_peak import TensorPeak
from zocore.subspaces.by_name import all_weights

SMALL = ("llama-tiny", 2, 8)
BATCHES = [
    ("opt-1.3b", 16, 64),
    ("llama-3-8b", 16, 256),
    ("roberta-large", 16, 64),
    ("opt-13b", 16, 64),
    ("opt-1.3b", 16, 256),
    ("llama-3-8b", 16, 64),
]
REPEATS = 3
# step over two lean forwards, on the 8 B shape at 16 x 256
GOALS = {
    "MeZO, Gaussian": 1.45,
    "MeZO, Rademacher": 1.15,
    "GRZO, Gaussian base": 2.25,
    "GRZO, low rank 4": 1.15,
    "QZO, NF4": 1.1,
}
OVER_FORWARD, OVER_PREDICTION, FASTER = 0.03, 0.05, 5.0
BILLED = {"MeZO, Gaussian": "mezo", "GRZO, Gaussian base": "grzo", "MeZO-GV, pool 4": "mezo-gv", "QZO, NF4": "qzo"}


def step_costs(place: Place, shape: str, batch: int, tokens: int) -> Iterator[Finding]:
    """Every variant on all weights, bfloat16 on a GPU."""
    b = on_batch(made(shape, place.device, _dtype(place)), batch, tokens)
    yield from _costs(place, b, steps(b), shape)


def quantised_costs(place: Place, shape: str, batch: int, tokens: int) -> Iterator[Finding]:
    """The same on NF4 scales, and how much less memory that takes, counted both ways."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        yield Finding("QZO, NF4", "bitsandbytes is absent")
        return
    b = on_batch(in_four_bits(made(shape, place.device, _dtype(place))), batch, tokens)
    yield from _costs(place, b, quantised_steps(b), shape)
    if place.small:
        return
    qzo = peak(place, b, quantised_steps(b)["QZO, NF4"])
    adamw = bill(shape_of(shape), "adamw", batch, tokens).total
    lora = bill(shape_of(shape), "lora-adamw", batch, tokens).total
    yield Finding("AdamW on all weights (predicted) over QZO (measured)", f"{adamw / qzo:.1f} x", "18 x in the paper")
    yield Finding("AdamW on LoRA (predicted) over QZO (measured)", f"{lora / qzo:.1f} x")


def backprop_memory(place: Place, shape: str, batch: int, tokens: int) -> Iterator[Finding]:
    """Peak memory of a backprop step on all weights, beside MeZO's and GRZO's."""
    b = on_batch(made(shape, place.device, _dtype(place)), batch, tokens)
    leaves = all_weights(b.model)
    peaks = {}
    for name in ("mezo", "grzo", "sgd", "adamw"):
        peaks[name] = peak(place, b, b.stepper(name, leaves))
        yield Finding(f"peak of {name}", _size(peaks[name]))
    yield Finding("GRZO against MeZO", f"{1 - peaks['grzo'] / peaks['mezo']:+.0%} saved", "23 % in the paper")


def peak(place: Place, b: Bench, function: Callable[[], object]) -> int:
    """Return the most bytes held at once while a function runs: from the allocator, on a CPU by counting tensors."""
    if place.device.type == "cuda":
        torch.cuda.synchronize(place.device)
        torch.cuda.reset_peak_memory_stats(place.device)
        function()
        return torch.cuda.max_memory_allocated(place.device)
    held = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in b.model.parameters()}
    with TensorPeak() as counted:
        function()
    return counted.most + sum(held.values())


def _costs(place: Place, b: Bench, variants: dict[str, Callable[[], object]], shape: str) -> Iterator[Finding]:
    batch, tokens = b.ids.shape
    goals = GOALS if (shape, batch, tokens) == ("llama-3-8b", 16, 256) else {}
    b.lean()  # libraries take their workspaces
    forward = peak(place, b, b.lean)
    yield Finding("weights and one lean forward", _size(forward))
    working = {}
    for name, function in variants.items():
        try:
            if place.device.type == "cuda":
                function()  # kernels are compiled; the buffers that a step keeps are counted by the allocator
            highest = peak(place, b, function)
        except torch.OutOfMemoryError:
            yield Finding(name, "does not fit")
            continue
        working[name] = function
        yield from _memory(name, highest, forward, shape, batch, tokens, place)
    timings = {t.name: t for t in timed(b, working, 1 if place.small else REPEATS)}
    for name, t in timings.items():
        told = f"{t.seconds * 1e3:.1f} ms, {t.over_plain:.2f} of two plain and {t.over_lean:.2f} of two lean forwards"
        goal = goals.get(name)
        met = None if goal is None else t.over_lean <= goal
        yield Finding(name, told, "" if goal is None else f"<= {goal:g} of two lean forwards", met)
    if "MeZO as published" in timings and (shape, batch, tokens) == ("opt-1.3b", 16, 64):
        faster = timings["MeZO as published"].seconds / timings["MeZO, Rademacher"].seconds
        yield at_least("MeZO, Rademacher, against the published step", faster, FASTER, " x")


def _memory(
    name: str, found: int, forward: int, shape: str, batch: int, tokens: int, place: Place
) -> Iterator[Finding]:
    over = found / forward - 1
    if name.startswith("MeZO, ") and not place.small:
        yield at_most(f"{name}: peak over weights and one forward", over * 100, OVER_FORWARD * 100, " %")
    else:
        yield Finding(f"{name}: peak", f"{_size(found)}, {over:+.1%} over weights and one forward")
    if name in BILLED and not place.small:
        predicted = bill(shape_of(shape), BILLED[name], batch, tokens).total
        yield at_most(
            f"{name}: predicted {_size(predicted)}, off by",
            abs(predicted / found - 1) * 100,
            OVER_PREDICTION * 100,
            " %",
        )


def _dtype(place: Place) -> torch.dtype:
    return torch.float32 if place.device.type == "cpu" else torch.bfloat16


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
