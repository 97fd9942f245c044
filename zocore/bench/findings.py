"""What a check finds: a figure, and the goal it was held against."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    found: str
    goal: str = ""
    met: bool | None = None  # None where there is no goal


@dataclass(frozen=True)
class Place:
    """Where a check runs, and how large: on a CPU in miniature."""

    device: torch.device
    small: bool = False
    model: str | None = None  # local folder of a real model


def at_most(what: str, value: float, limit: float, unit: str = "") -> Finding:
    """A figure that should not be larger than its goal."""
    return Finding(what, f"{value:.3g}{unit}", f"<= {limit:g}{unit}", value <= limit)


def at_least(what: str, value: float, limit: float, unit: str = "") -> Finding:
    """A figure that should not be smaller than its goal."""
    return Finding(what, f"{value:.3g}{unit}", f">= {limit:g}{unit}", value >= limit)


def yes(what: str, true: bool) -> Finding:
    """Something that has to hold."""
    return Finding(what, "yes" if true else "NO", "yes", true)
