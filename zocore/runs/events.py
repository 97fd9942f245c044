"""What a run reports while it runs: frozen records of plain numbers, to and from JSON.

The command line, the app and the notebooks all read this one stream, live or from a file; none of them sees a
tensor. A recording of it is also the checkpoint (`recording.py`).
"""

import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from zocore.runs.typed import check_record, parsed

Json = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    kinds: ClassVar[dict[str, type["Event"]]] = {}

    def __init_subclass__(cls) -> None:
        Event.kinds[cls.__name__] = cls

    def to_json(self) -> str:
        """Return the event as one line of JSON; floats survive bit for bit, non-finite ones as NaN or Infinity.

        Fields at their default are left out: a line carries what its run needs.
        """
        defaults = {field.name: field.default for field in fields(self)}
        record = {name: value for name, value in vars(self).items() if value != defaults[name]}
        return json.dumps({"event": type(self).__name__, **record}, separators=(",", ":"))

    @staticmethod
    def from_json(line: str | bytes) -> "Event":
        """Return the event of a line, sealed or not. Raises ValueError, saying why, when it is none of ours."""
        record = parsed(line)
        record.pop("seal", None)
        name = record.pop("event", "")
        kind = Event.kinds.get(name) if isinstance(name, str) else None
        if kind is None:
            raise ValueError("it names no known event")
        check_record(kind, record)
        return kind(**record)


@dataclass(frozen=True)
class RunStarted(Event):
    """The header: enough to rebuild the run's model, leaves and method."""

    config: Json  # RunConfig with every default filled in
    model: str
    kind: str  # causal, masked, classifier or encoder
    fingerprint: str  # of the base weights
    data_fingerprint: str  # of the task's prompt, label words and examples
    device: str
    dtype: str
    parameters: int
    trainable: int
    leaves: list[list[Any]]  # [id, name, shape] of each tensor that moves
    frozen: list[str]  # tensors of the subspace that the forward never reads
    labels: list[str]
    examples: dict[str, int]  # examples in train, dev and test
    passes_per_step: float  # forward passes of a step, on average over the run
    cost_per_step: float  # the same in plain forwards' worth of arithmetic
    memory_kind: str  # what memory_bytes counts: "allocator" or, on a CPU, "tensors"
    notes: list[str]  # what the user should know before reading on
    versions: dict[str, str]
    resumed_at: int = 0  # steps replayed before this start
    frozen_blocks: int = 0  # first blocks below everything that moves: run once a batch, or once an example
    blocks: int = 0  # of the whole model, told where some are frozen
    processes: int = 1  # that share each batch
    replay_passes: float = 0  # forward passes that rebuilding a step takes, on average; if any, with the training data
    rate_search: dict[str, Any] | None = None  # how --lr auto found the rate; its passes are counted in the steps'


@dataclass(frozen=True)
class StepDone(Event):
    """One step, and all that is needed to do it again: see recording.py."""

    step: int  # 1 for the first
    loss: float  # mean of the losses evaluated in this step
    loss_plus: list[float]
    loss_minus: list[float]
    projected_grads: list[float]  # measured, one per direction or example
    coefficients: list[float]  # after shaping; empty when the step was skipped
    directions: list[Any]  # see recording.py
    lr: float
    eps: float
    forward_passes: int  # so far, with those of the choosing
    forward_cost: float
    seconds: float  # of training so far, evaluation and measuring apart
    steps_per_second: float
    memory_bytes: int
    skipped: bool = False
    touched: dict[str, list[list[int]]] | None = None  # leaf id -> table rows each example looked up
    responses: dict[str, Any] | None = None  # how the label scores answered each push: see recording.py
    unexplained: float | None = None  # share of the responses, in what is learned, that feedback did not foresee
    wire_bytes: int = 0  # received by the first process from the others so far
    forward_seconds: float = 0.0  # of the seconds so far, those inside the model; the others are noise and updates
    moved: float = 1.0  # share of the examples' values that differed between the two points of a probe


@dataclass(frozen=True)
class EvalDone(Event):
    """Held-out examples at one point of the run."""

    step: int
    split: str  # "dev" while training, "test" before and after
    loss: float
    accuracy: float  # share of right answers; NaN where nothing is right or wrong
    examples: int
    seconds: float
    scores: dict[str, float] | None = None  # what else the run's objective is judged by, by name


@dataclass(frozen=True)
class SampleShown(Event):
    """The model's answers on a few sentences."""

    step: int
    texts: list[str]
    labels: list[str]  # true label, empty when unknown
    probabilities: list[list[float]]  # one per label of the task


@dataclass(frozen=True)
class CompletionsShown(Event):
    """What the model writes after a few prompts."""

    step: int
    prompts: list[str]
    completions: list[str]
    wanted: list[str]  # the right answers, where the data has any
    scores: list[float]  # of the completions, where they are scored


@dataclass(frozen=True)
class EstimatorMeasured(Event):
    """The estimate itself, over fresh directions at fixed weights and batch; its forwards are counted apart."""

    step: int
    estimates: int
    variance: float  # trace of the covariance of g
    norm: float  # root mean square length of g
    cosine: float | None  # root mean square cosine to the true gradient, where backprop fits
    norm_ratio: float | None  # norm over the true gradient's
    forward_passes: int


@dataclass(frozen=True)
class SnapshotKept(Event):
    """The weights after a step were written to disk."""

    step: int
    sha256: str  # of the file


@dataclass(frozen=True)
class Warned(Event):
    """Something a person should look at, with what to do."""

    step: int
    message: str


@dataclass(frozen=True)
class RunEnded(Event):
    """The end: finished, stopped or failed, and why."""

    status: str
    reason: str
    steps: int
    forward_passes: int
    forward_cost: float
    seconds: float
    steps_per_second: float
    peak_memory_bytes: int
    skipped: int
    weights_fingerprint: str = ""  # SHA-256 of the tensors that moved, as the run left them
