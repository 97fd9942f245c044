"""Measurements made by hand."""

import torch

from zocore.step.difference import Measured


def record(*d: float) -> Measured:
    g = torch.tensor(d, dtype=torch.float64)
    return Measured(1 + g, 1 - g, g)
