"""What the frozen prefix gives, run once per batch, and kept over the run for each training example.

Kept are the hidden states of an example's real tokens, as they come (float32 stays float32), in the machine's own
memory. If those of the whole training set do not fit the cap, none are kept, and each step runs the prefix once on
its batch. Nothing is written to disk.

What is promised:

- Within a step every pass sees the same bits that a whole forward of that batch would have made.
- In the first pass over the data a value is made in the example's own batch, so a run that draws no example twice is
  bitwise what it is without a frozen prefix, and so is any run whose values are not kept.
- From the second pass on, an example's value is the one from its batch in the first pass, its home. A matrix product
  is blocked by its shape, so this may differ in the last bits from what the later batch would make; but it follows
  from the settings alone. A resumed run that meets an example whose value it has not seen makes its home batch again,
  and so comes to the same bits as the run that was never cut off.

Evaluations read the same batches each time: the outputs of these are kept whole, in the room that the training set
leaves, and change no bit.

The cost of a prefix is counted once per new example: in the first pass if values are kept, else in every step. What a
resumed run makes again is not counted, like the replay of its weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from zocore.data.tasks import Example
from zocore.models.objectives.base import Objective
from zocore.models.objectives.batch import Batch
from zocore.models.prefix import Once, Prefix


@dataclass
class KeptPrefix:
    """The prefix outputs of one run's training examples."""

    prefix: Prefix
    objective: Objective
    train: Sequence[Example]
    numbers: Callable[[int], list[int]]  # step -> the training examples of its batch
    parts: Callable[[int], list[Batch]]  # step -> its micro-batches
    batch_size: int
    micro: int
    cap: int  # bytes
    again: bool  # whether the run draws any example twice
    _held: dict[int, Tensor] = field(default_factory=dict)  # example -> (tokens, width), on the CPU
    _evaluated: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)  # inputs -> (rows, tokens, width), likewise
    _train_bytes: int = 0
    _evaluated_bytes: int = 0

    def once(self, step: int, parts: Sequence[Batch]) -> Once:
        """Return the prefix of a step's micro-batches, to be run or fetched when it is first needed."""
        keeps = self.again and self.fits
        new = sum(place < len(self.train) for place in self._places(step)) if keeps else self.batch_size
        find = (lambda: self._outputs(step, parts)) if keeps else (lambda: [self.run(part) for part in parts])
        return Once(self.prefix, find, self.prefix.share * new / self.batch_size)

    def asked(self, batch: Batch, ask: Callable[[Batch], Tensor]) -> Tensor:
        """Return what the model answers to an evaluation's batch, whose prefix is kept where there is room."""
        key = tuple((name, tuple(t.shape), t.cpu().numpy().tobytes()) for name, t in batch.inputs.items())
        output = self._evaluated.get(key)
        if output is None:
            output = self.run(batch)
            if isinstance(output, Tensor) and self._evaluated_bytes + output.nbytes <= self.cap - self._planned:
                self._evaluated[key] = output.cpu()
                self._evaluated_bytes += output.nbytes
        with self.prefix.standing_in(output.to(batch.labels.device) if isinstance(output, Tensor) else output):
            return ask(batch)

    def run(self, part: Batch) -> Any:
        """Return the prefix's output of a micro-batch."""
        return self.prefix.output(lambda: self.objective.losses(part))

    @property
    def bytes(self) -> int:
        """What all kept values take now."""
        return self._train_bytes + self._evaluated_bytes

    @property
    def fits(self) -> bool:
        """Whether the values of the whole training set stay within the cap."""
        return self._needed is not None

    @property
    def _planned(self) -> int:
        """Bytes set aside for the training set."""
        return (self._needed or 0) if self.again else 0

    @cached_property
    def _needed(self) -> int | None:
        """Bytes of the values of the whole training set; None when they are more than the cap."""
        part = self.objective.batch(self.train[:1])
        hidden, mask = self.run(part), part.layout.mask
        if mask is None or not isinstance(hidden, Tensor) or hidden.shape[:-1] != mask.shape:
            return None  # not one hidden state per token: nothing that could be kept without its padding
        token, needed = hidden.shape[-1] * hidden.itemsize, 0
        for example in self.train:
            needed += self.objective.size(example) * token
            if needed > self.cap:
                return None
        return needed

    def new_batches(self, steps: int) -> float:
        """Return how many batches' worth of examples `steps` steps run the prefix on."""
        drawn = steps * self.batch_size
        return min(drawn, len(self.train)) / self.batch_size if drawn > len(self.train) and self.fits else steps

    def _outputs(self, step: int, parts: Sequence[Batch]) -> list[Tensor]:
        return [self._output(step, number, part) for number, part in enumerate(parts)]

    def _output(self, step: int, number: int, part: Batch) -> Tensor:
        home = [place < len(self.train) for place in self._places(step, number, len(part))]
        if any(home):
            hidden = self._visit(step, number, part)
            if all(home):
                return hidden
        first = number * self.micro
        wanted = self.numbers(step)[first : first + len(part)]
        for example in wanted:
            if example not in self._held:
                self._go_home(example)
        return joined([self._held[example] for example in wanted], part)

    def _visit(self, step: int, number: int, part: Batch) -> Tensor:
        """Run the prefix on a micro-batch and keep the values of those examples that are at home there."""
        hidden: Tensor = self.run(part)
        first = number * self.micro
        examples = self.numbers(step)[first : first + len(part)]
        places = self._places(step, number, len(part))
        for place, example, value in zip(places, examples, taken_apart(hidden, part), strict=True):
            if place < len(self.train):
                self._train_bytes += value.nbytes if example not in self._held else 0
                self._held[example] = value
        return hidden

    def _go_home(self, example: int) -> None:
        step, offset = divmod(self._home[example], self.batch_size)
        number = offset // self.micro
        self._visit(step + 1, number, self.parts(step + 1)[number])

    def _places(self, step: int, number: int = 0, count: int | None = None) -> range:
        """The places of a batch, or of one of its micro-batches, in the order in which the run draws examples."""
        first = (step - 1) * self.batch_size + number * self.micro
        return range(first, first + (self.batch_size if count is None else count))

    @cached_property
    def _home(self) -> dict[int, int]:
        """The place of each example in the first pass over the data."""
        steps = -(-len(self.train) // self.batch_size)
        order = [example for step in range(1, steps + 1) for example in self.numbers(step)]
        return {example: place for place, example in enumerate(order[: len(self.train)])}


def taken_apart(hidden: Tensor, part: Batch) -> list[Tensor]:
    """Return each example's real tokens of hidden states (rows, tokens, d), as (tokens, d) on the CPU."""
    mask = _mask(part)
    counts = mask.view(len(part), -1).sum(dim=1).tolist()
    return list(hidden[mask].cpu().split(counts))


def joined(values: Sequence[Tensor], part: Batch) -> Tensor:
    """Return the hidden states (rows, tokens, d) of a micro-batch from its examples' own; zeros on padding."""
    mask = _mask(part)
    hidden = torch.zeros(*mask.shape, values[0].shape[1], dtype=values[0].dtype, device=mask.device)
    hidden[mask] = torch.cat(list(values)).to(mask.device)
    return hidden


def _mask(part: Batch) -> Tensor:
    assert part.layout.mask is not None
    return part.layout.mask
