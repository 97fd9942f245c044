"""What one forward of a model reads: padded rows, where to look, and which example each row belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from zocore.carriers.layout import Layout
from zocore.models.objectives.tokens import Ids


@dataclass(frozen=True, eq=False)
class Batch:
    """B examples as rows of tokens; an example has one row, or one row per label, next to each other."""

    inputs: dict[str, Tensor]  # what the model is called with, each (rows, tokens)
    labels: Tensor  # (B,) int64, on the model's device
    layout: Layout  # numbers the examples over the WHOLE batch, also after a split
    positions: Tensor | None = None  # (rows, k): where the head reads; None if it reads whole rows
    targets: Tensor | None = None  # (rows, k): the token whose probability counts there, -100 for none

    @property
    def input_ids(self) -> Tensor:
        """Token ids (rows, tokens)."""
        return self.inputs["input_ids"]

    @property
    def attention_mask(self) -> Tensor:
        """1 where a token is real, 0 on padding (rows, tokens)."""
        return self.inputs["attention_mask"]

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, size: int) -> list["Batch"]:
        """Return micro-batches of at most `size` examples; they keep the padding and the example numbers."""
        if size < 1:
            raise ValueError(f"a micro-batch needs at least one example, not {size}")
        return [self._part(first, min(first + size, len(self))) for first in range(0, len(self), size)]

    def _part(self, first: int, last: int) -> "Batch":
        per_example = len(self.input_ids) // len(self)
        rows = slice(first * per_example, last * per_example)
        return replace(
            self,
            inputs={name: tensor[rows] for name, tensor in self.inputs.items()},
            labels=self.labels[first:last],
            layout=self.layout.part(rows),
            positions=None if self.positions is None else self.positions[rows],
            targets=None if self.targets is None else self.targets[rows],
        )


def padded(rows: Sequence[Ids], fill: int, left: bool) -> tuple[Tensor, Tensor]:
    """Return rows of different lengths as (rows, tokens), padded with `fill` on one side, and their mask."""
    lengths = np.array([len(row) for row in rows])
    width = int(lengths.max())
    ids = np.full((len(rows), width), fill, dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, width - len(row) if left else 0 : width if left else len(row)] = row
    columns = np.arange(width)
    mask = columns >= (width - lengths)[:, None] if left else columns < lengths[:, None]
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor on a device, without waiting for what the device still has to do."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def count_positions(mask: Tensor) -> Tensor:
    """Return the place of each token among the real ones of its row, (rows, tokens); 0 on left padding."""
    return (mask.cumsum(dim=1) - 1).clamp_(min=0)


def layout_of(mask: Tensor, rows_per_example: int, read: Tensor | None = None) -> Layout:
    """Return the layout of rows that belong to examples in order; `read` (rows, k) is where the head is asked."""
    examples = torch.arange(len(mask) // rows_per_example)  # on the host, which has to know them
    return Layout(examples.repeat_interleave(rows_per_example), mask.bool(), read)
