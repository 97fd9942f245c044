"""How well a model does on examples it was not trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zocore.data.tasks import Example
from zocore.models.objectives.base import Objective
from zocore.models.objectives.batch import Batch


@dataclass(frozen=True)
class Evaluation:
    """How a model does on some examples, in the order they were given; stopped early, on those it reached."""

    loss: float  # mean cross entropy in nats
    accuracy: float  # share of right answers
    predictions: tuple[int, ...]  # number of the likeliest label, -1 where a stop came first
    forward_passes: int

    @property
    def count(self) -> int:
        """How many examples were reached."""
        return sum(prediction >= 0 for prediction in self.predictions)


def evaluate(
    objective: Objective,
    examples: Sequence[Example],
    batch_size: int = 32,
    stop: Callable[[], bool] | None = None,
    log_probs: Callable[[Batch], Tensor] | None = None,
) -> Evaluation:
    """Return loss and accuracy, without gradients; `stop` is asked before each forward.

    `log_probs` may stand in for the objective's own, to give the same in less time.

    Rows of like length go together, which saves padding. Raises ValueError when there are no examples.
    """
    if not examples:
        raise ValueError("there are no examples to evaluate on")
    order = sorted(range(len(examples)), key=lambda number: objective.length(examples[number]))
    losses = torch.full((len(examples),), torch.nan, dtype=torch.float64)
    predictions = torch.full((len(examples),), -1)
    forwards = 0
    for first in range(0, len(order), batch_size):
        if stop is not None and stop():
            break
        numbers = order[first : first + batch_size]
        batch = objective.batch([examples[number] for number in numbers])
        with torch.no_grad():
            found = (log_probs or objective.log_probs)(batch)
        forwards += 1
        losses[numbers] = -found.gather(1, batch.labels.unsqueeze(1)).squeeze(1).double().cpu()
        predictions[numbers] = found.argmax(dim=1).cpu()
    return _summed(examples, losses, predictions.tolist(), forwards)


def _summed(examples: Sequence[Example], losses: torch.Tensor, predictions: list[int], forwards: int) -> Evaluation:
    reached = [number for number, prediction in enumerate(predictions) if prediction >= 0]
    right = sum(predictions[number] == examples[number].label for number in reached)
    loss = float(losses[reached].mean()) if reached else float("nan")
    accuracy = right / len(reached) if reached else float("nan")
    return Evaluation(loss, accuracy, tuple(predictions), forwards)
