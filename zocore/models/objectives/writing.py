"""Writing after prompts, token by token: greedy, or sampled with draws that are the same at every probe.

The draws of a batch are one uniform number for each row and place, from the run's seed and step. So the two sides
of a difference, and all directions of a step, are asked with common random numbers: what differs is the weights'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zocore.models.objectives.base import widened
from zocore.models.objectives.batch import count_positions
from zocore.models.objectives.label_rows import only_rows
from zocore.noise.addressed import Key, Purpose, address, uniform_words


@dataclass(frozen=True)
class Writing:
    """How completions are written."""

    most: int = 32  # tokens
    temperature: float = 0.0  # 0 for the likeliest token

    def draws(self, key: Key, rows: int) -> Tensor | None:
        """Return the uniform numbers (rows, most) of a batch, float64; None where nothing is drawn."""
        if not self.temperature:
            return None
        words = uniform_words(address(key, 0, Purpose.SAMPLE), 0, rows * self.most)
        return (words.double() + 0.5).view(rows, self.most) / 2**32

    def pick(self, logits: Tensor, draws: Tensor | None) -> Tensor:
        """Return the next token of each row (rows,) from logits (rows, vocabulary) and uniform numbers (rows,)."""
        if draws is None:
            return logits.argmax(dim=1)
        sums = (widened(logits).double() / self.temperature).softmax(dim=1).cumsum(dim=1)
        wanted = draws.to(sums.device).unsqueeze(1) * sums[:, -1:]
        return torch.searchsorted(sums, wanted).squeeze(1).clamp(max=logits.shape[1] - 1)

    def write(
        self, model: nn.Module, inputs: dict[str, Tensor], draws: Tensor | None, stops: Sequence[int], pad: int
    ) -> Tensor:
        """Return what follows the prompts (rows, at most `most`), padded after a stop token, which stays.

        `inputs` are rows padded on the left. Keys and values of earlier tokens are kept: the weights are the same
        for all tokens of a completion, so nothing of them is out of date.
        """
        mask, places = inputs["attention_mask"], count_positions(inputs["attention_mask"])[:, -1:]
        last = torch.full_like(places, mask.shape[1] - 1)
        over, ends = torch.zeros(len(mask), dtype=torch.bool, device=mask.device), torch.tensor(stops).to(mask.device)
        written: list[Tensor] = []
        with only_rows(model, last):
            found: Any = model(**inputs, use_cache=True)
        while True:
            at = None if draws is None else draws[:, len(written)]
            token = self.pick(found.logits[:, -1], at).to(mask.device).masked_fill(over, pad)
            written.append(token)
            over = over | torch.isin(token, ends)
            if len(written) == self.most or bool(over.all()):
                return torch.stack(written, dim=1)
            mask, places = torch.cat([mask, torch.ones_like(places)], dim=1), places + 1
            found = model(
                input_ids=token.unsqueeze(1),
                attention_mask=mask,
                position_ids=places,
                past_key_values=found.past_key_values,
                use_cache=True,
            )
