"""A run's parts, and what follows from them: batches, rates, losses, costs."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial

import torch
from torch import Tensor

from zocore.carriers.carrier import Carrier
from zocore.carriers.flipout import Flipout, backprop_cost
from zocore.carriers.outputs import Outputs
from zocore.config import RunConfig
from zocore.data.tasks import Example, Task
from zocore.directions.laws import SharedDirection
from zocore.directions.per_example import PerExample
from zocore.models.load import LoadedModel
from zocore.models.objectives.base import Objective
from zocore.models.objectives.batch import Batch
from zocore.models.prefix import Once, Prefix
from zocore.noise.addressed import Key, permutation
from zocore.objectives import OBJECTIVES
from zocore.parallel.ranks import Ranks, checksum
from zocore.runs.kept_prefix import KeptPrefix
from zocore.step.losses import Losses, Part
from zocore.step.step import Backprop, Method, Stepper
from zocore.step.update import State
from zocore.weights.leaf import Leaf

CHECKED_EVERY = 100  # steps between comparisons of the weights where several processes share a run
MANY_ROWS = 16  # rows of one example that are worth a word


@dataclass
class Session:
    """One run's model and everything that acts on it. The session owns its model: nothing else may use it."""

    config: RunConfig  # every default filled in
    task: Task
    loaded: LoadedModel
    objective: Objective
    leaves: Sequence[Leaf]
    frozen: Sequence[str]  # names left out because the forward never reads them
    method: Stepper
    carrier: Carrier[SharedDirection]
    flipout: Flipout | None
    outputs: Outputs | None = None
    prefix: Prefix | None = None  # the blocks that no leaf reaches
    state: State = field(default_factory=dict)
    ranks: Ranks = field(default_factory=Ranks)  # the processes that share the run's batches

    def key(self, step: int) -> Key:
        """The address of the step's noise."""
        return Key(self.config.seed, step)

    def lr(self, step: int) -> float:
        """The learning rate of step 1, 2, ...: constant, or falling linearly to zero after the last."""
        assert self.config.lr is not None
        left = 1 - (step - 1) / self.config.steps
        return self.config.lr * (left if self.config.schedule == "linear" else 1.0)

    def numbers(self, step: int) -> list[int]:
        """The training examples of a step's batch: consecutive places of one shuffled order per pass over the data."""
        count, size, seed = len(self.task.train), self.config.batch_size, self.config.seed
        return [_shuffled(count, seed, i // count)[i % count] for i in range((step - 1) * size, step * size)]

    def examples(self, step: int) -> list[Example]:
        """The batch of a step."""
        return [self.task.train[number] for number in self.numbers(step)]

    def parts(self, step: int) -> list[Batch]:
        """The batch of a step as micro-batches."""
        return self.objective.batch(self.examples(step), self.key(step)).split(self._micro)

    def losses(self, step: int) -> Losses:
        """The losses of a step's batch, nothing evaluated yet."""
        parts = self.parts(step)
        if self.ranks.count > 1:
            return self._share(step, parts)
        return self._oracle(parts, self.kept.once(step, parts) if self.kept else None)

    def _share(self, step: int, parts: Sequence[Batch]) -> Losses:
        """The oracle of one of several processes: it asks about its micro-batches and hears of all."""
        if (step - 1) % CHECKED_EVERY == 0:
            self.ranks.agree(checksum([leaf.tensor for leaf in self.leaves]), step)
        shares = self.ranks.shares(parts)
        mine = shares[self.ranks.rank]
        own = self._oracle(mine, self._once(mine))
        counts, labels = [sum(map(len, share)) for share in shares], torch.cat([part.labels for part in parts])
        return replace(own, ranks=self.ranks, counts=counts, all_labels=labels)

    def losses_of(self, examples: Sequence[Example]) -> Losses:
        """The losses of a batch of these examples, nothing evaluated yet."""
        batch = self.objective.batch(examples)
        return self._oracle([batch], self._once([batch]))

    def _once(self, parts: Sequence[Batch]) -> Once | None:
        """The frozen prefix, run once for these micro-batches; None where nothing is frozen."""
        prefix = self.prefix
        if prefix is None:
            return None
        find = lambda: [prefix.output(partial(self.objective.losses, part)) for part in parts]  # noqa: E731
        return Once(prefix, find, prefix.share)

    def _oracle(self, parts: Sequence[Batch], once: Once | None) -> Losses:
        """Losses of micro-batches, whose calls begin after the frozen prefix if there is one."""

        def ask(what: Callable[[Batch], Tensor], number: int) -> Tensor:
            with once.within(number) if once else nullcontext():
                return what(parts[number])

        def micro(number: int) -> Part:
            asks = self.objective.losses, self.objective.log_probs, self.objective.features
            losses, scores, features = (partial(ask, what, number) for what in asks)
            return Part(parts[number].layout, losses, scores, parts[number].labels, features)

        return Losses(
            [micro(number) for number in range(len(parts))],
            self.leaves,
            self.carrier,
            self.flipout,
            self.outputs,
            spared=once.prefix.share if once else 0.0,
            begin=once.begin if once else None,
            gradient_cost=self.gradient_cost,
            criterion=self.objective.criterion,
        )

    @cached_property
    def kept(self) -> KeptPrefix | None:
        """What the frozen prefix gave for each training example; None where nothing is frozen."""
        if self.prefix is None:
            return None
        config, train = self.config, self.task.train
        cap, again = int(config.prefix_gib * 2**30), config.steps * config.batch_size > len(train)
        sizes = (config.batch_size, self._micro, cap)
        return KeptPrefix(self.prefix, self.objective, train, self.numbers, self.parts, *sizes, again)

    def asked(self, batch: Batch, ask: Callable[[Batch], Tensor]) -> Tensor:
        """What the model answers to a batch of an evaluation: the same bits, sooner where a prefix is frozen."""
        return self.kept.asked(batch, ask) if self.kept else ask(batch)

    def log_probs(self, batch: Batch) -> Tensor:
        """The objective's for a batch of an evaluation."""
        return self.asked(batch, self.objective.log_probs)

    @property
    def _micro(self) -> int:
        return self.config.micro_batch or self.config.batch_size

    @property
    def notes(self) -> list[str]:
        """What the user should know of the model and the data before reading on."""
        advice = self.task.word_note if self.loaded.kind != "classifier" else ""
        rows = self.objective.rows
        cost = f"{rows} labels of more than one token: every forward reads each example {rows} times, once per label"
        return [
            *self.loaded.notes,
            *self.task.notes,
            *self.objective.notes,
            *filter(None, [advice, cost if rows > MANY_ROWS else ""]),
        ]

    def kept_bytes(self) -> int:
        """What is kept of the frozen prefix's outputs, in bytes of the machine's own memory."""
        return self.kept.bytes if self.kept else 0

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor the run holds between steps, kept outputs of a frozen prefix apart; some share a storage."""
        model = self.loaded.model
        yield from (*model.parameters(), *model.buffers(), *self.state.values(), *(leaf.tensor for leaf in self.leaves))
        if self.config.quantise:
            from zocore.subspaces.quantised import live_scales, quantised

            yield from (live_scales(module) for _, module in quantised(model))

    def fingerprint(self) -> str:
        """Return the SHA-256 of every tensor that moves, as it is now."""
        digest = hashlib.sha256()
        for leaf in self.leaves:
            digest.update(leaf.name.encode())
            digest.update(leaf.tensor.detach().reshape(-1).cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def flat(self) -> bool:
        """Whether what is lowered is constant almost everywhere, and has no gradient to compare with."""
        return OBJECTIVES[self.config.objective].flat

    @cached_property
    def trainable(self) -> int:
        """Number of values that move."""
        return sum(leaf.tensor.numel() for leaf in self.leaves)

    @cached_property
    def gradient_cost(self) -> float:
        """What a true gradient costs in plain forwards' worth of arithmetic, the prefix apart."""
        return backprop_cost(self.loaded.model, self.leaves, self.prefix.share if self.prefix else 0.0)

    @property
    def cost_per_step(self) -> float:
        """What one step costs in plain forwards' worth of arithmetic, on average over the run."""
        return self.cost_of(self.config.steps) / self.config.steps

    def cost_of(self, steps: int) -> float:
        """What the first `steps` steps cost, in plain forwards' worth of arithmetic."""
        passes = self.method.forward_cost(self._call_cost, steps)
        return passes if self.kept is None else passes + self.kept.prefix.share * self.kept.new_batches(steps)

    def steps_within(self, cost: float) -> int:
        """Return how many steps a cost buys."""
        return most_steps(cost, self.cost_of)

    @cached_property
    def _call_cost(self) -> float:
        """What one pass costs, the prefix apart."""
        if isinstance(self.method, Backprop):
            return self.gradient_cost
        call = 1.0
        if self.flipout is not None and isinstance(self.method, Method):
            call = self.flipout.cost(PerExample(self.key(1), self.method.sampler.law, self.config.batch_size))
        return call - (self.prefix.share if self.prefix else 0.0)


def most_steps(budget: float, price: Callable[[int], float]) -> int:
    """Return the most steps whose price, which rises with their number, stays within a budget."""
    within, beyond = 0, 1
    while price(beyond) <= budget + 1e-9:
        within, beyond = beyond, 2 * beyond
    while beyond - within > 1:
        middle = (within + beyond) // 2
        within, beyond = (middle, beyond) if price(middle) <= budget + 1e-9 else (within, middle)
    return within


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: int, epoch: int) -> Sequence[int]:
    return permutation(count, seed, epoch)
