"""A recipe: the settings of a run in a paper's table, the card it is meant for, and what it should cost there.

Hours are a prediction from counts, not a measurement: the arithmetic of the forward passes at a share of the card's
peak, and the noise at a rate. Both assumptions stand below.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from zocore.config import RunConfig
from zocore.defaults import filled
from zocore.errors import InputError
from zocore.memory.bill import CARDS, Bill, bill
from zocore.memory.shapes import ModelShape, shape_of
from zocore.methods import METHODS
from zocore.step.step import Method

FOLDER = Path(__file__).parent
PEAK = {  # dense floating-point operations a second by the data sheets: in 16 bits, in float32
    "RTX 4090 24 GB": (165e12, 83e12),
    "A100 80 GB": (312e12, 19.5e12),
    "H100 80 GB": (989e12, 67e12),
    "H200 141 GB": (989e12, 67e12),
}
REACHED = 0.4  # share of the peak that forward passes of such batches reach: an assumption
NOISE = 150e9  # random numbers a second, made and added: an assumption
DISPLACED = 2.0  # a forward with a direction for each example, in plain ones


@dataclass(frozen=True)
class Recipe:
    """One run of a paper's table."""

    name: str
    title: str
    paper: str
    where: str  # the table or section, and what of it differs here
    card: str
    shape: str  # the model's sizes, by the name that `zocore memory` knows
    tokens: int  # of a prompt on average: what the prediction counts
    settings: Mapping[str, Any]

    @cached_property
    def config(self) -> RunConfig:
        """The settings, with every number set."""
        return filled(RunConfig(**self.settings))

    @property
    def memory(self) -> Bill:
        """The peak memory of a step with prompts of the longest length, predicted."""
        config = self.config
        length = min(config.max_tokens, self._shape.positions)
        return bill(self._shape, config.method, config.batch_size, length, config.dtype or "bf16")

    @property
    def hours(self) -> float:
        """The whole run on the card, evaluations and all, predicted."""
        config = self.config
        evaluations = 2 + (config.steps - 1) // config.eval_every if config.eval_every else 2
        return (config.steps * self.step_seconds + evaluations * self._seconds(config.eval_examples)) / 3600

    @property
    def step_seconds(self) -> float:
        """One step on the card, predicted."""
        return self._step_cost * self._seconds(self.config.batch_size) + self._noise / NOISE

    @property
    def said(self) -> str:
        """One sentence on what it takes."""
        return (
            f"{self.name}: predicted, not measured: {self.hours:.1f} hours and {self.memory.total / 1e9:.0f} GB on one "
            f"{self.card}"
        )

    @cached_property
    def _shape(self) -> ModelShape:
        return shape_of(self.shape)

    def _seconds(self, examples: int) -> float:
        """A plain forward: two operations for each weight of a matrix and token."""
        weights = self._shape.layers * sum(linear.weights for linear in self._shape.block_linears)
        peak = PEAK[self.card][self.config.dtype == "fp32"]
        return 2.0 * weights * examples * self.tokens / (REACHED * peak)

    @property
    def _method(self) -> Method:
        method = METHODS[self.config.method].build(**self.config.options)
        assert isinstance(method, Method)
        return method

    @property
    def _step_cost(self) -> float:
        return self._method.forward_cost(DISPLACED if self._method.per_example else 1.0)

    @property
    def _noise(self) -> float:
        """Random numbers of a step: in every displaced forward, and once more in the update."""
        if self.config.subspace in ("lora", "scales"):
            return 0.0
        return self._shape.parameters * (self._method.forward_passes() + self._method.sampler.draws)


def recipes() -> dict[str, Recipe]:
    """Return all recipes by name."""
    named = {}
    for path in sorted(FOLDER.glob("*.toml")):
        named[path.stem] = Recipe(path.stem, **tomllib.loads(path.read_text(encoding="utf-8")))
    return named


def recipe(name: str) -> Recipe:
    """Return a recipe. Raises InputError when there is none of that name."""
    known = recipes()
    if name not in known:
        raise InputError(f"there is no recipe {name!r}: choose one of {', '.join(known)}")
    return known[name]


assert set(PEAK) <= set(CARDS)
