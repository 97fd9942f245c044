"""Language modelling: the cross entropy of each next token, of texts or of the answers in chats and questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

import numpy as np
import torch
from torch import Tensor

from zocore.data.answers import SCORES, best, shown_answer
from zocore.data.tasks import Example, Task
from zocore.data.texts import ANSWER, MESSAGES, PROMPT, Row, as_row
from zocore.errors import InputError
from zocore.models.load import LoadedModel
from zocore.models.objectives.base import Evaluation, Shown, Within, widened
from zocore.models.objectives.batch import Batch, count_positions, layout_of, padded, sent
from zocore.models.objectives.label_rows import only_rows
from zocore.models.objectives.learned_tokens import Learned, learned
from zocore.models.objectives.tokens import MAX_TOKENS
from zocore.models.objectives.writing import EVALUATION, Writes, Writing
from zocore.noise.addressed import Key


@dataclass(frozen=True, eq=False)
class Texts(Batch):
    """A batch of texts; `weight` makes the mean over examples the mean over tokens: examples over tokens to learn."""

    weight: float = 1.0


class NextTokens(Writes):
    """The loss of each example's tokens, so weighted that the mean of a batch is its mean loss per token.

    Raises InputError for rows without anything to learn from, and where the model is no decoder.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        task: Task,
        max_tokens: int = MAX_TOKENS,
        writing: Writing = Writing(),
        metric: str | None = None,
    ) -> None:
        super().__init__(loaded, task, max_tokens, writing)
        self.metric = metric
        self._learned: dict[tuple[str, ...], Learned] = {}
        for row in map(as_row, task.test if metric else ()):
            if not (row.fields.get(PROMPT) and row.fields.get(ANSWER)):
                raise InputError(f"{row.place}: --metric {metric} needs a prompt and an answer in every row")

    @property
    def notes(self) -> list[str]:
        """What the chats look like to a model whose tokenizer has no form for them."""
        chats = any(MESSAGES in row.fields for row in self.task.train[:1])
        plain = chats and self.tokens.tokenizer.chat_template is None
        return ["The tokenizer has no chat template: chats are written as lines of `role: text`."] if plain else []

    def batch(self, examples: Sequence[Example], key: Key | None = None) -> Texts:
        """Return texts padded on the left without their last token, from which nothing is predicted."""
        rows = [self._once(as_row(example)) for example in examples]
        texts = [row.ids[:-1] for row in rows]
        ids, mask = (sent(tensor, self.device) for tensor in padded(texts, self.tokens.pad_id, left=True))
        first = max(len(row.ids) - int(row.counts.argmax()) for row in rows)  # tokens from the first that counts
        targets = np.full((len(rows), first), -100, dtype=np.int64)
        for number, row in enumerate(rows):
            ends = np.where(row.counts > 0, row.ids, -100)[-first:]
            targets[number, first - len(ends) :] = ends
        read = torch.arange(ids.shape[1] - first, ids.shape[1], device=self.device).expand(len(rows), -1)
        return Texts(
            {"input_ids": ids, "attention_mask": mask, "position_ids": count_positions(mask)},
            torch.zeros(len(rows), dtype=torch.int64, device=self.device),
            layout_of(mask, 1, read),
            read,
            sent(torch.from_numpy(targets), self.device),
            len(rows) / sum(int(row.counts.sum()) for row in rows),
        )

    def losses(self, batch: Batch) -> Tensor:
        """Return the summed loss of each example's tokens times the batch's weight (B,), float32 or wider."""
        assert isinstance(batch, Texts)
        return self._asked(batch)[:, 0] * batch.weight

    def evaluate(self, examples: Sequence[Example], batch_size: int, within: Within) -> Evaluation:
        """Return the mean loss per token, the share of tokens that are likeliest, perplexity and the metric."""
        if not examples:
            raise ValueError("there are no examples to evaluate on")
        order, sums = sorted(examples, key=self.length), torch.zeros(3, dtype=torch.float64)
        for first in range(0, len(order), batch_size):
            with torch.no_grad():
                sums_of_rows = within(self.batch(order[first : first + batch_size]), self._asked)
            sums += sums_of_rows.double().sum(dim=0).cpu()
        loss, right, count = sums.tolist()
        scores = {"perplexity": exp(min(loss / count, 700.0))}  # beyond, a float is infinite
        if self.metric:
            scores[self.metric] = self._score(examples, batch_size)
        return Evaluation(loss / count, right / count, scores)

    def show(self, examples: Sequence[Example]) -> Shown:
        """Return what the model writes after a few prompts, or after the first third of a few texts."""
        rows = [as_row(example) for example in examples]
        prompts = [self._beginning(row) for row in rows]
        answers = [shown_answer(row.fields.get(ANSWER, "")) for row in rows]
        written = self.writer.after(prompts, EVALUATION)
        return Shown(None, prompts, written, answers if any(answers) else [])

    def length(self, example: Example) -> int:
        """Return how many tokens the model reads of the example."""
        return len(self._once(as_row(example)).ids) - 1

    def _asked(self, batch: Batch) -> Tensor:
        """For each example the sum of its tokens' losses, how many of them are likeliest, and how many count (B, 3)."""
        assert batch.positions is not None and batch.targets is not None
        with only_rows(self.model, batch.positions):
            logits = widened(self.model(**batch.inputs, use_cache=False).logits)
        targets = batch.targets.to(logits.device)
        counts = targets >= 0
        wanted = targets.clamp(min=0).unsqueeze(2)
        losses = (logits.logsumexp(dim=2) - logits.gather(2, wanted).squeeze(2)) * counts
        right = (logits.argmax(dim=2) == targets).sum(dim=1)
        return torch.stack([losses.sum(dim=1), right.to(losses.dtype), counts.sum(dim=1).to(losses.dtype)], dim=1)

    def _score(self, examples: Sequence[Example], batch_size: int) -> float:
        """The mean score of what the model writes after the prompts."""
        assert self.metric is not None
        scores: list[float] = []
        for first in range(0, len(examples), batch_size):
            rows = examples[first : first + batch_size]
            written = self.writer.after([row.fields[PROMPT] for row in rows], EVALUATION)
            texts = zip(rows, written, strict=True)
            scores += [best(SCORES[self.metric], text, row.fields[ANSWER]) for row, text in texts]
        return sum(scores) / len(scores)

    def _beginning(self, row: Row) -> str:
        if row.fields.get(PROMPT):
            return row.fields[PROMPT]
        ids = self._once(row).ids
        text: str = self.tokens.tokenizer.decode(ids[: max(len(ids) // 3, 2)], skip_special_tokens=True)
        return text

    def _once(self, row: Row) -> Learned:
        key = tuple(row.fields.values())
        if key not in self._learned:
            self._learned[key] = learned(self.tokens, row)
        return self._learned[key]
