"""Which class reads what a run lowers off a model."""

from pathlib import Path

from zocore.data.tasks import Task
from zocore.errors import InputError
from zocore.models.kinds import KINDS
from zocore.models.load import LoadedModel
from zocore.models.objectives.candidates import CandidateChoice
from zocore.models.objectives.labels import LabelObjective
from zocore.models.objectives.tokens import MAX_TOKENS
from zocore.step.criterion import Criterion, CrossEntropy


def objective_for(
    loaded: LoadedModel, task: Task, max_tokens: int = MAX_TOKENS, criterion: Criterion = CrossEntropy()
) -> LabelObjective:
    """Return the objective for a model's kind. Raises InputError when the task does not fit the model."""
    if task.candidates and loaded.kind != "causal":
        raise InputError(
            f"{task.name} scores candidates of each example as continuations, and a {loaded.kind} model continues "
            "nothing: take a decoder"
        )
    more = {"folder": Path(loaded.path)} if loaded.kind == "encoder" else {}
    make = CandidateChoice if task.candidates else KINDS[loaded.kind].objective_class()
    objective: LabelObjective = make(loaded.model, loaded.tokenizer, task, max_tokens, **more)
    objective.criterion = criterion
    return objective
