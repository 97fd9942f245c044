"""From a filled template to token ids: of a prompt that is too long the text is cut, not the question."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zocore.data.template import Filled

Ids = NDArray[np.int64]

MAX_TOKENS = 512  # default length of a row; the model's own limit counts where it is lower


class Tokens:
    """A tokenizer with the tokens it puts around every text, and the length a row may have."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.pad_id: int = tokenizer.pad_token_id
        self.opening, self.closing = _frame(tokenizer)

    def plain(self, text: str) -> list[int]:
        """Return the ids of a text without the tokens around it."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt(self, filled: Filled, room: int) -> Ids:
        """Return the ids of a prompt to be continued: opening tokens kept, at most `room` in all."""
        ids, _ = self._cut(filled, room - len(self.opening))
        # an empty prompt still needs a position to predict from
        return np.array(self.opening + ids or [self.tokenizer.eos_token_id], dtype=np.int64)

    def start(self, text: str, room: int) -> Ids:
        """Return the ids of a text to be continued: opening tokens kept, at most `room` in all, cut from the left."""
        ids = self.plain(text)[-max(room - len(self.opening), 1) :]
        return np.array(self.opening + ids or [self.tokenizer.eos_token_id], dtype=np.int64)

    def sentence(self, filled: Filled) -> tuple[Ids, int]:
        """Return the ids of a whole sentence with its frame, and where its mask token is (-1 without one)."""
        ids, starts = self._cut(filled, self.max_tokens - len(self.opening) - len(self.closing))
        masks = [i for i, token in enumerate(ids) if token == self.tokenizer.mask_token_id]
        at = filled.answer or 0
        place = min(masks, key=lambda i: abs(starts[i] - at)) + len(self.opening) if masks else -1
        return np.array(self.opening + ids + self.closing, dtype=np.int64), place

    def _cut(self, filled: Filled, room: int) -> tuple[list[int], list[int]]:
        """At most `room` ids and where they begin: tokens go from the left of the longest field first."""
        if not self.tokenizer.is_fast:
            ids = self.plain(filled.text)[-room:]
            return ids, [0] * len(ids)
        coded = self.tokenizer(filled.text, add_special_tokens=False, return_offsets_mapping=True)
        ids, spans = list(coded["input_ids"]), list(coded["offset_mapping"])
        for start, end in sorted(filled.fields, key=lambda span: span[0] - span[1]):
            excess = len(ids) - room
            if excess <= 0:
                break
            inside = [i for i, (a, b) in enumerate(spans) if start <= a and b <= end][:excess]
            gone = set(inside)
            ids, spans = (
                [token for i, token in enumerate(ids) if i not in gone],
                [span for i, span in enumerate(spans) if i not in gone],
            )
        ids, spans = ids[-room:], spans[-room:]
        return ids, [a for a, _ in spans]


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text, such as [CLS] and [SEP]."""
    inner = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    for first in range(len(whole) - len(inner) + 1):
        if whole[first : first + len(inner)] == inner:
            return whole[:first], whole[first + len(inner) :]
    return [], []


def row_limit(config: Any, tokenizer: Any, wanted: int = MAX_TOKENS) -> int:
    """Return how many tokens a row may have: what is wanted, within what the model has positions for."""
    positions = getattr(config, "max_position_embeddings", None) or wanted
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= 2  # their positions count from the padding id + 1
    return int(min(wanted, positions, tokenizer.model_max_length or wanted))
