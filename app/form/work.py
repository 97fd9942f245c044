"""How much work a run is, from its settings alone: the unit is one weight seen by one token in a forward pass.

It counts everything a run does: the steps' forwards at their price, those of a search for the rate at their most, the
noise of every direction, evaluations before, after and between, measurements of the estimator, and each token of the
completions that it writes.
"""

import math

from app.form import arithmetic, catalogue, prompts
from zocore import methods
from zocore.config import RunConfig
from zocore.step.step import Method

NOISE = 200  # tokens' worth of drawing and adding the noise of every weight, for one forward
ESTIMATES = 8  # in one measurement of the estimator


def work(config: RunConfig) -> float:
    """Return the work of a run; infinite for a model whose sizes are not known.

    Raises ValueError for settings that do not go together.
    """
    shape = catalogue.shape(config.model)
    if shape is None:
        return math.inf
    text = prompts.texts(config)
    long = text.tokens * text.rows
    method = methods.build(config.method, **config.options)
    new = prompts.written(config)  # tokens of a completion, each a forward with noise of its own
    noise = max(1, new) * NOISE * (method.forward_passes() if isinstance(method, Method) else 1)
    tokens_a_step = arithmetic.price(config) * config.batch_size * (long + new) + noise
    looks = 2 + (config.steps // config.eval_every if config.eval_every else 0)
    measured = math.ceil(config.steps / config.measure_every) if config.measure_every else 0
    evaluated = looks * config.eval_examples * (long + prompts.judged(config))
    steps = config.steps + arithmetic.search_steps(config) + measured * ESTIMATES
    return shape.parameters * (steps * tokens_a_step + evaluated)
