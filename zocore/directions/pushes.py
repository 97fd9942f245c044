"""Directions in activity space: random signs added to what linear layers put out, each row's own.

Node perturbation (Werfel, Xie and Seung 2005; activity-perturbed forward gradient in arXiv 2210.03310) moves the
outputs y = W x + b instead of the weights. A batch has far fewer outputs than a model has weights, and every
example has directions of its own for free: no product with a matrix of noise is needed.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zocore.directions.laws import draw_rows
from zocore.noise.addressed import Key, Purpose

Tie = Literal["tokens", "none"]  # one push for all tokens of a row, or one for each token


@dataclass(frozen=True)
class Pushes:
    """The pushes xi of one draw on every perturbed output: Rademacher signs, made again from their address."""

    key: Key
    tie: Tie = "tokens"
    shared = False

    def signs(self, site: int, numbers: Tensor, tokens: int, width: int) -> Tensor:
        """Return xi for the rows so numbered over the whole batch, on their device, float32.

        (rows, 1, width) when tied over tokens, else (rows, tokens, width); `site` is the id of the layer's leaf.
        """
        if self.tie == "tokens":
            return draw_rows(self.key, site, Purpose.PUSH, numbers, width).unsqueeze(1)
        places = (numbers.unsqueeze(1) * tokens + torch.arange(tokens, device=numbers.device)).reshape(-1)
        return draw_rows(self.key, site, Purpose.PUSH, places, width).view(len(numbers), tokens, width)
