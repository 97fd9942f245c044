"""How much of what a step measures is rounding: told before a run in 16 bits, which cannot be seen from its losses.

A slope hardly changes when the probe goes a little further, but every weight and activation is then rounded
otherwise. So two measurements a hair apart, along the same directions, differ by what rounding adds to each.
"""

from dataclasses import replace
from math import sqrt

import torch

from zocore.noise.addressed import Key
from zocore.runs.estimator import STRIDE
from zocore.step.losses import Losses
from zocore.step.step import Method

FURTHER = 1 + 2**-6  # of eps: curvature changes a slope by about the square of it
LEAST = 8  # slopes that a share is taken over
DROWNED = 0.5  # from this share on a step learns more from rounding than a person would guess


def rounding_share(method: Method, losses: Losses, key: Key, eps: float) -> float | None:
    """Return the rounding in the slopes over their size (root mean squares), 0 where both agree.

    None when a loss was not finite. `losses` must not be the step's own: its forward passes are counted apart.
    """
    slopes, again = [], []
    for number in range(LEAST):
        at = replace(key, direction=(number + 1) * STRIDE)
        directions = tuple(method.sampler(at, losses, eps))
        pair = [method.difference(losses, directions, distance) for distance in (eps, eps * FURTHER)]
        losses.forget()
        if not all(measured.finite for measured in pair):
            return None
        slopes.append(pair[0].projected_grad)
        again.append(pair[1].projected_grad)
        if sum(map(len, slopes)) >= LEAST:
            break
    one, other = torch.cat(slopes), torch.cat(again)
    size = sqrt(float(one.square().mean()))
    return sqrt(float((one - other).square().mean()) / 2) / size if size else 0.0
