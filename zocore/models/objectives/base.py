"""From examples to per-example losses, the one thing that every method here needs; all in float32 or wider.

An objective turns examples into a `Batch`, and a batch into log-probabilities over the labels with one
forward of the model. How labels are read off depends on the model: see `causal.py`, `masked.py`, `encoder.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zocore.data.tasks import Example, Task
from zocore.data.template import Template
from zocore.errors import InputError
from zocore.models.kinds import KINDS
from zocore.models.load import LoadedModel
from zocore.models.objectives.batch import Batch, sent
from zocore.models.objectives.tokens import MAX_TOKENS, Ids, Tokens, row_limit
from zocore.step.readout import Head


class Encoded(NamedTuple):
    """One example as token ids; kept, since training draws the same examples again and again."""

    ids: Ids  # (tokens,)
    mask_at: int = -1  # where the mask token is
    types: Ids | None = None  # (tokens,): which of two sentences, for models that read it


class Objective(ABC):
    """A task's loss with one model: one number per example, never their mean."""

    rows = 1  # of a batch for each example

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, max_tokens: int = MAX_TOKENS) -> None:
        self.model = model
        self.task = task
        self.template = Template(task.template)
        self.tokens = Tokens(tokenizer, row_limit(model.config, tokenizer, max_tokens))
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

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Return the examples as one batch on the model's device."""
        labels = sent(torch.tensor([example.label for example in examples]), self.device)
        return self.collate([self._once(example.fields) for example in examples], labels)

    @property
    def head(self) -> Head | None:
        """The fixed function from features to label scores; None where it is not known."""
        return None

    @property
    def last_layer(self) -> nn.Module | None:
        """The layer of the model whose weights the head is made of, if any: it must not move."""
        return None

    def features(self, batch: Batch) -> Tensor:
        """Return what the head reads (B, D), float32 or wider; one forward. Raises ValueError without a known head."""
        raise ValueError("these label scores are not made from features by a known head")

    def losses(self, batch: Batch) -> Tensor:
        """Return the cross entropy of each example (B,), float32 or wider."""
        return -self.log_probs(batch).gather(1, batch.labels.unsqueeze(1)).squeeze(1)

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

    def size(self, example: Example) -> int:
        """Return how many tokens all rows of the example take, padding apart."""
        return self.length(example)

    @property
    def device(self) -> torch.device:
        """Where the model reads its input."""
        return next(self.model.parameters()).device

    def _check_room(self, prompt: Template, taken: int) -> None:
        """Raise InputError when the prompt around the text and `taken` other tokens leave no room for any text."""
        around = len(self.tokens.plain(prompt.fill(dict.fromkeys(prompt.fields, "")).text))
        if around + taken >= self.tokens.max_tokens:
            raise InputError(
                f"no text fits into {self.tokens.max_tokens} tokens: the template takes {around} and the label words "
                f"and the tokens around them {taken}; give a larger --max-tokens or shorter words"
            )

    def _there(self, name: str, device: torch.device) -> Tensor:
        """An index tensor of the objective on the device of what it indexes, moved there once."""
        index: Tensor = getattr(self, name)
        if index.device != device:
            index = sent(index, device)
            setattr(self, name, index)
        return index

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


def objective_for(loaded: LoadedModel, task: Task, max_tokens: int = MAX_TOKENS) -> Objective:
    """Return the objective for a model's kind. Raises InputError when the task does not fit the model."""
    if task.candidates:
        return _candidates(loaded, task, max_tokens)
    more = {"folder": Path(loaded.path)} if loaded.kind == "encoder" else {}
    make = KINDS[loaded.kind].objective_class()
    objective: Objective = make(loaded.model, loaded.tokenizer, task, max_tokens, **more)
    return objective


def _candidates(loaded: LoadedModel, task: Task, max_tokens: int) -> Objective:
    from zocore.models.objectives.candidates import CandidateChoice  # which is an objective itself

    if loaded.kind != "causal":
        raise InputError(
            f"{task.name} scores candidates of each example as continuations, and a {loaded.kind} model continues "
            "nothing: take a decoder"
        )
    return CandidateChoice(loaded.model, loaded.tokenizer, task, max_tokens)


def widened(logits: Tensor) -> Tensor:
    """Return logits in float32, or as they are in float64: a 16-bit loss would round the difference away."""
    return logits if logits.dtype == torch.float64 else logits.float()
