"""The settings that the user left open, filled in."""

from dataclasses import replace
from typing import cast, get_args

import torch

from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.methods import METHODS
from zocore.objectives import OBJECTIVES
from zocore.presets import Models, Preset, Subspace


def before_loading(config: RunConfig) -> RunConfig:
    """Return the settings with those filled in that decide how the model is loaded."""
    subspace = subspace_of(config)
    device = checked_device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    quantise = config.quantise or ("nf4" if subspace == "scales" else None)
    dtype = config.dtype or ("fp32" if device == "cpu" or config.model == "bundled" else "bf16")
    config = replace(config, device=device, quantise=quantise, dtype=dtype, subspace=subspace)
    return replace(config, push_every=push_every(config))


def subspace_of(config: RunConfig) -> str:
    """Return what moves: the method's own home where that is left open."""
    return METHODS[config.method].home if config.subspace == "auto" else config.subspace


def push_every(config: RunConfig) -> int | None:
    """Return the steps between pushes, where the settings decide them: in each step unless writers alone move.

    None leaves it to what the pushes teach of. A push on a layer that writes into the hidden state is nearly one on the
    features; of other layers all is to be learned.
    """
    if config.push_every is not None or "push_every" not in METHODS[config.method].options:
        return config.push_every
    return None if subspace_of(config).partition(":")[0] == "writers" else 1


def preset(config: RunConfig) -> Preset:
    """Return the learning rate and eps for settings after `before_loading`, whose `kind` says what the model is.

    Where the method has none for this subspace and model it is an estimate, and so for parameters by name.
    """
    models: Models = "bundled" if config.model == "bundled" else "encoder" if config.kind == "encoder" else "large"
    row = METHODS[config.method]
    family = subspace_of(config).partition(":")[0]  # `writers:2` is one of the writers
    if family in get_args(Subspace):
        return row.preset(cast(Subspace, family), models)
    whole = row.preset("all", models)
    origin = f"an estimate, not tuned: as for all weights, though only {config.subspace!r} move ({whole.origin})"
    return replace(whole, origin=origin, estimated=True)


def filled(config: RunConfig) -> RunConfig:
    """Return the settings with every number set; what the user chose stays."""
    default = preset(config)
    return replace(
        config,
        lr=config.lr or default.lr,
        eps=config.eps or default.eps * OBJECTIVES[config.objective].wider,
        schedule=config.schedule or METHODS[config.method].schedule,
    )


def estimates(config: RunConfig) -> tuple[str, ...]:
    """Return a sentence when the learning rate is an estimate that nobody tuned, none when it is not."""
    default = preset(config)
    if config.lr != default.lr:
        return ()
    if config.objective != "loss":
        return (
            f"The learning rate {default.lr:g} is an estimate: it is the loss's, not tuned for {config.objective}.",
        )
    if not default.estimated:
        return ()
    return (f"The learning rate {default.lr:g} is {default.origin}.",)


def checked_device(name: str) -> str:
    """Return the device that a setting means. Raises InputError when it is unknown or not here."""
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
