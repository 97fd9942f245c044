"""A run's parts, put together from its settings: data, model, objective, leaves, carriers and method."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from zocore import methods
from zocore.carriers.flipout import Flipout, matmul_weights
from zocore.carriers.in_place import InPlace
from zocore.carriers.scratch import Scratch, unreached
from zocore.config import RunConfig, flag
from zocore.data.tasks import Example, Task, load_task, read_task
from zocore.defaults import before_loading, filled
from zocore.directions.laws import law
from zocore.directions.per_example import PerExample
from zocore.errors import InputError
from zocore.models.load import LoadedModel, load
from zocore.models.objectives.base import Objective, objective_for
from zocore.noise.addressed import Key, permutation
from zocore.step.losses import Carrier, Losses, Part
from zocore.step.step import Method, Stepper
from zocore.step.update import Adam, Momentum, Sgd, State
from zocore.subspaces.by_name import all_weights, matching, without
from zocore.weights.leaf import Leaf

LAW = {"noise": None, "rank": 0, "keep": 1.0}  # settings of the law, and what leaves it to the method
OF_DATA = ("text_columns", "label_column", "template", "label_words")
UPDATES: dict[str, type[Sgd] | type[Momentum] | type[Adam]] = {"sgd": Sgd, "momentum": Momentum, "adam": Adam}


@dataclass
class Session:
    """One run's model and everything that acts on it. The session owns its model: nobody else may use it."""

    config: RunConfig  # every default filled in
    task: Task
    loaded: LoadedModel
    objective: Objective
    leaves: Sequence[Leaf]
    frozen: Sequence[str]  # names left out because the forward never reads them
    method: Stepper
    carrier: Carrier
    flipout: Flipout | None
    state: State = field(default_factory=dict)

    def key(self, step: int) -> Key:
        """The address of the step's noise."""
        return Key(self.config.seed, step)

    def lr(self, step: int) -> float:
        """The learning rate of step 1, 2, ...: constant, or falling linearly to zero after the last."""
        assert self.config.lr is not None
        left = 1 - (step - 1) / self.config.steps
        return self.config.lr * (left if self.config.schedule == "linear" else 1.0)

    def examples(self, step: int) -> list[Example]:
        """The batch of a step: consecutive places of one shuffled order per pass over the data."""
        train, size = self.task.train, self.config.batch_size
        return [train[self._place(i, len(train))] for i in range((step - 1) * size, step * size)]

    def losses(self, step: int) -> Losses:
        """A fresh oracle for the batch of a step."""
        return self.losses_of(self.examples(step))

    def losses_of(self, examples: Sequence[Example]) -> Losses:
        """A fresh oracle for a batch of these examples."""
        batch = self.objective.batch(examples)
        micro = self.config.micro_batch or self.config.batch_size
        parts = [
            Part(part.layout, lambda part=part: self.objective.losses(part))  # type: ignore[misc]
            for part in batch.split(micro)
        ]
        return Losses(parts, self.leaves, self.carrier, self.flipout)

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor the run holds between steps; some share a storage."""
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

    @cached_property
    def trainable(self) -> int:
        """Number of values that move."""
        return sum(leaf.tensor.numel() for leaf in self.leaves)

    @cached_property
    def cost_per_step(self) -> float:
        """What one step costs, in plain forwards' worth of arithmetic."""
        call = 1.0
        if self.flipout is not None and isinstance(self.method, Method):
            call = self.flipout.cost(PerExample(self.key(1), self.method.sampler.law, self.config.batch_size))
        return self.method.forward_cost(call)

    def _place(self, position: int, count: int) -> int:
        epoch, place = divmod(position, count)
        if self._order[0] != epoch:
            self._order = (epoch, permutation(count, self.config.seed, epoch))
        return self._order[1][place]

    _order: tuple[int, list[int]] = (-1, [])


def data_fingerprint(task: Task) -> str:
    """Return the SHA-256 of the task's prompt, label words and training examples, in order."""
    digest = hashlib.sha256(repr((task.template, task.label_names, task.label_words)).encode())
    for example in task.train:
        digest.update(repr((sorted(example.fields.items()), example.label)).encode())
    return digest.hexdigest()


def read(config: RunConfig) -> Task:
    """Return the task the settings name. Raises InputError when the data is not usable."""
    if config.data is None:
        for name in OF_DATA:
            if getattr(config, name) is not None:
                raise InputError(f"{flag(name)} needs --data: a bundled task has its own")
        return load_task(config.task)
    return read_task(
        config.data,
        text_columns=config.text_columns.split(",") if config.text_columns else None,
        label_column=config.label_column,
        template=config.template,
        label_words=config.label_words,
        seed=config.seed,
    )


def open_session(config: RunConfig, frozen: Sequence[str] | None = None, task: Task | None = None) -> Session:
    """Return a run ready for its first step; data is checked before the model is loaded.

    `frozen` names the leaves to leave out, as a recording has them; without it one forward finds them. `task`
    takes the place of the one that the settings name. Raises
    ValueError (InputError for the user's files) with one sentence when the parts do not go together.
    """
    config = before_loading(config)
    method = _method(config)  # cheap, so bad combinations are refused first
    task = task or read(config)
    loaded = load(
        config.model,
        dtype=config.dtype or "fp32",
        device=config.device or "cpu",
        quantise=config.quantise,
        kind=config.kind,
        labels=task.label_names,
        allow_pickle=config.allow_pickle,
        seed=config.seed,
    )
    config = filled(replace(config, kind=loaded.kind))
    if config.quantise:
        from zocore.subspaces.quantised import prepare  # here and below: bitsandbytes and peft take seconds to import

        prepare(loaded.model)  # before any forward, also when adapters move and the scales do not
    leaves = subspace(loaded.model, config)
    objective = objective_for(loaded, task, max_tokens=config.max_tokens)
    if frozen is None:
        frozen = _unread(leaves, objective, task)
    leaves = without(leaves, frozen)
    flipout = Flipout(leaves, matmul_weights(loaded.model)) if method.per_example else None
    carrier: Carrier = InPlace(leaves) if config.carrier == "in-place" else Scratch(leaves)
    return Session(config, task, loaded, objective, leaves, frozen, method.prepared(leaves), carrier, flipout)


def subspace(model: nn.Module, config: RunConfig) -> list[Leaf]:
    """Return the leaves the settings name: all, lora, scales, or parameters by name."""
    if config.subspace == "all":
        return all_weights(model, config.master)
    if config.subspace == "lora":
        from zocore.subspaces.lora import lora

        return lora(model, config.seed)
    if config.subspace == "scales":
        from zocore.subspaces.quantised import quant_scales

        return quant_scales(model)
    return matching(model, config.subspace, config.master)


def _method(config: RunConfig) -> Stepper:
    row = methods.METHODS[config.method]
    if row.home == "scales" and config.subspace != "scales":
        raise ValueError(
            f"{config.method} and the subspace {config.subspace!r} do not go together: it moves quantisation scales"
        )
    options, of_law = config.options, [name for name, default in LAW.items() if getattr(config, name) != default]
    foreign = [name for name in options if name not in row.options] + (of_law if "law" not in row.options else [])
    for name in foreign:
        raise ValueError(f"{config.method} has no option {flag(name)}")
    if config.noise == "rademacher" and config.rank:
        raise ValueError("--noise rademacher and --rank do not go together: thin factors are normals")
    if of_law:
        options["law"] = law(config.noise or "gaussian", rank=config.rank, keep=config.keep)
    rule = row.update if config.update == "auto" else UPDATES[config.update]()
    method = methods.build(config.method, **options, update=replace(rule, decay=config.decay))
    if not isinstance(method, Method):
        if config.subspace == "scales":
            raise ValueError(f"{config.method} and the scales subspace do not go together: they have no gradient")
    elif method.per_example and config.batch_size < method.shaping.least:
        raise ValueError(
            f"{config.method} with this --scale and --batch-size {config.batch_size} do not go together: "
            f"it needs at least {method.shaping.least} examples"
        )
    return method


def _unread(leaves: Sequence[Leaf], objective: Objective, task: Task) -> list[str]:
    """Leaves whose module takes no part in the loss, such as the pooler of an encoder that is mean-pooled."""
    batch = objective.batch(list(task.train[:1]))

    def forward() -> None:
        with torch.no_grad():
            objective.losses(batch)

    return unreached(leaves, forward)
