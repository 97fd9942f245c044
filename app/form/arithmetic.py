"""What a run costs in plain forwards' worth of arithmetic, from its settings and the model's sizes alone."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from app.form import catalogue
from app.form.prompts import texts
from zocore import methods
from zocore.config import RunConfig
from zocore.data.tasks import bundled_tasks
from zocore.defaults import push_every, subspace_of
from zocore.errors import InputError
from zocore.runs import rate_search
from zocore.runs.session import most_steps
from zocore.runs.task import read
from zocore.step.feedback import Feedback
from zocore.step.readout import Features, Scores
from zocore.step.step import Stepper
from zocore.subspaces.blocks import of_blocks

PER_EXAMPLE = 2.0  # price of a forward in which each example has its own direction: every product is done twice


def search_steps(config: RunConfig) -> int:
    """Return how many steps a run does at most to find its learning rate."""
    return rate_search.MOST if config.searches else 0


def passes(config: RunConfig) -> float:
    """Return the forward passes of a step, on the average of all. Raises ValueError for what does not go together."""
    return _method(config).forward_passes(config.steps) / config.steps


def price(config: RunConfig) -> float:
    """Return what a step of the run costs, in plain forwards' worth of arithmetic, on the average of all its steps.

    Raises ValueError for settings that do not go together.
    """
    return _spent(config, config.steps) / config.steps


def affordable(config: RunConfig, budget: float) -> int:
    """Return how many steps a budget of plain forwards buys."""
    return most_steps(budget, lambda steps: _spent(config, steps))


def _spent(config: RunConfig, steps: int) -> float:
    """The price of so many steps: the passes of each, and the frozen blocks once for each batch that is new."""
    method, part = _method(config), _parts(config)
    again = part.moved * (PER_EXAMPLE - 1) if method.per_example else 0.0
    return method.forward_cost(1.0 + again - part.frozen, steps) + part.frozen * min(steps, _batches(config))


def _method(config: RunConfig) -> Stepper:
    """The method, as far as it can be made ready without its model."""
    method = methods.build(config.method, **replace(config, push_every=push_every(config)).options)
    if not isinstance(method, Feedback):
        return method
    onto_features = config.onto != "scores" and texts(config).rows == 1  # as the head is then known
    return method.spaced((Features if onto_features else Scores).push_every)


def kept_examples(config: RunConfig) -> int:
    """Return for how many examples a run keeps what its frozen blocks gave: those it reads more than once.

    Of a file, whose examples are not counted here, it is told as none.
    """
    count, looks = _examples(config.task), config.steps // config.eval_every if config.eval_every else 0
    if config.data or not math.isfinite(count) or not _parts(config).frozen:
        return 0
    again = count if config.steps * config.batch_size > count else 0
    return int(again) + config.eval_examples * (2 if looks > 1 else 1)


def _batches(config: RunConfig) -> float:
    """How many batches the training examples of a task make; of a file's, whose count is not known here, no end."""
    return math.inf if config.data else _examples(config.task) / config.batch_size


@dataclass(frozen=True)
class Parts:
    """Shares of a plain forward's products."""

    frozen: float = 0.0  # in the blocks below everything that moves
    moved: float = 1.0  # with weights that move


def _parts(config: RunConfig) -> Parts:
    """The shares for a subspace of the last blocks, from the model's sizes; elsewhere every product counts."""
    shape = catalogue.shape(config.model)
    asked = of_blocks(subspace_of(config)) if shape is not None else None
    if shape is None or asked is None:
        return Parts()
    name, count = asked
    blocks = min(count or shape.layers, shape.layers)
    block = sum(linear.weights for linear in shape.block_linears)
    head = shape.vocab * shape.hidden
    whole = shape.layers * block + head / texts(config).tokens  # the head reads one place
    moving = sum(linear.weights for linear in shape.writers) if name == "writers" else block
    # the engine counts what is done twice as a share of all matrices, the head whole
    return Parts((shape.layers - blocks) * block / whole, blocks * moving / (shape.layers * block + head))


@lru_cache(maxsize=16)
def _examples(task: str) -> float:
    if task not in bundled_tasks():  # nothing is downloaded for a price
        return math.inf
    try:
        return len(read(RunConfig(task=task)).train)
    except InputError:
        return math.inf
