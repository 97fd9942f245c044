"""One table for every method: it learns, repeats bitwise, and spends the forward passes that it declares."""

from collections.abc import Sequence

import pytest
import torch

from tests.support.scored import scored
from tests.support.toys import ON_WEIGHTS, Toy, flat, language_model, least_squares
from zocore.methods import METHODS, build
from zocore.noise.addressed import Key
from zocore.step.step import Method

OPTIONS: dict[str, dict[str, object]] = {"openai-es": {"directions": 4}, "fzoo": {"directions": 4}}
STEPS = {"quadratic": 60, "llama": 25}


def toy_of(kind: str) -> Toy:
    if kind == "quadratic":
        return least_squares(8, 4, 3)
    return language_model("llama", count=4, dtype=torch.float32)


def train(method: str, kind: str, toy: Toy, steps: int) -> tuple[list[float], Sequence[tuple[int, float]]]:
    state: dict = {}
    stepper = build(method, **OPTIONS.get(method, {})).prepared(toy.leaves)
    values, spent = [], []
    for number in range(steps):
        losses = toy.losses()
        lr = METHODS[method].trial_lrs[kind == "llama"] * (1 - number / steps)
        stepper.step(toy.leaves, losses, Key(0, number), lr, 1e-3, state)
        spent.append((losses.forward_passes, losses.forward_cost))
        values.append(float(toy.forward(torch.arange(toy.count)).double().mean()))
    return values, spent


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("method", ON_WEIGHTS)
def test_every_method_learns_repeats_and_spends_what_it_says(method: str, kind: str) -> None:
    """The loss falls, two runs end bitwise equal, and every step spends the declared forward passes."""
    toy = toy_of(kind)
    first = float(toy.forward(torch.arange(toy.count)).double().mean())
    values, spent = train(method, kind, toy, STEPS[kind])
    assert values[-1] < (0.7 if kind == "quadratic" else 0.93) * first
    ends = []
    for _ in range(2):
        again = toy_of(kind)
        train(method, kind, again, 3)
        ends.append(flat(again.weights()))
    assert torch.equal(*ends)
    assert set(spent) == {(spent[0][0], spent[0][1])}
    stepper = build(method, **OPTIONS.get(method, {}))
    passes, cost = spent[0]
    assert passes == stepper.forward_passes()
    # per-example forwards do each product twice; a backward costs two
    calls = {"grzo": 2.0, "sgd": 3.0, "adamw": 3.0}
    assert cost == passes * calls.get(method, 1.0)


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("method", [name for name in METHODS if name not in ON_WEIGHTS])
def test_every_method_on_outputs_learns_repeats_and_spends_what_it_says(method: str, tokens: int) -> None:
    """The same for methods that push the outputs of linear layers, on labels scored by a small network."""
    ends = []
    for _ in range(2):
        toy, state = scored(labels=4, examples=12, tokens=tokens), {}
        first = float(toy.losses()().mean())
        stepper = build(method)
        for number in range(60):
            losses = toy.losses()
            lr = METHODS[method].trial_lrs[0] * (1 - number / 60)
            stepper.step(toy.leaves, losses, Key(0, number), lr, 1e-2, state)
            assert losses.forward_passes == losses.forward_cost == stepper.forward_passes()
        assert float(toy.losses()().mean()) < 0.7 * first
        ends.append(torch.cat([leaf.tensor.reshape(-1) for leaf in toy.leaves]))
    assert torch.equal(*ends)


def test_every_row_is_whole() -> None:
    """A row says all that a menu needs, and its builder goes by the row's name."""
    for name, row in METHODS.items():
        assert row.title
        assert row.forwards
        assert row.summary.endswith(".")
        assert build(name).name == name
        assert isinstance(build(name), Method) == (name not in ("feedback", "sgd", "adamw"))
