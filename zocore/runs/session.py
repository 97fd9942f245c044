"""A run's parts, put together from its settings: data, model, objective, leaves, carriers and method."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from zocore import methods
from zocore.carriers.carrier import Carrier
from zocore.carriers.flipout import Flipout, backprop_cost, matmul_weights
from zocore.carriers.in_place import InPlace
from zocore.carriers.outputs import Outputs, output_sites
from zocore.carriers.scratch import Scratch, unreached
from zocore.config import RunConfig, flag
from zocore.data.few import few
from zocore.data.named import named_tasks, read_named
from zocore.data.rewards import Reward
from zocore.data.tasks import Example, Task, load_task, read_task
from zocore.data.texts import as_prompts, read_texts
from zocore.defaults import before_loading, filled
from zocore.directions.laws import SharedDirection, law
from zocore.directions.per_example import PerExample
from zocore.errors import InputError
from zocore.models.load import LoadedModel, load
from zocore.models.objectives.base import Objective
from zocore.models.objectives.batch import Batch
from zocore.models.objectives.choose import objective_for
from zocore.models.objectives.writing import Writing, check_writing
from zocore.models.prefix import Once, Prefix, frozen_prefix
from zocore.noise.addressed import Key, permutation
from zocore.objectives import OBJECTIVES, refuse_mismatch
from zocore.parallel.ranks import Ranks, checksum
from zocore.runs.kept_prefix import KeptPrefix
from zocore.step.losses import Losses, Part
from zocore.step.readout import Head
from zocore.step.step import Backprop, Method, Stepper
from zocore.step.update import UPDATES, State
from zocore.subspaces.blocks import last_blocks, of_blocks, residual_writers
from zocore.subspaces.by_name import all_weights, matching, without
from zocore.weights.leaf import Leaf, ParameterSite

CHECKED_EVERY = 100  # steps between comparisons of the weights where several processes share a run
LAW = {"noise": None, "rank": 0, "keep": 1.0}  # settings of the law, and what leaves it to the method
OF_DATA = ("text_columns", "label_column", "template", "label_words")
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
        own = self._oracle(shares[self.ranks.rank], None)
        return replace(own, ranks=self.ranks, counts=[sum(map(len, share)) for share in shares])

    def losses_of(self, examples: Sequence[Example]) -> Losses:
        """The losses of a batch of these examples, nothing evaluated yet."""
        batch, prefix = self.objective.batch(examples), self.prefix
        if prefix is None:
            return self._oracle([batch], None)
        find = lambda: [prefix.output(lambda: self.objective.losses(batch))]  # noqa: E731
        return self._oracle([batch], Once(prefix, find, prefix.share))

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
        if self.kept is None:
            return self._call_cost * steps
        return self._call_cost * steps + self.kept.prefix.share * self.kept.new_batches(steps)

    def steps_within(self, cost: float) -> int:
        """Return how many steps a cost buys."""
        steps = int(cost / self._call_cost + 1e-9)  # more than these it cannot be
        while steps and self.cost_of(steps) > cost + 1e-9:
            steps -= 1
        return steps

    @cached_property
    def _call_cost(self) -> float:
        """What the passes of one step cost, the prefix apart."""
        if isinstance(self.method, Backprop):
            return self.method.forward_cost(self.gradient_cost)
        call = 1.0
        if self.flipout is not None and isinstance(self.method, Method):
            call = self.flipout.cost(PerExample(self.key(1), self.method.sampler.law, self.config.batch_size))
        return self.method.forward_cost(call - (self.prefix.share if self.prefix else 0.0))


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: int, epoch: int) -> Sequence[int]:
    return permutation(count, seed, epoch)


def data_fingerprint(task: Task) -> str:
    """Return the SHA-256 of the task's prompt, label words and training examples, in order."""
    digest = hashlib.sha256(repr((task.template, task.label_names, task.label_words)).encode())
    for example in task.train:
        digest.update(repr((sorted(example.fields.items()), example.label)).encode())
    return digest.hexdigest()


def read(config: RunConfig) -> Task:
    """Return the task the settings name. Raises InputError when the data is not usable."""
    unlabelled = OBJECTIVES[config.objective].criterion is None
    if unlabelled and config.k_shot:
        raise InputError(f"--k-shot and --objective {config.objective} do not go together: it has no labels")
    task = _read_texts(config) if unlabelled else _read(config)
    return few(task, config.k_shot, config.train_examples, config.split_seed)


def _read(config: RunConfig) -> Task:
    words: dict[str, Any] = {"template": config.template, "label_words": config.label_words, "seed": config.split_seed}
    if config.task in named_tasks():
        for name in ("text_columns", "label_column"):
            if getattr(config, name) is not None:
                raise InputError(f"{flag(name)} and --task {config.task} do not go together: the task has its columns")
        return read_named(config.task, config.data, **words)
    if config.data is None:
        for name in OF_DATA:
            if getattr(config, name) is not None:
                raise InputError(f"{flag(name)} needs --data: a bundled task has its own")
        return load_task(config.task)
    columns = config.text_columns.split(",") if config.text_columns else None
    return read_task(config.data, text_columns=columns, label_column=config.label_column, **words)


def _read_texts(config: RunConfig) -> Task:
    for name in ("text_columns", "label_words"):
        if getattr(config, name) is not None:
            raise InputError(f"{flag(name)} and --objective {config.objective} do not go together: it has no labels")
    if config.data is None:
        return _as_prompts(config)
    named = named_tasks().get(config.task)  # SQuAD and DROP have their prompts in the table
    template = config.template or (named.template if named and named.generated else None)
    return read_texts(config.data, template=template, answer_column=config.label_column, seed=config.split_seed)


def _as_prompts(config: RunConfig) -> Task:
    """A task with labels, as prompts whose right answers are the label words."""
    task = _read(config)
    if task.candidates:
        raise InputError(
            f"--task {config.task} and --objective {config.objective} do not go together: its answers are candidates "
            "of each example; give a file of prompts, texts or chats with --data"
        )
    return as_prompts(task)


def open_session(
    config: RunConfig, frozen: Sequence[str] | None = None, task: Task | None = None, ranks: Ranks | None = None
) -> Session:
    """Return a run ready for its first step; data is checked before the model is loaded.

    `frozen` names the leaves to leave out, as a recording has them; without it one forward finds them. `task`
    takes the place of the one that the settings name. Raises
    ValueError (InputError for the user's files) with one sentence when the parts do not go together.
    """
    ranks = ranks or Ranks()
    config = before_loading(_shared(config, ranks))
    method = _method(config, ranks)  # cheap, so bad combinations are refused first
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
    task = task.worded(loaded.kind)
    config = filled(replace(config, kind=loaded.kind))
    if config.quantise:
        from zocore.subspaces.quantised import prepare  # here and below: bitsandbytes and peft take seconds to import

        prepare(loaded.model)  # before any forward, also when adapters move and the scales do not
    leaves = subspace(loaded.model, config)
    objective = _objective(loaded, task, config)
    if frozen is None:
        frozen = _unread(leaves, objective, task)
    leaves = without(leaves, frozen)
    flipout = Flipout(leaves, matmul_weights(loaded.model)) if method.per_example else None
    outputs = Outputs(output_sites(leaves, _after_mixing(loaded.model)), method.pushes) if method.pushes else None
    prefix = frozen_prefix(loaded.model, leaves, lambda: _forward(objective, task)) if objective.one_forward else None
    carrier: Carrier[SharedDirection] = InPlace(leaves) if config.carrier == "in-place" else Scratch(leaves)
    stepper = method.prepared(leaves, _fixed_head(objective, leaves) if method.pushes else None)
    parts = (carrier, flipout, outputs, prefix)
    return Session(config, task, loaded, objective, leaves, frozen, stepper, *parts, ranks=ranks)


def check(config: RunConfig, kind: str | None = None) -> None:
    """Raise ValueError with one sentence for settings that cannot make a run, read from them alone.

    `kind` is the model's, where it is known; neither model nor data is opened, and no code of a reward is run.
    """
    _method(before_loading(config), Ranks())
    if OBJECTIVES[config.objective].text:
        check_writing(config.model, config.kind or kind or "causal", config.max_tokens, config.max_new_tokens)
    if config.reward:
        Reward(config.reward)


def _shared(config: RunConfig, ranks: Ranks) -> RunConfig:
    """The settings for several processes: micro-batches as large as their shares, unless smaller ones are set.

    A run is the same, bit for bit, on any number of processes that its micro-batches can be dealt to. What frozen
    blocks gave is kept by one process alone, so several keep nothing.
    """
    if ranks.count == 1:
        return config
    micro = config.micro_batch or -(-config.batch_size // ranks.count)
    return replace(config, micro_batch=micro, prefix_gib=0.0)


def subspace(model: nn.Module, config: RunConfig) -> list[Leaf]:
    """Return the leaves the settings name: all, lora, scales, the last blocks, or parameters by name."""
    if config.subspace == "all":
        return all_weights(model, config.master)
    if config.subspace == "lora":
        from zocore.subspaces.lora import lora

        return lora(model, config.seed)
    if config.subspace == "scales":
        from zocore.subspaces.quantised import quant_scales

        return quant_scales(model)
    if of_blocks(config.subspace):
        return last_blocks(model, config.subspace, config.master)
    return matching(model, config.subspace, config.master)


def _method(config: RunConfig, ranks: Ranks) -> Stepper:
    row = methods.METHODS[config.method]
    of_blocks(config.subspace)  # refuses a word without its number of blocks
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
    if not method.zeroth_order and ranks.count > 1:
        raise ValueError(f"{config.method} and several processes do not go together: gradients are not exchanged")
    if not method.zeroth_order and config.subspace == "scales":
        raise ValueError(f"{config.method} and the scales subspace do not go together: they have no gradient")
    if method.pushes and ranks.count > 1:
        raise ValueError(f"{config.method} and several processes do not go together: layer inputs are not exchanged")
    refuse_mismatch(config.objective, method, config.batch_size, config.micro_batch, ranks.count)
    if isinstance(method, Method) and method.sampler.count is None and config.batch_size < method.shaping.least:
        raise ValueError(
            f"{config.method} with this --scale and --batch-size {config.batch_size} do not go together: "
            f"it needs at least {method.shaping.least} examples"
        )
    return method


def _objective(loaded: LoadedModel, task: Task, config: RunConfig) -> Objective:
    row = OBJECTIVES[config.objective]
    if row.criterion is not None:
        return objective_for(loaded, task, config.max_tokens, row.criterion)
    writing = Writing(config.max_new_tokens, config.temperature)
    objective: Objective = row.text_class()(loaded, task, config.max_tokens, writing, getattr(config, row.judge))
    return objective


def _fixed_head(objective: Objective, leaves: Sequence[Leaf]) -> Head | None:
    """The head of the objective, if it is known and none of it moves."""
    moving = {site.module for leaf in leaves for site in leaf.sites if isinstance(site, ParameterSite)}
    return None if objective.last_layer in moving else objective.head


def _after_mixing(model: nn.Module) -> list[nn.Module]:
    """The layers after which no token reads another's: what writes into the hidden state in the last block."""
    try:
        return residual_writers(model, 1)
    except ValueError:  # no blocks, so none is known to be the last
        return []


def _unread(leaves: Sequence[Leaf], objective: Objective, task: Task) -> list[str]:
    """Leaves whose module takes no part in the loss, such as the pooler of an encoder that is mean-pooled."""
    return unreached(leaves, lambda: _forward(objective, task))


def _forward(objective: Objective, task: Task) -> None:
    """One forward of the first training example."""
    with torch.no_grad():
        objective.forward(objective.batch(task.train[:1]))
