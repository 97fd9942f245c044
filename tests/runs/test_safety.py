"""Safety: whatever ends a step, the weights are where they were, and nothing of the probe is left behind."""

from typing import Any
from unittest.mock import patch

import pytest
import torch

from tests.support.hooks import hooks, raising
from tests.support.toys import ON_WEIGHTS, Toy, language_model, least_squares, mixed
from zocore.carriers.in_place import InPlace
from zocore.directions import laws
from zocore.directions.laws import Direction, Gaussian, Rademacher
from zocore.methods import build
from zocore.noise.addressed import Key
from zocore.step.shaping import Normalise
from zocore.step.step import Method, Step

SMALL = {
    "fzoo": {"directions": 2},
    "openai-es": {"directions": 2},
    "n-spsa": {"directions": 2},
    "mezo-gv": {"pool": 2},
}


def take_step(method: str, toy: Toy, in_place: bool = False, step: int = 0) -> Step:
    losses = toy.losses(in_place=in_place)
    prepared = build(method, **SMALL.get(method, {})).prepared(toy.leaves)
    return prepared.step(toy.leaves, losses, Key(0, step), 1e-3, 1e-3, {})


def pointers(toy: Toy) -> list[int]:
    return [parameter.data_ptr() for parameter in toy.model.parameters()]


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("method", ["mezo", "grzo"], ids=["scratch", "flipout"])
@pytest.mark.parametrize("name", ["opt", "mixed"])
def test_an_exception_in_any_module_leaves_weights_pointers_and_hooks(name, method, error) -> None:
    """At every module in turn: weights bitwise the same, data pointers as before, no hook attached."""
    toy = mixed() if name == "mixed" else language_model(name, count=2, tokens=5)
    toy.forward(torch.arange(toy.count))  # fills what the library caches
    before, at = toy.weights(), pointers(toy)
    raised = 0
    for module in toy.model.modules():
        with raising(module, error) as runs:
            try:
                # the module may not run twice in a step (Flipout on a pooler it left out): then nothing is
                # raised
                take_step_without_update(method, toy)
            except type(error) as seen:
                assert seen is error  # noqa: PT017
            raised += runs() >= 2
        assert pointers(toy) == at
        assert not list(hooks(toy.model))
        assert all(torch.equal(leaf.tensor, before[leaf.id]) for leaf in toy.leaves)
    assert raised > len(list(toy.model.modules())) // 2


def take_step_without_update(method: str, toy: Toy) -> None:
    with patch.object(Method, "apply", lambda *_: None):
        take_step(method, toy)


@pytest.mark.parametrize("method", ["mezo", "n-spsa", "mezo-gv", "mezo-greedy", "fzoo", "openai-es"])
def test_an_exception_under_in_place_probes_restores_to_rounding(method: str) -> None:
    """An error at any forward of a step, in float32, leaves each weight within a few ulp."""
    toy = mixed(dtype=torch.float32)
    before = toy.weights()
    for nth in range(build(method, **SMALL.get(method, {})).forward_passes()):
        calls = 0
        original = toy.forward

        def forward(rows: torch.Tensor, original=original, nth=nth) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls > nth:
                raise RuntimeError("stop")
            return original(rows)

        toy.forward = forward
        with pytest.raises(RuntimeError, match="stop"):
            take_step(method, toy, in_place=True)
        toy.forward = original
        for leaf in toy.leaves:
            assert torch.allclose(leaf.tensor, before[leaf.id], rtol=1e-6, atol=1e-8)
        assert not list(hooks(toy.model))


def test_an_interrupt_between_two_tensors_of_a_move_is_undone() -> None:
    """Stopping in-place after any number of tensors of any move brings all of them back, in float64 to
    1e-15.
    """
    toy = mixed()
    before = toy.weights()
    original = laws.Gaussian.displace
    for stop_after in range(3 * len(toy.leaves)):
        calls = 0

        def displace(*args, **kwargs) -> None:
            nonlocal calls
            if calls == stop_after:  # noqa: B023
                calls += 1
                raise KeyboardInterrupt
            calls += 1
            original(*args, **kwargs)

        with patch.object(laws.Gaussian, "displace", displace):
            try:
                with InPlace(toy.leaves).along(Direction(Key(0, 0), Gaussian())) as move_to:
                    move_to(0.1)
                    move_to(-0.1)
            except KeyboardInterrupt:
                pass
        assert calls > stop_after
        if stop_after < 2 * len(toy.leaves):  # past that, the way back itself was interrupted
            for leaf in toy.leaves:
                assert torch.allclose(leaf.tensor, before[leaf.id], rtol=0, atol=1e-15)
        toy.set(before)


@pytest.mark.parametrize("method", ON_WEIGHTS)
def test_steps_leave_the_generator_grad_mode_and_parameters_as_they_were(method: str) -> None:
    """No step reads or moves the global generator, changes grad mode, or leaves requires_grad or a
    gradient.
    """
    toy = mixed()
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            before = torch.get_rng_state()
            take_step(method, toy)
            assert torch.equal(before, torch.get_rng_state())
            assert torch.is_grad_enabled() is enabled
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in toy.model.parameters())
    assert not list(hooks(toy.model))


@pytest.mark.parametrize("method", ON_WEIGHTS)
def test_a_step_does_not_depend_on_the_global_seed(method: str) -> None:
    """Two runs under other global seeds end bitwise equal; another run seed ends elsewhere."""
    ends = []
    for seed in (1, 2):
        toy = mixed()
        torch.manual_seed(seed)
        take_step(method, toy)
        ends.append(toy.weights())
    assert all(torch.equal(ends[0][number], ends[1][number]) for number in ends[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ON_WEIGHTS)
def test_a_loss_that_is_not_finite_skips_the_step(method: str, value: float) -> None:
    """One bad example leaves every weight bitwise as it was and the step says that it was skipped."""
    toy = mixed()
    before, original = toy.weights(), toy.forward
    toy.forward = lambda rows: torch.where(rows == 2, original(rows) * value, original(rows))
    step = take_step(method, toy)
    assert step.skipped
    assert step.coefficients == ()
    assert all(torch.equal(leaf.tensor, before[leaf.id]) for leaf in toy.leaves)


@pytest.mark.parametrize("method", [name for name in ON_WEIGHTS if name not in ("sgd", "adamw")])
def test_a_plateau_moves_no_weight(method: str) -> None:
    """Where the loss does not change, every coefficient is 0 and no weight moves: no step without
    information.
    """
    toy = least_squares()
    toy.leaves[0].tensor.zero_()
    toy.forward = lambda rows: torch.floor(0.5 + toy.model.layer(toy.model.inputs[rows]))[:, 0]  # 0 for small weights
    before = toy.weights()
    step = take_step(method, toy)
    assert not step.skipped
    assert set(step.coefficients) == {0.0}
    assert all(torch.equal(leaf.tensor, before[leaf.id]) for leaf in toy.leaves)


def test_weights_tied_in_the_model_are_one_leaf() -> None:
    """A table that is also the head is perturbed with one z and moved once, by every kind of direction."""
    for toy in (mixed(), language_model("llama tied"), language_model("gpt2"), language_model("bert mlm")):
        storages = {parameter.data_ptr() for parameter in toy.model.parameters()}
        assert len({leaf.tensor.data_ptr() for leaf in toy.leaves}) == len(toy.leaves) <= len(storages)
        assert any(len(leaf.sites) > 1 for leaf in toy.leaves)
        for method in ("mezo", "grzo"):
            before = toy.weights()
            step = take_step(method, toy)
            for leaf in toy.leaves:
                if len(leaf.sites) == 1:
                    continue
                (direction,) = step.directions
                z = [direction.tensor(leaf)] if direction.shared else [direction.of(leaf, i) for i in range(toy.count)]
                expected: Any = sum(c * one for c, one in zip(step.coefficients, z, strict=True))
                assert torch.allclose(before[leaf.id] - leaf.tensor, 1e-3 * expected, rtol=1e-9, atol=1e-15)
                sites: Any = leaf.sites
                assert all(site.parameter.data_ptr() == leaf.tensor.data_ptr() for site in sites)


def test_parts_that_make_no_sense_together_are_refused() -> None:
    """A deviation of one number raises and names both parts, at composition or when the batch decides."""
    with pytest.raises(ValueError, match=r"Normalise.*Fresh"):
        build("fzoo", directions=1)
    with pytest.raises(ValueError, match=r"CentredRank.*Fresh"):
        build("openai-es", directions=1)
    toy = least_squares(count=1)
    before = toy.weights()
    grzo: Any = build("grzo", scale="std").prepared(toy.leaves)
    assert grzo.shaping == Normalise("std")
    with pytest.raises(ValueError, match="deviation"):
        grzo.step(toy.leaves, toy.losses(), Key(0, 0), 1.0, 1e-3, {})
    assert all(torch.equal(leaf.tensor, before[leaf.id]) for leaf in toy.leaves)
    with pytest.raises(ValueError, match="unknown method"):
        build("mezoo")
    with pytest.raises(ValueError, match="no option"):
        build("mezo", pool=3)
    losses = toy.losses()
    losses.per_example = None
    with pytest.raises(ValueError, match="no per-example carrier"):
        build("grzo").step(toy.leaves, losses, Key(0, 0), 1.0, 1e-3, {})


def test_rademacher_probes_are_exact_at_powers_of_two() -> None:
    """With signs and eps = 2^-10 even in-place float32 returns exactly for weights on that grid."""
    toy = least_squares(dtype=torch.float32)
    toy.leaves[0].tensor.copy_(torch.tensor([[1.5, -0.25, 3.0]]))
    before = toy.weights()
    for step in range(100):
        with toy.losses(in_place=True).along(Direction(Key(0, step), Rademacher())) as at:
            at(2.0**-10), at(-(2.0**-10))
    assert torch.equal(toy.leaves[0].tensor, before[toy.leaves[0].id])
