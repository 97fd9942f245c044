"""Puts a run's parts together from its settings: data, model, objective, leaves, carriers and method."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from zocore import methods
from zocore.carriers.carrier import Carrier
from zocore.carriers.flipout import Flipout, matmul_weights
from zocore.carriers.in_place import InPlace
from zocore.carriers.outputs import Outputs, output_sites
from zocore.carriers.scratch import Scratch, unreached
from zocore.config import RunConfig, flag
from zocore.data.rewards import Reward
from zocore.data.tasks import Task
from zocore.defaults import before_loading, filled
from zocore.directions.laws import SharedDirection, law
from zocore.models.load import LoadedModel, load
from zocore.models.objectives.base import Objective
from zocore.models.objectives.choose import objective_for
from zocore.models.objectives.writing import Writing, check_writing
from zocore.models.prefix import frozen_prefix
from zocore.objectives import OBJECTIVES, refuse_mismatch
from zocore.parallel.ranks import Ranks
from zocore.runs.session import Session
from zocore.runs.task import read
from zocore.step.readout import Head
from zocore.step.step import Method, Stepper
from zocore.step.update import UPDATES
from zocore.subspaces.blocks import last_blocks, of_blocks, residual_writers
from zocore.subspaces.by_name import all_weights, matching, without
from zocore.weights.leaf import Leaf, ParameterSite

LAW = {"noise": None, "rank": 0, "keep": 1.0}  # settings of the law, and what leaves it to the method


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
