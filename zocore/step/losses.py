"""What a zeroth-order method can see: per-example losses of one batch, here or displaced along a direction.

It counts two things. `forward_passes` are calls of the model on the batch, as the papers count them;
`forward_cost` is the same in plain forwards' worth of arithmetic, where a per-example call costs about 2 and one
that begins after a frozen prefix the later blocks' share (`models/prefix.py`).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zocore.carriers.carrier import Carrier, MoveTo
from zocore.carriers.layout import Layout
from zocore.carriers.outputs import Outputs, Seen, joined
from zocore.directions.laws import SharedDirection
from zocore.directions.per_example import PerExample, Touched
from zocore.directions.pushes import Pushes
from zocore.parallel.ranks import Ranks
from zocore.step.criterion import Criterion, CrossEntropy
from zocore.weights.leaf import Leaf, ParameterSite

AnyDirection = SharedDirection | PerExample | Pushes
Trace = Touched | Seen  # what forwards leave behind that an update needs


@dataclass(frozen=True)
class Part:
    """One micro-batch: which rows belong to which example, and a forward that returns its losses (b,).

    Where labels are scored, `scores` is the same forward and returns their log-probabilities (b, L), of which
    `labels` (b,) are the right ones; `features` returns what a known head makes them from (b, D).
    """

    layout: Layout
    evaluate: Callable[[], Tensor]
    scores: Callable[[], Tensor] | None = None
    labels: Tensor | None = None
    features: Callable[[], Tensor] | None = None


Ask = Callable[[Part], Tensor]  # what a forward is asked for


@dataclass
class Losses:
    """Per-example losses (B,) of one batch, float32 or float64, in the order of the whole batch's examples.

    Where several processes share the batch, `parts` are this one's, `counts` the examples of each.
    Raises TypeError when a forward returns anything but one loss per example.
    """

    parts: Sequence[Part]
    leaves: Sequence[Leaf]
    shared: Carrier[SharedDirection]  # for directions the whole batch shares
    per_example: Carrier[PerExample] | None = None
    outputs: Outputs | None = None  # for pushes on activities
    spared: float = 0.0  # share of a plain forward that no call does, since a frozen prefix stands in for it
    begin: Callable[[], float] | None = None  # makes that prefix ready before the first call; returns its cost
    ranks: Ranks = field(default_factory=Ranks)
    counts: Sequence[int] = ()
    all_labels: Tensor | None = None  # of the whole batch, where several processes share it
    criterion: Criterion = CrossEntropy()  # what the parts' losses make of label scores, where there are any
    forward_passes: int = 0
    forward_cost: float = 0.0
    gradient_cost: float = 3.0  # of a forward and a backward: less where little moves
    seconds: float = 0.0  # inside the model
    _evaluated: dict[tuple[AnyDirection, float, Ask], Tensor] = field(default_factory=dict)
    _clean: tuple[Ask, Tensor, Seen] | None = None
    _begun: bool = False

    @property
    def count(self) -> int:
        """B, the examples of the whole batch."""
        return sum(self.counts) or sum(len(part.layout.members) for part in self.parts)

    @property
    def positions(self) -> int:
        """Tokens, padding included, of the largest micro-batch: what a step's memory grows with."""
        return max(part.layout.positions for part in self.parts)

    def __call__(self) -> Tensor:
        """Return the losses (B,) at the weights as they stand."""
        return self._forward(1.0) if self.outputs is None else self.clean(losses_of)[0]

    def clean(self, ask: Ask) -> tuple[Tensor, Seen]:
        """Return what a forward at the weights as they stand answers, and what the pushed layers read in it.

        Called twice, it runs once. Raises ValueError when nothing is pushed in this run.
        """
        if self.outputs is None:
            raise ValueError("a forward that keeps the inputs of layers needs pushes on activities")
        if self._clean is None or self._clean[0] is not ask:
            self._begin()  # before the layers are watched: the prefix is a forward of its own
            seen: list[Seen] = []
            with self.outputs.watching() as look:
                answers = self._forward(1.0, ask, lambda: seen.append(look()))
            self._clean = (ask, answers, self._heard(joined(seen)))
        return self._clean[1:]

    @property
    def labels(self) -> Tensor:
        """The right label of each example (B,)."""
        if self.all_labels is not None:
            return self.all_labels
        return torch.cat([part.labels for part in self.parts if part.labels is not None])

    @contextmanager
    def along(self, direction: AnyDirection, ask: Ask | None = None) -> Iterator[Callable[[float], Tensor]]:
        """Yield `at(offset)`, the losses (B,) at theta + offset * z; a point evaluated twice is run once.

        `ask` may ask the forward for something else, such as the scores of the labels (B, L).
        """
        ask = ask or losses_of
        displaced, cost = self._carried(direction)
        with displaced as move_to:

            def at(offset: float) -> Tensor:
                if (direction, offset, ask) not in self._evaluated:
                    move_to(offset)
                    self._evaluated[direction, offset, ask] = self._forward(cost, ask)
                return self._evaluated[direction, offset, ask]

            yield at

    def forget(self) -> None:
        """Drop remembered points, so that each is a forward pass again."""
        self._evaluated.clear()
        self._clean = None

    @property
    def touched(self) -> Touched:
        """Table rows each example looked up in the last per-example forwards, by leaf id."""
        if self.per_example is None:
            return {}
        recorded = getattr(self.per_example, "touched", {})
        own = {str(leaf): [rows[example].tolist() for example in sorted(rows)] for leaf, rows in recorded.items()}
        of_ranks = self.ranks.told(own)
        return {leaf: [_rows(rows) for each in of_ranks for rows in each[str(leaf)]] for leaf in recorded}

    def trace(self, directions: Sequence[AnyDirection]) -> Trace:
        """Return what an update along the directions needs besides them: for pushes, a clean forward's inputs."""
        return self.clean(losses_of)[1] if isinstance(directions[0], Pushes) else self.touched

    def gradient(self) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the losses (B,) and the true gradient of their mean by backprop, for each leaf id.

        Raises ValueError when a leaf is not an ordinary floating-point parameter.
        """
        if self.ranks.count > 1:
            raise ValueError("backprop and several processes do not go together here: gradients are not exchanged")
        parameters = [_parameter(leaf) for leaf in self.leaves]
        self._begin()
        started = self._now()
        was = [parameter.requires_grad for parameter in parameters]
        try:
            for parameter in parameters:
                parameter.requires_grad_(True)
            with torch.enable_grad():
                losses = torch.cat([part.evaluate() for part in self.parts])
                if not losses.requires_grad:
                    raise ValueError("what this run lowers is flat: it has no gradient to follow or to compare with")
                tensors = torch.autograd.grad(losses.mean(), parameters, allow_unused=True)
        finally:
            for parameter, flag in zip(parameters, was, strict=True):
                parameter.requires_grad_(flag)
        self.forward_passes += 1
        self.forward_cost += self.gradient_cost
        self.seconds += self._now() - started
        gradients = {
            leaf.id: torch.zeros_like(leaf.tensor) if g is None else g.detach()
            for leaf, g in zip(self.leaves, tensors, strict=True)
        }
        return losses.detach(), gradients

    def _carried(self, direction: AnyDirection) -> tuple[AbstractContextManager[MoveTo], float]:
        """The direction in the hands of its carrier, and what a displaced forward costs there."""
        if isinstance(direction, Pushes):
            if self.outputs is None:
                raise ValueError("pushes on activities and this run do not go together: it has no carrier for them")
            return self.outputs.along(direction), self.outputs.cost(direction)
        if not isinstance(direction, PerExample):
            return self.shared.along(direction), self.shared.cost(direction)
        if self.per_example is None:
            raise ValueError("per-example directions and this model do not go together: it has no per-example carrier")
        return self.per_example.along(direction), self.per_example.cost(direction)

    def _now(self) -> float:
        """Seconds of the clock, when all that was asked of the device so far is done."""
        if self.leaves and self.leaves[0].tensor.is_cuda:
            torch.cuda.synchronize(self.leaves[0].tensor.device)
        return time.perf_counter()

    def _begin(self) -> None:
        if self.begin is not None and not self._begun:
            started = self._now()
            self.forward_cost += self.begin()
            self.seconds += self._now() - started
            self._begun = True

    def _forward(self, cost: float, ask: Ask | None = None, after: Callable[[], None] = lambda: None) -> Tensor:
        ask = ask or losses_of
        self._begin()
        started, results = self._now(), []
        for part in self.parts:
            for carrier in (self.shared, self.per_example, self.outputs):
                if carrier is not None:
                    carrier.layout = part.layout
            # inside the call, not around the step: grad mode is per thread, and callers may yield between steps
            with torch.no_grad():
                results.append(ask(part))
            after()
        self.forward_passes += 1
        self.forward_cost += cost - self.spared
        own = torch.cat(results)
        self.seconds += self._now() - started
        return self._of_all(own)

    def _of_all(self, own: Tensor) -> Tensor:
        """What all processes' examples answered, in their order; a stop travels with one number an example."""
        if own.ndim == 1 or self.ranks.count == 1:
            return self.ranks.losses(own, self.counts)
        self.ranks.losses(own.new_zeros(len(own)), self.counts)
        return self.ranks.rows(own, self.counts)

    def _heard(self, seen: Seen) -> Seen:
        """What the pushed layers read in the examples of all processes."""
        if self.ranks.count == 1:
            return seen
        own = self.counts[self.ranks.rank]
        all_rows = lambda one: self.ranks.rows(one, [count * (len(one) // own) for count in self.counts])  # noqa: E731
        inputs, counted = ({site: all_rows(one) for site, one in of.items()} for of in (seen.inputs, seen.counted))
        return Seen(seen.sites, inputs, counted, all_rows(seen.numbers), all_rows(seen.examples))


def _rows(numbers: list[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def losses_of(part: Part) -> Tensor:
    """Ask for the losses (b,). Raises TypeError when the forward returns anything but one loss per example."""
    return _checked(part.evaluate(), part.layout)


def scores_of(part: Part) -> Tensor:
    """Ask for the log-probabilities of the labels (b, L). Raises ValueError where there are no labels to score."""
    if part.scores is None:
        raise ValueError("this objective gives losses alone, and learned feedback needs a score for each label")
    return part.scores()


def features_of(part: Part) -> Tensor:
    """Ask for the features before the head (b, D). Raises ValueError where the head is not known."""
    if part.features is None:
        raise ValueError("this objective gives no features, and learned feedback onto features needs them")
    return part.features()


def _checked(losses: Tensor, layout: Layout) -> Tensor:
    expected = len(layout.members)
    if losses.shape != (expected,) or losses.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"a forward must return one float32 loss per example, shape ({expected},), "
            f"not {losses.dtype} of shape {tuple(losses.shape)}"
        )
    return losses


def _parameter(leaf: Leaf) -> torch.nn.Parameter:
    site = leaf.sites[0]
    if not isinstance(site, ParameterSite) or site.parameter.data_ptr() != leaf.tensor.data_ptr():
        raise ValueError(f"backprop and {leaf.name} do not go together: it is not an ordinary parameter")
    return site.parameter
