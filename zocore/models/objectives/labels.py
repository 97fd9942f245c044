"""Classification: what label scores are worth, whichever way a model gives them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zocore.data.tasks import Example, Task
from zocore.data.template import Template
from zocore.errors import InputError
from zocore.models.objectives.base import Evaluation, Objective, Shown, Within
from zocore.models.objectives.batch import Batch, sent
from zocore.models.objectives.evaluation import evaluate
from zocore.models.objectives.tokens import MAX_TOKENS, Ids
from zocore.noise.addressed import Key


class Encoded(NamedTuple):
    """One example as token ids; kept, since training draws the same examples again and again."""

    ids: Ids  # (tokens,)
    mask_at: int = -1  # where the mask token is
    types: Ids | None = None  # (tokens,): which of two sentences, for models that read it


class LabelObjective(Objective):
    """Scores of labels, and what a criterion makes of them."""

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, max_tokens: int = MAX_TOKENS) -> None:
        super().__init__(model, tokenizer, task, max_tokens)
        self.template = Template(task.template)
        self._encoded: dict[tuple[str, ...], Encoded] = {}

    @abstractmethod
    def encode(self, fields: Mapping[str, str]) -> Encoded:
        """Return an example's text as token ids."""

    @abstractmethod
    def collate(self, rows: Sequence[Encoded], labels: Tensor) -> Batch:
        """Return encoded examples and their labels (B,) as one batch."""

    @abstractmethod
    def log_probs(self, batch: Batch) -> Tensor:
        """Return the log-probabilities of the labels (B, L), float32 or wider; one forward of the model."""

    def batch(self, examples: Sequence[Example], key: Key | None = None) -> Batch:
        """Return the examples as one batch on the model's device; nothing is drawn."""
        labels = sent(torch.tensor([example.label for example in examples]), self.device)
        return self.collate([self._once(example.fields) for example in examples], labels)

    def losses(self, batch: Batch) -> Tensor:
        """Return the criterion's value of each example (B,), the cross entropy by default; float32 or wider."""
        return self.criterion(self.log_probs(batch), batch.labels)

    def evaluate(self, examples: Sequence[Example], batch_size: int, within: Within) -> Evaluation:
        """Return loss and accuracy, and what the criterion reports besides."""
        return evaluate(self, examples, batch_size, lambda batch: within(batch, self.log_probs))

    def show(self, examples: Sequence[Example]) -> Shown:
        """Return the label probabilities of a few examples, as one batch."""
        with torch.no_grad():
            return Shown(self.log_probs(self.batch(examples)).exp().tolist())

    def probabilities(self, texts: Sequence[str | Mapping[str, str]]) -> Tensor:
        """Return the label probabilities (n, L) of new texts: strings, or fields where the task has several.

        Raises InputError for a text without a field that the task needs.
        """
        examples = [Example(self._fields(text), 0) for text in texts]
        with torch.no_grad():
            return torch.cat([self.log_probs(self.batch([example])).exp() for example in examples])

    def length(self, example: Example) -> int:
        """Return how many tokens the example's text takes, to sort by."""
        return len(self._once(example.fields).ids)

    def _check_room(self, prompt: Template, taken: int) -> None:
        """Raise InputError when the prompt around the text and `taken` other tokens leave no room for any text."""
        around = len(self.tokens.plain(prompt.fill(dict.fromkeys(prompt.fields, "")).text))
        if around + taken >= self.tokens.max_tokens:
            raise InputError(
                f"no text fits into {self.tokens.max_tokens} tokens: the template takes {around} and the label words "
                f"and the tokens around them {taken}; give a larger --max-tokens or shorter words"
            )

    def _once(self, fields: Mapping[str, str]) -> Encoded:
        key = tuple(fields.values())
        if key not in self._encoded:
            self._encoded[key] = self.encode(fields)
        return self._encoded[key]

    def _fields(self, text: str | Mapping[str, str]) -> dict[str, str]:
        names = self.template.fields
        given = {names[0]: text} if isinstance(text, str) else dict(text)
        missing = [name for name in names if name not in given]
        if missing:
            raise InputError(f"this task reads {', '.join(names)}: {missing[0]} is missing")
        return {name: given[name] for name in names}
