"""How much work a run is, from its settings alone: the unit is one weight seen by one token in a forward pass.

It counts everything a run does: the steps' forwards at their price, the noise of every direction, evaluations
before, after and between, and measurements of the estimator.
"""

import math

from app.form import catalogue, cost
from zocore import methods
from zocore.config import RunConfig
from zocore.step.step import Method

NOISE = 200  # tokens' worth of drawing and adding the noise of every weight, for one forward
PER_EXAMPLE = 2.0  # price of a forward in which each example has its own direction
ESTIMATES = 8  # in one measurement of the estimator
LABELS = 4  # forwards of an example when it is scored, more or less: one for each word of several tokens


def work(config: RunConfig, tokens: int | None = None) -> float:
    """Return the work of a run; infinite for a model whose sizes are not known.

    Raises ValueError for settings that do not go together.
    """
    shape = catalogue.shape(config.model)
    if shape is None:
        return math.inf
    long = min(tokens or cost.tokens(config), config.max_tokens)
    method = methods.build(config.method, **config.options)
    step = method.forward_cost(PER_EXAMPLE if method.per_example else 1.0)
    noise = NOISE * method.forward_passes() if isinstance(method, Method) else NOISE
    tokens_a_step = step * config.batch_size * long + noise
    looks = 2 + (config.steps // config.eval_every if config.eval_every else 0)
    measured = math.ceil(config.steps / config.measure_every) if config.measure_every else 0
    evaluated = looks * config.eval_examples * long * LABELS
    return shape.parameters * ((config.steps + measured * ESTIMATES) * tokens_a_step + evaluated)
