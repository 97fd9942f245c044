"""Labels as fillings of a mask, for BERT and RoBERTa with their masked-language-model head."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from zocore.data.tasks import Task
from zocore.data.template import Template
from zocore.errors import InputError
from zocore.models.objectives.base import widened
from zocore.models.objectives.batch import Batch, layout_of, padded, sent
from zocore.models.objectives.encoder import model_inputs
from zocore.models.objectives.label_rows import only_rows
from zocore.models.objectives.labels import Encoded
from zocore.models.objectives.last_linear import LastLinear
from zocore.models.objectives.tokens import MAX_TOKENS, Tokens


@final
class MaskedChoice(LastLinear):
    """Reads the label words' probabilities at the mask; a template without one gets " {mask}." at its end.

    Raises InputError for a tokenizer without a mask or for label words that are not one token each.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, max_tokens: int = MAX_TOKENS) -> None:
        super().__init__(model, tokenizer, task, max_tokens)
        if tokenizer.mask_token is None:
            raise InputError("the model's tokenizer has no mask token: use the model as a classifier instead")
        self.prompt = self.template
        if not self.template.has_answer:
            self.prompt = Template(task.template.rstrip() + " {mask}.")
        self._check_room(self.prompt, len(self.tokens.opening) + len(self.tokens.closing) + 1)  # the mask itself
        self.outputs = torch.tensor(_single_tokens(self.tokens, task.label_words))

    def encode(self, fields: Mapping[str, str]) -> Encoded:
        """Return the prompt's ids and the place of its mask."""
        ids, mask_at = self.tokens.sentence(self.prompt.fill(fields, self.tokens.tokenizer.mask_token))
        if mask_at < 0:
            raise InputError(f"the prompt leaves no room for its mask in {self.tokens.max_tokens} tokens: shorten it")
        return Encoded(ids, mask_at)

    def collate(self, rows: Sequence[Encoded], labels: Tensor) -> Batch:
        """Return one row per example, padded on the right."""
        ids, mask = (sent(t, self.device) for t in padded([row.ids for row in rows], self.tokens.pad_id, left=False))
        positions = sent(torch.tensor([[row.mask_at] for row in rows]), self.device)
        return Batch(model_inputs(self.model, ids, mask), labels, layout_of(mask, 1, positions), positions)

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits at the mask (rows, 1, vocabulary)."""
        assert batch.positions is not None
        with only_rows(self.model, batch.positions):
            logits: Tensor = self.model(**batch.inputs).logits
        return logits

    def log_probs(self, batch: Batch) -> Tensor:
        """Return the log-probabilities of the labels (B, L): the softmax over their words at the mask."""
        logits = self.logits(batch)
        return widened(logits[:, 0, self._there("outputs", logits.device)]).log_softmax(dim=1)


def _single_tokens(tokens: Tokens, words: Sequence[str]) -> list[int]:
    word_of: dict[int, str] = {}
    for word in words:
        ids = tokens.plain(" " + word)
        if len(ids) != 1 or ids[0] == tokens.tokenizer.unk_token_id:
            pieces = " ".join(tokens.tokenizer.convert_ids_to_tokens(ids))
            raise InputError(f"the label word {word!r} is not one token of the model but {pieces!r}: choose another")
        if ids[0] in word_of:
            raise InputError(f"the label words {word_of[ids[0]]!r} and {word!r} are the same to the model")
        word_of[ids[0]] = word
    return list(word_of)
