"""Pack documents end to end into rows of tokens, and keep them apart when they are read."""

from collections.abc import Iterable, Iterator

import torch
from transformers import PreTrainedTokenizerFast


def pack(tokenizer: PreTrainedTokenizerFast, documents: Iterable[str], length: int) -> torch.Tensor:
    """Return the documents end to end as rows of tokens, shape (rows, length), the rest dropped."""
    stream: list[int] = []
    for group in _groups(documents, 10_000):
        for encoding in tokenizer.backend_tokenizer.encode_batch(group):
            stream += [*encoding.ids, tokenizer.eos_token_id]
    rows = len(stream) // length
    return torch.tensor(stream[: rows * length], dtype=torch.int16).view(rows, length)


def separate(rows: torch.Tensor, bos: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the attention mask (batch, 1, length, length) and positions that keep packed documents apart.

    Without it, every document would be read together with the unrelated ones before it in the row.
    """
    starts = rows == bos
    document = starts.cumsum(1)
    allowed = (document[:, None, :, None] == document[:, None, None, :]).tril()
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.bfloat16).min)
    places = torch.arange(rows.shape[1]).expand_as(rows)
    return mask, places - torch.where(starts, places, 0).cummax(1).values


def _groups(items: Iterable[str], size: int) -> Iterator[list[str]]:
    group: list[str] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    yield group
