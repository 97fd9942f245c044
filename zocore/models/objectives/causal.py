"""Labels as continuations of a prompt, for decoders: "{text} It was" is continued by " great" or " terrible".

An option counts by the mean log-probability of its tokens (MeZO's choice), so long options are not
punished; the loss is the cross entropy over the options. Rows are padded on the left, options end
flush right, and the last token of an option is never fed, for nothing is predicted from it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from zocore.data.tasks import Example, Task
from zocore.errors import InputError
from zocore.models.objectives.base import widened
from zocore.models.objectives.batch import Batch, count_positions, layout_of, padded, sent
from zocore.models.objectives.heads import LinearHead
from zocore.models.objectives.label_rows import only_rows
from zocore.models.objectives.labels import Encoded
from zocore.models.objectives.last_linear import LastLinear
from zocore.models.objectives.tokens import MAX_TOKENS, Ids, Tokens


@final
class CausalChoice(LastLinear):
    """Reads every label word's probability after the prompt; when all are one token, one row per example will do.

    Raises InputError when two label words are the same tokens or the template does not end before the answer.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, max_tokens: int = MAX_TOKENS) -> None:
        super().__init__(model, tokenizer, task, max_tokens)
        self.prompt = self.template.before_answer()
        self.options = _options(self.tokens, self.prompt.text, task.label_words)
        self.longest = max(map(len, self.options))
        self.rows = 1 if self.longest == 1 else len(self.options)
        self._check_room(self.prompt, len(self.tokens.opening) + self.longest - 1)
        self.outputs = torch.tensor([option[0] for option in self.options])
        self._targets = _right_aligned(self.options, self.longest)

    def encode(self, fields: Mapping[str, str]) -> Encoded:
        """Return the prompt's ids, with room left for the longest option."""
        return Encoded(self.tokens.prompt(self.prompt.fill(fields), self.tokens.max_tokens - self.longest + 1))

    def collate(self, rows: Sequence[Encoded], labels: Tensor) -> Batch:
        """Return one row per example, or one per option in the order of the labels."""
        single = self.longest == 1
        texts = [row.ids for row in rows]
        if not single:
            texts = [np.concatenate((ids, option[:-1])) for ids in texts for option in self.options]
        ids, mask = (sent(tensor, self.device) for tensor in padded(texts, self.tokens.pad_id, left=True))
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": count_positions(mask)}
        read = torch.arange(ids.shape[1] - self.longest, ids.shape[1], device=self.device).expand(len(ids), -1)
        return Batch(
            inputs,
            labels,
            layout_of(mask, self.rows, read),
            read,
            None if single else self._there("_targets", self.device).repeat(len(rows), 1),
        )

    def size(self, example: Example) -> int:
        """Return how many tokens all rows of the example take, padding apart."""
        length = self.length(example)
        return length if self.longest == 1 else sum(length + len(option) - 1 for option in self.options)

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits where the labels' tokens are predicted (rows, k, vocabulary)."""
        assert batch.positions is not None
        with only_rows(self.model, batch.positions):
            logits: Tensor = self.model(**batch.inputs, use_cache=False).logits
        return logits

    @property
    def head(self) -> LinearHead | None:
        """The rows of the output layer that belong to the labels; None where a label is several tokens."""
        return super().head if self.longest == 1 else None

    def log_probs(self, batch: Batch) -> Tensor:
        """Return the log-probabilities of the labels (B, L): the softmax over the options' mean log-probs."""
        logits = self.logits(batch)
        if batch.targets is None:
            return widened(logits[:, 0, self._there("outputs", logits.device)]).log_softmax(dim=1)
        return mean_log_probs(logits, batch.targets).view(len(batch), -1).log_softmax(dim=1)


def mean_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean log-probability (rows,) of targets (rows, k) under logits (rows, k, vocabulary)."""
    wide = widened(logits)
    tokens = targets.clamp(min=0).unsqueeze(2)
    log_probs = wide.gather(2, tokens).squeeze(2) - wide.logsumexp(dim=2)
    real = targets >= 0
    return (log_probs * real).sum(dim=1) / real.sum(dim=1)


def _options(tokens: Tokens, prompt: str, words: Sequence[str]) -> list[Ids]:
    """Token ids of the label words as they come after the prompt, read off a stand-in text.

    As in MeZO, an option is what tokenising prompt and word together adds to the prompt's tokens.
    """
    stand_in = "a" + prompt[prompt.rfind("}") + 1 :]
    space = "" if stand_in[-1].isspace() else " "
    before = len(tokens.plain(stand_in))
    options = [np.array(tokens.plain(stand_in + space + word)[before:], dtype=np.int64) for word in words]
    words_of: dict[bytes, str] = {}
    for option, word in zip(options, words, strict=True):
        if not len(option) or tokens.tokenizer.unk_token_id in option:
            raise InputError(f"the model's vocabulary cannot write the label word {word!r}: choose another")
        if option.tobytes() in words_of:
            raise InputError(f"the label words {words_of[option.tobytes()]!r} and {word!r} are the same to the model")
        words_of[option.tobytes()] = word
    return options


def _right_aligned(options: Sequence[Ids], width: int) -> Tensor:
    """The options' tokens as (L, width), -100 before the shorter ones."""
    targets = torch.full((len(options), width), -100)
    for number, option in enumerate(options):
        targets[number, width - len(option) :] = torch.from_numpy(option)
    return targets
