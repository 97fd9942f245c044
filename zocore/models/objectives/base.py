"""What a run lowers: one number per example from forward passes of a model, in float32 or wider.

An objective turns examples into a `Batch`, and a batch into values. Of labels it scores the label words (see
`labels.py`, and for how they are read off a model `causal.py`, `masked.py`, `encoder.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zocore.data.tasks import Example, Task
from zocore.errors import InputError
from zocore.models.objectives.batch import Batch, sent
from zocore.models.objectives.tokens import MAX_TOKENS, Tokens, row_limit
from zocore.noise.addressed import Key
from zocore.step.criterion import Criterion, CrossEntropy
from zocore.step.readout import Head

Ask = Callable[[Batch], Tensor]
Within = Callable[[Batch, Ask], Tensor]  # asks about a batch, maybe with the frozen first blocks stood in for


@dataclass(frozen=True)
class Evaluation:
    """How a model does on some examples."""

    loss: float  # mean cross entropy in nats, of a label or of a token; of rewards their mean, negative
    accuracy: float  # share of right answers; NaN where nothing is right or wrong
    scores: Mapping[str, float] | None = None  # what else the objective is judged by, by name


@dataclass(frozen=True)
class Shown:
    """The model's answers on a few examples: label probabilities, or text."""

    probabilities: list[list[float]] | None = None
    prompts: list[str] = field(default_factory=list)
    completions: list[str] = field(default_factory=list)
    wanted: list[str] = field(default_factory=list)  # the right answers where there are any
    scores: list[float] = field(default_factory=list)  # of the completions


class Objective(ABC):
    """A task's value with one model: one number per example, never their mean."""

    rows = 1  # of a batch for each example
    criterion: Criterion = CrossEntropy()  # what label scores are worth
    one_forward = True  # whether a value is one forward of the model, whose first blocks can be stood in for

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, max_tokens: int = MAX_TOKENS) -> None:
        self.model = model
        self.task = task
        self.tokens = Tokens(tokenizer, row_limit(model.config, tokenizer, max_tokens))

    @abstractmethod
    def batch(self, examples: Sequence[Example], key: Key | None = None) -> Batch:
        """Return the examples as one batch on the model's device; `key` addresses what is drawn for it."""

    @abstractmethod
    def losses(self, batch: Batch) -> Tensor:
        """Return what is to be lowered, for each example (B,), float32 or wider."""

    @abstractmethod
    def length(self, example: Example) -> int:
        """Return how many tokens the example's text takes, to sort by."""

    @abstractmethod
    def evaluate(self, examples: Sequence[Example], batch_size: int, within: Within) -> Evaluation:
        """Return how the model does on the examples, without gradients. Raises ValueError when there are none."""

    @abstractmethod
    def show(self, examples: Sequence[Example]) -> Shown:
        """Return the model's answers on a few examples."""

    @property
    def notes(self) -> list[str]:
        """What the user should know of how the data is read."""
        return []

    @property
    def versions(self) -> dict[str, str]:
        """What besides data and weights decides its values, by name, with a fingerprint of it."""
        return {}

    def ready(self) -> None:
        """Get what is needed to be asked. Raises InputError where it is not there."""
        return

    def forward(self, batch: Batch) -> None:
        """Run the model once on the batch, for who wants to see which of its layers take part."""
        self.losses(batch)

    @property
    def head(self) -> Head | None:
        """The fixed function from features to label scores; None where it is not known."""
        return None

    @property
    def last_layer(self) -> nn.Module | None:
        """The layer of the model whose weights the head is made of, if any: it must not move."""
        return None

    def size(self, example: Example) -> int:
        """Return how many tokens all rows of the example take, padding apart."""
        return self.length(example)

    def log_probs(self, batch: Batch) -> Tensor:
        """Return the log-probabilities of the labels (B, L). Raises ValueError where no labels are scored."""
        raise ValueError("this objective scores no labels")

    def features(self, batch: Batch) -> Tensor:
        """Return what the head reads (B, D), float32 or wider; one forward. Raises ValueError without a known head."""
        raise ValueError("these label scores are not made from features by a known head")

    def probabilities(self, texts: Sequence[str | Mapping[str, str]]) -> Tensor:
        """Return the label probabilities (n, L) of new texts. Raises InputError where no labels are scored."""
        raise InputError("this run writes text and has no labels to predict: export it, and generate with the model")

    def written(self, prompts: Sequence[str]) -> list[str] | None:
        """Return what the model writes after new prompts; None where it answers with labels."""
        return None

    @property
    def device(self) -> torch.device:
        """Where the model reads its input."""
        return next(self.model.parameters()).device

    def _there(self, name: str, device: torch.device) -> Tensor:
        """An index tensor of the objective on the device of what it indexes, moved there once."""
        index: Tensor = getattr(self, name)
        if index.device != device:
            index = sent(index, device)
            setattr(self, name, index)
        return index


def directly(batch: Batch, ask: Ask) -> Tensor:
    """Ask about a batch with the whole model."""
    return ask(batch)


def widened(logits: Tensor) -> Tensor:
    """Return logits in float32, or as they are in float64: a 16-bit loss would round the difference away."""
    return logits if logits.dtype == torch.float64 else logits.float()
