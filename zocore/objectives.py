"""What a run can minimise, one row each; the loop and the step know none of them by name."""

from collections.abc import Mapping
from dataclasses import dataclass

from zocore.step.criterion import Criterion, CrossEntropy, Margin, MissedF1, Mistake
from zocore.step.step import Stepper


@dataclass(frozen=True)
class Row:
    """An objective as people choose it."""

    summary: str
    criterion: Criterion  # of the label scores
    wider: float = 1.0  # how much farther out its probes are: nearer, most of them would measure no difference


OBJECTIVES: Mapping[str, Row] = {
    "loss": Row("cross entropy of the right label", CrossEntropy()),
    "margin": Row("by how much the right label's score fails to lead the others by 1", Margin()),
    "accuracy": Row("share of wrong answers", Mistake(), wider=10.0),
    "f1": Row("1 - macro F1 of the batch", MissedF1(), wider=10.0),
}


def refuse_mismatch(name: str, method: Stepper, batch_size: int, micro_batch: int | None, processes: int) -> None:
    """Raise ValueError, saying what to use instead, when a method cannot follow the objective."""
    criterion = OBJECTIVES[name].criterion
    if criterion.flat and not method.zeroth_order:
        raise ValueError(
            f"{method.name} and --objective {name} do not go together: {name} is flat almost everywhere, so its "
            "gradient is zero and backprop learns nothing; take a method that moves weights from forward passes "
            "alone, such as --method fzoo"
        )
    if criterion.flat and method.reads_errors:
        raise ValueError(
            f"{method.name} and --objective {name} do not go together: it carries the error of each label score "
            f"back, and {name} has none; take --method fzoo, or --objective margin, which has one"
        )
    if criterion.of_batch and (method.per_example or method.pushes):
        raise ValueError(
            f"{method.name} and --objective {name} do not go together: it asks for a value of each example, and "
            f"{name} has one for the whole batch; take --method fzoo, or --objective accuracy"
        )
    if criterion.of_batch and (processes > 1 or (micro_batch or batch_size) < batch_size):
        raise ValueError(
            f"--objective {name} and micro-batches or several processes do not go together: {name} is of a whole "
            "batch; leave --micro-batch out and take one process, or --objective accuracy"
        )
