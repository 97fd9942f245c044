"""What the forwards of one step of learned feedback teach."""

from dataclasses import dataclass

from torch import Tensor

from zocore.carriers.outputs import Seen
from zocore.directions.pushes import Pushes
from zocore.step.criterion import Criterion, CrossEntropy
from zocore.step.jacobian import Jacobian
from zocore.step.readout import Readout
from zocore.step.update import State


@dataclass(frozen=True)
class Lesson:
    """Pushes, the responses to them, and the clean pass; K is 0 in a step that pushes nothing."""

    pushes: tuple[Pushes, ...]
    responses: Tensor  # dh (K, B, A)
    answers: Tensor  # h (B, A), clean
    labels: Tensor  # (B,)
    readout: Readout
    seen: Seen  # what the sites read, clean
    criterion: Criterion = CrossEntropy()

    @property
    def mistakes(self) -> Tensor:
        """p - onehot(y) (B, L) for the cross entropy: the gradient of each example's loss in its label scores."""
        return self.criterion.errors(self.readout.log_probs(self.answers).float(), self.labels)

    @property
    def errors(self) -> Tensor:
        """u (B, A): the gradient of each example's loss in its answers."""
        return self.readout.pull_back(self.answers, self.mistakes.to(self.answers.dtype)).float()

    def jacobian(self, state: State) -> Jacobian:
        """Return what has been learned so far, for this batch."""
        return Jacobian(self.seen, self.answers.shape[0], self.answers.shape[1], state, self.readout)
