"""Learning rates and probe distances for those who choose none, and estimates where nobody has tuned them.

A preset is for one subspace of one sort of model: "large" ones of 0.1 to 70 billion parameters (the papers'),
sentence "encoders" (MiniLM's 23 million) and the "bundled" one of 2.6 million.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Subspace = Literal["all", "writers", "lora", "scales"]
Models = Literal["large", "encoder", "bundled"]


@dataclass(frozen=True)
class Preset:
    """A learning rate and a probe distance, and where they come from."""

    lr: float
    eps: float
    origin: str
    subspace: Subspace = "all"
    models: Models = "large"
    estimated: bool = False


WEIGHTS = {
    "all": "all weights",
    "writers": "the last blocks' writers",
    "lora": "LoRA adapters",
    "scales": "quantisation scales",
}
MODELS = {"large": "large models", "encoder": "encoders", "bundled": "the bundled model"}
EPS: Mapping[Subspace, float] = {"all": 1e-3, "writers": 1e-3, "lora": 1e-2, "scales": 1e-3}


def paper(lr: float, origin: str, subspace: Subspace = "all", eps: float | None = None) -> Preset:
    """A preset for large models, as published."""
    return Preset(lr, eps or EPS[subspace], origin, subspace)


def tuned(lr: float, subspace: Subspace = "all", eps: float | None = None) -> Preset:
    """A preset for the bundled model: `zocore tournament`, rates a factor 3 apart, the best dev loss, seed 0."""
    origin = "tuned on the bundled verdict task at a forward cost of 300"
    return Preset(lr, eps or EPS[subspace], origin, subspace, "bundled")


def of_encoder(lr: float, subspace: Subspace = "writers", eps: float | None = None) -> Preset:
    """A preset for encoders: the tournament's best rates on TREC and on SST-2 with MiniLM, their geometric mean."""
    origin = "tuned on TREC and SST-2 with MiniLM at a forward cost of 150"
    return Preset(lr, eps or EPS[subspace], origin, subspace, "encoder")


def coarse(lr: float, subspace: Subspace, eps: float | None = None, of: str = "") -> Preset:
    """A preset found on the bundled model with few rates; `of` names the method it was found with, if another."""
    origin = "best of two to five rates on the bundled sentiment task, 60 or 150 steps, seed 0"
    return Preset(lr, eps or EPS[subspace], f"{of}'s; {origin}" if of else origin, subspace, "bundled")


# How much larger lr is than for all weights of a large model. Where a step is proportional to the measured slope,
# theory has lr fall as 1 / d with the d values that move; where lr is the length of a step, as 1 / sqrt(d). The
# factors are those between the presets of MeZO (for scales, between QZO's 5 and the bundled model's 50) and of GRZO.
BY_SLOPE = {"all": 1.0, "writers": 15.0, "lora": 100.0, "scales": 15.0, "large": 1.0, "encoder": 60.0, "bundled": 300.0}
BY_LENGTH = {"all": 1.0, "writers": 4.0, "lora": 6.0, "scales": 5.0, "large": 1.0, "encoder": 150.0, "bundled": 300.0}


def choose(presets: Sequence[Preset], subspace: Subspace, models: Models, by_length: bool) -> Preset:
    """Return a method's preset for a subspace and sort of model; where it has none, an estimate that says so.

    The estimate is the nearest preset (same models first, then same subspace) times the factors above.
    `by_length` says that lr alone sets the length of the method's steps.
    """

    def distance(preset: Preset) -> int:
        return 2 * (preset.models != models) + (preset.subspace != subspace)

    near = min(presets, key=distance)
    if not distance(near):
        return near
    factors, reference = (BY_LENGTH, "GRZO") if by_length else (BY_SLOPE, "MeZO")
    factor = factors[subspace] * factors[models] / factors[near.subspace] / factors[near.models]
    eps = near.eps if near.subspace == subspace else EPS[subspace]
    origin = (
        f"an estimate, not tuned: {near.lr:g} for {_place(near.subspace, near.models)} ({near.origin}), times "
        f"{factor:.2g} for {_place(subspace, models)}, as {reference}'s rates differ"
    )
    return Preset(float(f"{near.lr * factor:.2g}"), eps, origin, subspace, models, estimated=True)


def _place(subspace: Subspace, models: Models) -> str:
    return f"{WEIGHTS[subspace]} of {MODELS[models]}"
