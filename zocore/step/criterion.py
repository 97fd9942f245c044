"""From the scores of labels to what a run minimises: one value per example, and its derivative where it has one.

Every value is a cost, so that less is better, whatever it is called: accuracy counts as 1 for a wrong answer.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Criterion(Protocol):
    """What label scores are worth. `log_probs` are (B, L), float32 or wider, `labels` (B,) the right ones."""

    @property
    def flat(self) -> bool:
        """Whether it is constant almost everywhere: no derivative leads anywhere, and near probes are often equal."""

    @property
    def of_batch(self) -> bool:
        """Whether the value belongs to the batch as a whole, and every example carries the same."""

    def __call__(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """Return one value per example (B,)."""

    def errors(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """Return the derivative of each example's value in its label scores (B, L). Raises ValueError when flat."""

    def report(self, log_probs: Tensor, labels: Tensor) -> dict[str, float] | None:
        """Return what an evaluation of these examples says of it by name; None where loss and accuracy say all."""


@dataclass(frozen=True)
class CrossEntropy:
    """-log p(y)."""

    flat = of_batch = False

    def __call__(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """Return the cross entropies (B,)."""
        return -log_probs.gather(1, labels.unsqueeze(1)).squeeze(1)

    def errors(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """Return p - onehot(y) (B, L)."""
        return log_probs.exp() - functional.one_hot(labels, log_probs.shape[1])

    def report(self, log_probs: Tensor, labels: Tensor) -> None:
        """Nothing more."""


@dataclass(frozen=True)
class Margin:
    """max(0, m - (z_y - max_{j != y} z_j)): nothing is left to do once the right label leads by m (Crammer, Singer).

    Differences of log-probabilities are those of the scores z themselves.
    """

    lead: float = 1.0  # m, in nats
    flat = of_batch = False

    def __call__(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """Return what each example lacks of its lead (B,)."""
        best, right = self._rivals(log_probs, labels)
        return (self.lead - right + best.values).clamp(min=0)

    def errors(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """Return onehot(best rival) - onehot(y) where the lead is short, else 0 (B, L)."""
        best, right = self._rivals(log_probs, labels)
        sides = functional.one_hot(best.indices, log_probs.shape[1]) - functional.one_hot(labels, log_probs.shape[1])
        return sides * (right - best.values < self.lead).unsqueeze(1).to(log_probs.dtype)

    def report(self, log_probs: Tensor, labels: Tensor) -> dict[str, float]:
        """Return its mean."""
        return {"margin": float(self(log_probs, labels).double().mean())}

    def _rivals(self, log_probs: Tensor, labels: Tensor) -> tuple[torch.return_types.max, Tensor]:
        right = log_probs.gather(1, labels.unsqueeze(1))
        return log_probs.scatter(1, labels.unsqueeze(1), -torch.inf).max(dim=1), right.squeeze(1)


@dataclass(frozen=True)
class Mistake:
    """1 for a wrong answer and 0 for a right one: its mean is 1 - accuracy."""

    flat = True
    of_batch = False

    def __call__(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """Return 0 or 1 for each example (B,)."""
        return (log_probs.argmax(dim=1) != labels).to(log_probs.dtype)

    def errors(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """Raise ValueError: it is flat."""
        raise ValueError("accuracy has no derivative")

    def report(self, log_probs: Tensor, labels: Tensor) -> None:
        """Nothing more."""


@dataclass(frozen=True)
class MissedF1:
    """1 - F1, the mean over the labels that are right or answered somewhere in the batch (macro F1).

    It is no mean over examples: each of them carries the value of the batch.
    """

    flat = of_batch = True

    def __call__(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """Return the batch's 1 - F1 for every example (B,)."""
        answers = functional.one_hot(log_probs.argmax(dim=1), log_probs.shape[1]).double()
        truth = functional.one_hot(labels, log_probs.shape[1]).double()
        seen = answers.sum(0) + truth.sum(0)  # F1 of a label: 2 TP / (answered + true)
        f1 = 2 * (answers * truth).sum(0)[seen > 0] / seen[seen > 0]
        return (1 - f1.mean()).to(log_probs.dtype).expand(len(labels)).clone()

    def errors(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """Raise ValueError: it is flat."""
        raise ValueError("F1 has no derivative")

    def report(self, log_probs: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the F1."""
        return {"f1": 1 - float(self(log_probs.double(), labels)[0])}
