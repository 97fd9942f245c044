"""What a run can minimise, one row each; the loop and the step know none of them by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from zocore.step.criterion import Criterion, CrossEntropy, Margin, MissedF1, Mistake
from zocore.step.step import Stepper


@dataclass(frozen=True)
class Row:
    """An objective as people choose it: a criterion of label scores, or a class of its own that reads text."""

    title: str
    summary: str
    lowered: str  # what its value is, in a few words
    criterion: Criterion | None = None
    wider: float = 1.0  # how much farther out its probes are: nearer, most of them would measure no difference
    text: str = ""  # module and class in zocore.models.objectives, where there are no labels
    judge: str = ""  # the setting that says what judges the text
    writes: bool = False  # whether a value takes many forwards: one for each token of a completion

    @property
    def flat(self) -> bool:
        """Whether it is constant almost everywhere, so that it has no gradient to follow."""
        return self.writes if self.criterion is None else self.criterion.flat

    @property
    def of_batch(self) -> bool:
        """Whether its value belongs to a whole batch."""
        return self.criterion is not None and self.criterion.of_batch

    def text_class(self) -> Any:
        """Return the class that reads text."""
        module, name = self.text.split(".")
        return getattr(import_module(f"zocore.models.objectives.{module}"), name)


OBJECTIVES: Mapping[str, Row] = {
    "loss": Row("Loss", "cross entropy of the right label", "training loss", CrossEntropy()),
    "margin": Row(
        "Margin", "by how much the right label's score fails to lead the others by 1", "margin missed", Margin()
    ),
    "accuracy": Row("Accuracy", "share of wrong answers", "share of wrong answers", Mistake(), wider=10.0),
    "f1": Row("F1", "1 - macro F1 of the batch", "1 - F1", MissedF1(), wider=10.0),
    "lm": Row(
        "Language modelling",
        "cross entropy of the next token, in texts or in the answers to prompts and chats",
        "loss per token",
        text="next_tokens.NextTokens",
        judge="metric",
    ),
    "reward": Row(
        "Reward of what it writes",
        "minus the --reward of what the model writes after a prompt",
        "minus the reward",
        wider=10.0,
        text="rewards.Rewarded",
        judge="reward",
        writes=True,
    ),
}


def refuse_mismatch(name: str, method: Stepper, batch_size: int, micro_batch: int | None, processes: int) -> None:
    """Raise ValueError, saying what to use instead, when a method cannot follow the objective."""
    row, both = OBJECTIVES[name], f"{method.name} and --objective {name} do not go together: "
    if row.flat and not method.zeroth_order:
        raise ValueError(
            f"{both}{name} is flat almost everywhere, so its gradient is zero and backprop learns nothing; take a "
            "method that moves weights from forward passes alone, such as --method fzoo"
        )
    if method.reads_errors and (row.flat or row.criterion is None):
        other = ", or --objective margin, which has one" if row.criterion else ""
        raise ValueError(
            f"{both}it carries the error of each label score back, and {name} has none; take --method fzoo{other}"
        )
    if method.pushes and row.writes:
        raise ValueError(
            f"{both}it pushes the outputs of one forward, and a completion takes one for each token; take --method fzoo"
        )
    if row.of_batch and (method.per_example or method.pushes):
        raise ValueError(
            f"{both}it asks for a value of each example, and {name} has one for the whole batch; take --method fzoo, "
            "or --objective accuracy"
        )
    if row.of_batch and (processes > 1 or (micro_batch or batch_size) < batch_size):
        raise ValueError(
            f"--objective {name} and micro-batches or several processes do not go together: {name} is of a whole "
            "batch; leave --micro-batch out and take one process, or --objective accuracy"
        )
