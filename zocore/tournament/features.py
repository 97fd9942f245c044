"""What an untrained model knows of a text: the numbers that its head, or its label similarity, reads."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zocore.data.tasks import Example
from zocore.models.objectives.base import Objective
from zocore.models.objectives.batch import Batch
from zocore.models.objectives.encoder import LabelSimilarity
from zocore.models.objectives.label_rows import head_of


def features(objective: Objective, examples: Sequence[Example], batch_size: int) -> Tensor:
    """Return the frozen features (n, d) of examples, in their order.

    For an encoder that is its pooled embedding. Elsewhere it is what the head is given: the hidden state where the
    label is read (the first such place where a label has several tokens), or, where the head reads whole rows,
    their mean over real tokens.
    """
    order = sorted(range(len(examples)), key=lambda number: objective.length(examples[number]))
    parts: list[Tensor] = []
    for first in range(0, len(order), batch_size):
        batch = objective.batch([examples[number] for number in order[first : first + batch_size]])
        with torch.no_grad():
            parts.append(_of_batch(objective, batch).float())
    back = torch.empty(len(order), dtype=torch.int64)
    back[order] = torch.arange(len(order))
    return torch.cat(parts)[back]


def _of_batch(objective: Objective, batch: Batch) -> Tensor:
    if isinstance(objective, LabelSimilarity):
        return objective.embed(batch)
    seen: list[Tensor] = []

    def look(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0])

    handle = head_of(objective.model).register_forward_pre_hook(look)
    try:
        objective.log_probs(batch)
    finally:
        handle.remove()
    hidden = seen[0]
    if hidden.ndim == 3 and batch.positions is None:
        real = batch.attention_mask.unsqueeze(2).to(hidden.dtype)
        hidden = (hidden * real).sum(dim=1) / real.sum(dim=1)
    elif hidden.ndim == 3:
        hidden = hidden[:, 0]  # (rows, k, d): where the first token of a label is read
    return hidden[:: len(hidden) // len(batch)]  # of an example's rows, one for each label, the first
