"""What the pushes teach of: how label scores answer, or how the features answer that a known head turns into scores.

Where the head after the features h is a fixed known function, only the way from the layers to h has to be learned;
the head's own derivative is taken exactly. A push on a layer that writes into the hidden state is nearly the same
push on h, so that learning starts close to the truth, and no rank is lost where there are few labels.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from zocore.step.losses import Ask, features_of, scores_of

Onto = Literal["features", "scores"]


class Head(Protocol):
    """A fixed function from the features of an example to the scores of its labels, with its derivative."""

    def log_probs(self, features: Tensor) -> Tensor:
        """Return the log-probabilities of the labels (B, L) from features (B, D)."""

    def pull_back(self, features: Tensor, errors: Tensor) -> Tensor:
        """Return the gradient of the losses in the features (B, D) from that in the label scores (B, L)."""


class Readout(Protocol):
    """What a forward is asked for: A numbers for each example, from which the label scores follow."""

    @property
    def ask(self) -> Ask:
        """The question to a forward."""

    @property
    def mu(self) -> float:
        """How fast the Jacobian learns unless told otherwise."""

    @property
    def push_every(self) -> int:
        """Steps between pushes unless told otherwise."""

    @property
    def recorded(self) -> bool:
        """Whether the responses are few enough to be kept in a recording."""

    @property
    def aligned(self) -> bool:
        """Whether a push on a layer as wide as the answers is, to first order, a push on the answers."""

    def log_probs(self, answers: Tensor) -> Tensor:
        """Return the log-probabilities of the labels (B, L) from answers (B, A)."""

    def pull_back(self, answers: Tensor, errors: Tensor) -> Tensor:
        """Return the gradient of the losses in the answers (B, A) from that in the label scores (B, L)."""

    def relevant(self, answers: Tensor) -> Tensor:
        """Return answers (B, A), or differences of them, less what cannot matter."""


@dataclass(frozen=True)
class Scores:
    """The answers are the label scores themselves; as only their differences matter, they are centred."""

    ask = staticmethod(scores_of)
    mu = 0.5
    push_every = 1
    recorded = True
    aligned = False

    def log_probs(self, answers: Tensor) -> Tensor:
        """Return the answers, which are log-probabilities."""
        return answers

    def pull_back(self, answers: Tensor, errors: Tensor) -> Tensor:
        """Return the errors as they are."""
        return errors

    def relevant(self, answers: Tensor) -> Tensor:
        """Return the answers less their mean over the labels: what the softmax adds to all of them cancels."""
        return answers - answers.mean(1, keepdim=True)


@dataclass(frozen=True)
class Features:
    """The answers are the features that a known head reads."""

    head: Head
    ask = staticmethod(features_of)
    mu = 1.0
    push_every = 8
    recorded = False  # D numbers an example and push: hundreds or thousands
    aligned = True

    def log_probs(self, answers: Tensor) -> Tensor:
        """As the head makes them."""
        return self.head.log_probs(answers)

    def pull_back(self, answers: Tensor, errors: Tensor) -> Tensor:
        """As the head carries them back."""
        return self.head.pull_back(answers, errors)

    def relevant(self, answers: Tensor) -> Tensor:
        """All of it matters."""
        return answers
