"""Settings a newcomer did not choose, and where each number comes from."""

from dataclasses import dataclass, replace

import torch

from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.methods import METHODS


@dataclass(frozen=True)
class Preset:
    """Learning rate, probe distance and schedule for a method on a kind of model, with their origin."""

    lr: float
    eps: float
    schedule: str
    origin: str


# What the papers use on models of 0.1 to 70 billion parameters. A ZO step moves every weight by about
# lr * |projected grad|, so the right lr falls with the number of weights that the loss feels.
PAPER = {
    ("mezo", "all"): Preset(1e-6, 1e-3, "constant", "MeZO, arXiv 2305.17333: grid 1e-6, 1e-7"),
    ("mezo", "lora"): Preset(1e-4, 1e-2, "constant", "MeZO, arXiv 2305.17333: grid 1e-4, 5e-5 for LoRA"),
    ("n-spsa", "all"): Preset(1e-6, 1e-3, "constant", "MeZO's grid"),
    ("n-spsa", "lora"): Preset(1e-4, 1e-2, "constant", "MeZO's grid for LoRA"),
    ("grzo", "all"): Preset(
        5e-5, 1e-3, "linear", "GRZO's released 1e-7 over 2 eps; decay is ours, its steps do not shrink"
    ),
    ("mezo-gv", "all"): Preset(3e-7, 1e-3, "constant", "arXiv 2601.04710: grid 1e-7 to 5e-7"),
    ("mezo-greedy", "all"): Preset(3e-7, 1e-3, "constant", "arXiv 2601.04710: grid 1e-7 to 5e-7"),
    ("mezo-gv", "lora"): Preset(5e-5, 1e-2, "constant", "arXiv 2601.04710: grid 3e-5 to 1e-4 for LoRA"),
    ("mezo-greedy", "lora"): Preset(5e-5, 1e-2, "constant", "arXiv 2601.04710: grid 3e-5 to 1e-4 for LoRA"),
    ("qzo", "scales"): Preset(4.7e-6, 6.9e-3, "constant", "QZO's 1e-7 and 1e-3 for GPTQ, rescaled to NF4 (k = 6.9)"),
    ("fzoo", "all"): Preset(1e-5, 1e-3, "linear", "ours by the step length of GRZO; not the paper's grid"),
    ("sgd", "all"): Preset(1e-3, 1e-3, "linear", "common fine-tuning practice"),
    ("adamw", "all"): Preset(2e-5, 1e-3, "linear", "common fine-tuning practice"),
    ("adamw", "lora"): Preset(2e-4, 1e-3, "linear", "common LoRA practice"),
}
# The bundled model is a thousand times smaller, so rates are a thousand times larger. Found by `zocore compare` on
# the sentiment task at a forward cost of 600, grids of 2 to 4 rates a factor of 2 or 3 apart, seed 0.
TUNED = "tuned on the bundled sentiment task at a forward cost of 600"
COARSE = "best of two to five rates on the bundled sentiment task, 60 or 150 steps, seed 0"
BUNDLED = {
    ("mezo", "all"): Preset(3e-4, 1e-3, "constant", TUNED),
    ("n-spsa", "all"): Preset(1.2e-3, 1e-3, "constant", TUNED),
    ("grzo", "all"): Preset(5e-3, 1e-3, "linear", TUNED),
    ("mezo-gv", "all"): Preset(3e-4, 1e-3, "constant", TUNED),
    ("mezo-greedy", "all"): Preset(3e-4, 1e-3, "constant", TUNED),
    ("fzoo", "all"): Preset(5e-3, 1e-3, "linear", TUNED),
    ("openai-es", "all"): Preset(2e-2, 1e-3, "linear", TUNED),
    ("qzo", "scales"): Preset(5e-3, 1e-3, "constant", TUNED),
    ("mezo", "lora"): Preset(3e-2, 1e-2, "constant", COARSE),
    ("n-spsa", "lora"): Preset(1e-1, 1e-2, "constant", COARSE),
    ("grzo", "lora"): Preset(3e-2, 1e-2, "linear", COARSE),
    ("mezo-gv", "lora"): Preset(3e-2, 1e-2, "constant", COARSE),
    ("mezo-greedy", "lora"): Preset(3e-2, 1e-2, "constant", "the guided vector's; " + COARSE),
    ("fzoo", "lora"): Preset(3e-2, 1e-2, "linear", COARSE),
    ("openai-es", "lora"): Preset(1e-1, 1e-2, "linear", COARSE),
    ("adamw", "lora"): Preset(1e-3, 1e-3, "linear", COARSE),
    ("mezo", "scales"): Preset(1.5e-2, 1e-3, "constant", COARSE),
    ("n-spsa", "scales"): Preset(2e-2, 1e-3, "constant", COARSE),
    ("grzo", "scales"): Preset(2e-2, 1e-3, "linear", COARSE),
    ("mezo-gv", "scales"): Preset(1.5e-2, 1e-3, "constant", COARSE),
    ("mezo-greedy", "scales"): Preset(1.5e-2, 1e-3, "constant", "the guided vector's; " + COARSE),
    ("fzoo", "scales"): Preset(3e-2, 1e-3, "linear", COARSE),
    ("sgd", "all"): Preset(1e-1, 1e-3, "linear", TUNED),
    ("adamw", "all"): Preset(3e-4, 1e-3, "linear", TUNED),
}
# Encoders whose labels are scored by similarity, found with MiniLM (23 million parameters).
ENCODER = {
    ("mezo", "all"): Preset(
        6e-5, 1e-3, "constant", "MiniLM on SST-2: 1500 steps took accuracy from 0.752 to 0.775, seed 0"
    ),
}
ELSEWHERE = Preset(1e-6, 1e-3, "constant", "MeZO's default; not tuned for this combination")


def before_loading(config: RunConfig) -> RunConfig:
    """Return the settings with those filled in that decide how the model is loaded."""
    subspace = METHODS[config.method].home if config.subspace == "auto" else config.subspace
    device = _checked_device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    quantise = config.quantise or ("nf4" if subspace == "scales" else None)
    dtype = config.dtype or ("fp32" if device == "cpu" or config.model == "bundled" else "bf16")
    return replace(config, device=device, quantise=quantise, dtype=dtype, subspace=subspace)


def preset(config: RunConfig) -> Preset:
    """Return the learning rate, eps and schedule for a loaded configuration."""
    place = config.subspace if config.subspace in ("lora", "scales") else "all"
    own = BUNDLED if config.model == "bundled" else ENCODER if config.kind == "encoder" else {}
    return (PAPER | own).get((config.method, place), ELSEWHERE)


def filled(config: RunConfig) -> RunConfig:
    """Return the settings with every number set; what the user chose stays."""
    found = preset(config)
    return replace(
        config, lr=config.lr or found.lr, eps=config.eps or found.eps, schedule=config.schedule or found.schedule
    )


def _checked_device(name: str) -> str:
    if name == "auto":  # spread over all GPUs, which is the one where there is one
        count = torch.cuda.device_count()
        return "auto" if count > 1 else "cuda" if count else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}: choose cpu, cuda or auto") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"the device {name!r} is not supported: choose cpu, cuda or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"there is no GPU {name!r} here: choose cpu, or leave --device out")
    return name
