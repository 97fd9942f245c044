"""Updates: descent, momentum and Adam against torch.optim and explicit buffers; decay, floor, 16-bit
rounding.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.support.toys import Toy, flat, gradient, least_squares, mixed
from zocore.directions.laws import Combination, Direction, Gaussian
from zocore.directions.per_example import PerExample, WeightedExamples
from zocore.methods import build
from zocore.noise import addressed
from zocore.noise.addressed import Key, Purpose, address
from zocore.step.samplers import Fresh, OnePerExample
from zocore.step.step import Backprop, Method
from zocore.step.update import Adam, Gradient, Momentum, Sgd, Update, estimate
from zocore.weights.leaf import TILE, Leaf
from zocore.weights.rounding import store

LR = 0.05
OPTIMISERS = [
    (Sgd(), lambda p: torch.optim.SGD(p, LR)),
    (Momentum(0.8), lambda p: torch.optim.SGD(p, LR, momentum=0.8)),
    (Adam(), lambda p: torch.optim.Adam(p, LR)),
    (Adam(0.7, 0.9, 1e-3), lambda p: torch.optim.Adam(p, LR, betas=(0.7, 0.9), eps=1e-3)),
]


def torch_run(toy: Toy, make, steps: int) -> torch.Tensor:
    sites: list[Any] = [leaf.sites[0] for leaf in toy.leaves]
    parameters = [site.parameter.requires_grad_(True) for site in sites]
    optimiser = make(parameters)
    for _ in range(steps):
        optimiser.zero_grad()
        toy.forward(torch.arange(toy.count)).mean().backward()
        optimiser.step()
    for parameter in parameters:
        parameter.requires_grad_(False)
    return flat(toy.weights())


@pytest.mark.parametrize(("update", "make"), OPTIMISERS, ids=["sgd", "momentum", "adam", "adam with other constants"])
def test_backprop_with_each_update_is_torch_optim(update: Update, make) -> None:
    """Six steps from the true gradient end where torch.optim ends, on a network with a tied table."""
    toy, state = mixed(), {}
    method = Backprop("reference", update)
    for step in range(6):
        method.step(toy.leaves, toy.losses(), Key(0, step), LR, 0.0, state)
    assert torch.allclose(flat(toy.weights()), torch_run(mixed(), make, 6), rtol=0, atol=1e-12)


def test_decoupled_decay_is_torch_adamw() -> None:
    """Adam with decay is AdamW where every tensor decays."""
    toy, state = least_squares(kind="smooth", width=4, height=2), {}
    method = Backprop("adamw", Adam(decay=0.3))
    for step in range(6):
        method.step(toy.leaves, toy.losses(), Key(0, step), LR, 0.0, state)
    other = least_squares(kind="smooth", width=4, height=2)
    expected = torch_run(other, lambda p: torch.optim.AdamW(p, LR, weight_decay=0.3), 6)
    assert torch.allclose(flat(toy.weights()), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", [Fresh(3), OnePerExample()], ids=["shared", "per example"])
@pytest.mark.parametrize(("update", "make"), OPTIMISERS, ids=["sgd", "momentum", "adam", "adam with other constants"])
def test_zeroth_order_with_each_update_is_torch_optim_on_the_explicit_estimate(update: Update, make, sampler) -> None:
    """The estimate built whole and given to torch.optim ends where the tile-by-tile update ends."""
    toy, state = mixed(), {}
    method = Method("m", sampler, update=update)
    parameters = [torch.nn.Parameter(leaf.tensor.clone()) for leaf in toy.leaves]
    optimiser = make(parameters)
    for number in range(6):
        step = method.step(toy.leaves, toy.losses(), Key(0, number), LR, 1e-3, state)
        g = estimate(step.directions, step.coefficients, step.touched)
        for leaf, parameter in zip(toy.leaves, parameters, strict=True):
            whole = torch.zeros_like(leaf.matrix)
            g.displace(whole, whole, leaf, 1.0)
            parameter.grad = whole.view(leaf.tensor.shape)
        optimiser.step()
    explicit = torch.cat([parameter.detach().flatten() for parameter in parameters])
    assert torch.allclose(flat(toy.weights()), explicit, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "update", [Sgd(decay=0.5), Momentum(decay=0.5), Adam(decay=0.5)], ids=["sgd", "momentum", "adam"]
)
def test_decay_acts_on_names_that_are_not_exempt(update: Update) -> None:
    """With g = 0 a weight shrinks to theta (1 - lr decay) exactly, and biases and layer norms stay
    bitwise.
    """
    toy = mixed()
    names = {leaf.name: leaf for leaf in toy.leaves}
    assert {name for name, leaf in names.items() if not leaf.decay} == {"inner.bias", "norm.bias"}
    toy.leaves = [replace(leaf, decay="norm" not in leaf.name and leaf.decay) for leaf in toy.leaves]
    before = toy.weights()
    nothing = Gradient({leaf.id: torch.zeros_like(leaf.tensor) for leaf in toy.leaves})
    for leaf in toy.leaves:
        update(leaf, nothing, 0.1, Key(0, 0), {})
        expected = before[leaf.id] * (1 - 0.1 * 0.5) if leaf.decay else before[leaf.id]
        assert torch.equal(leaf.tensor, expected)


def test_decay_adds_to_the_step_of_each_kind_of_estimate() -> None:
    """theta -= lr (g + decay theta), rows that no example looked up included."""
    for method, knobs in (("mezo", {}), ("grzo", {"scale": "raw"}), ("sgd", {})):
        ends = []
        for decay in (0.0, 0.5):
            toy = mixed()
            before = toy.weights()
            build(method, update=Sgd(decay), **knobs).step(toy.leaves, toy.losses(), Key(0, 1), 0.1, 1e-3, {})
            ends.append(toy.weights())
        for leaf in toy.leaves:
            extra = ends[1][leaf.id] - ends[0][leaf.id]
            expected = -0.1 * 0.5 * before[leaf.id] if leaf.decay else torch.zeros_like(extra)
            assert torch.allclose(extra, expected, rtol=0, atol=1e-14), leaf.name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_no_update_goes_below_the_floor(dtype: torch.dtype) -> None:
    """A leaf with a floor is clamped after the step, and only where the step would cross it."""
    free, floored = (Leaf("s", 0, torch.full((40, 5), 0.5, dtype=dtype), (), floor=f) for f in (None, 0.25))
    direction = Direction(Key(0, 0), Gaussian())
    for leaf in (free, floored):
        Sgd()(leaf, estimate([direction], [1.0]), 0.5, Key(0, 0), {})
    assert float(free.tensor.min()) < 0
    assert torch.equal(floored.tensor, free.tensor.clamp(min=0.25))


def test_estimates_are_the_same_in_any_tile() -> None:
    """Any rows of sum_k c_k z_k and sum_i a_i Delta_i are rows of the whole; only touched rows of a table
    are not 0.
    """
    leaf = Leaf("w", 5, torch.zeros(30, 7, dtype=torch.float64), ())
    directions = PerExample(Key(0, 1), Gaussian(), 3)
    touched = {5: [torch.tensor([0, 4]), torch.tensor([4, 29]), torch.tensor([7])]}
    sums: list[Any] = [
        Combination(tuple((0.3 * k - 0.5, Direction(Key(0, 0, k), Gaussian())) for k in range(3))),
        WeightedExamples(directions, (0.5, -2.0, 1.0)),
        WeightedExamples(directions, (0.5, -2.0, 1.0), touched),
    ]
    for g in sums:
        whole = torch.zeros(30, 7, dtype=torch.float64)
        g.displace(whole, whole, leaf, 2.0)
        for rows, count in ((0, 11), (11, 19), (torch.tensor([29, 4, 4]), 3)):
            part = torch.ones(count, 7, dtype=torch.float64)
            g.displace(part, part, leaf, 2.0, rows)
            chosen = whole[rows : rows + count] if isinstance(rows, int) else whole[rows]
            assert torch.allclose(part, 1 + chosen, rtol=0, atol=1e-13)
    moved = whole.abs().sum(1).nonzero().flatten()
    assert moved.tolist() == g.rows(leaf).tolist() == [0, 4, 7, 29]


HALVES = [torch.bfloat16, torch.float16]


def rounded(exact: torch.Tensor, dtype: torch.dtype, step: int = 0) -> torch.Tensor:
    target = torch.empty(exact.shape, dtype=dtype)
    store(target, exact, address(Key(0, step), 0, Purpose.ROUNDING), 0)
    return target


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [3.0, 0.02, 2.0**-14, 1e-5, 3e-8, 0.0])
def test_stochastic_rounding_is_right_on_average_and_within_one_ulp(dtype: torch.dtype, size: float) -> None:
    """Normal and subnormal numbers of both signs round to a neighbour, with a mean exact within 5 standard
    errors.
    """
    values = size * torch.linspace(-1.9, 1.9, 41).float()
    many = values.repeat(20_000, 1)
    stored = rounded(many, dtype).float()
    up, down = (torch.nextafter(values.to(dtype), torch.tensor(s * torch.inf, dtype=dtype)).float() for s in (1, -1))
    assert bool(((stored - values).abs() < torch.maximum(up - down, torch.tensor(2.0**-24))).all())
    # every value is one of the two neighbours: no error reaches one ulp
    assert all(len(column.unique()) <= 2 for column in stored.T)
    spread = torch.stack([column.unique()[[0, -1]] for column in stored.T])
    assert bool(((spread[:, 0] <= values) & (values <= spread[:, 1])).all())
    error = stored.double().std(0) / 20_000**0.5
    assert bool(((stored.double().mean(0) - values.double()).abs() <= 5 * error + 1e-12 * abs(size)).all())


@pytest.mark.parametrize("dtype", HALVES)
def test_numbers_that_fit_are_stored_unchanged(dtype: torch.dtype) -> None:
    """What the dtype holds exactly stays bitwise, zero, subnormal and largest ones included."""
    info = torch.finfo(dtype)
    grid = torch.tensor([0.0, 1.0, -1.5, info.tiny, info.tiny / 4, -info.tiny / 2, info.max, -info.max]).to(dtype)
    assert torch.equal(rounded(grid.float().repeat(100, 1), dtype), grid.repeat(100, 1))
    with pytest.raises(TypeError, match="bfloat16 and float16"):
        store(torch.empty(3), torch.ones(3), address(Key(0, 0), 0, Purpose.ROUNDING), 0)


@pytest.mark.parametrize("dtype", HALVES)
def test_small_steps_survive_in_half_precision(dtype: torch.dtype) -> None:
    """lr g = 1e-6 on weights of 0.02: stored moves have slope 1 on the wanted ones, where nearest rounding
    loses them.
    """
    weights = 0.02 * addressed.normals(address(Key(9, 0), 0, Purpose.INITIAL), 0, 400_000)
    leaf = Leaf("w", 0, weights.to(dtype).view(400, -1), ())
    before, direction = leaf.tensor.float(), Direction(Key(0, 0), Gaussian())
    wanted = -1e-6 * direction.tensor(leaf)
    Sgd()(leaf, estimate([direction], [1.0]), 1e-6, Key(0, 0), {})
    moved = leaf.tensor.float() - before
    slope = float((moved * wanted).sum() / wanted.square().sum())
    error = float((moved - wanted).std()) / float(wanted.norm())
    assert slope == pytest.approx(1, abs=5 * error)
    nearest = (before + wanted).to(dtype).float() - before
    assert abs(float((nearest * wanted).sum() / wanted.square().sum()) - 1) > 10 * error


def test_rounding_of_a_large_leaf_uses_each_word_once() -> None:
    """A leaf of several tiles is rounded as one: its random words are addressed by element."""
    rows = 2 * TILE // 1024 + 3
    leaf = Leaf("w", 0, torch.full((rows, 1024), 1.0, dtype=torch.bfloat16), ())
    assert len(list(leaf.tiles())) > 1
    g = Gradient({0: torch.full((rows, 1024), 1.0)})
    Sgd()(leaf, g, 1e-3, Key(0, 7), {})
    exact = torch.tensor(1.0) - torch.tensor(1e-3)
    target = torch.empty_like(leaf.tensor)
    store(target, exact.expand(rows, 1024).contiguous(), address(Key(0, 7), 0, Purpose.ROUNDING), 0)
    assert torch.equal(leaf.tensor, target)
    assert len(leaf.tensor.unique()) == 2


def test_buffers_are_kept_per_leaf_in_full_precision() -> None:
    """Adam keeps two float32 buffers a leaf for 16-bit weights, float64 ones for float64; plain descent
    keeps none.
    """
    for dtype, kept in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        toy, state = mixed(dtype=dtype), {}
        build("mezo", update=Adam()).step(toy.leaves, toy.losses(), Key(0, 0), 0.01, 1e-2, state)
        buffers = {name: t for name, t in state.items() if name[0] != "steps"}
        assert len(buffers) == 2 * len(toy.leaves)
        assert {t.dtype for t in buffers.values()} == {kept}
        state.clear()
        build("mezo").step(toy.leaves, toy.losses(), Key(0, 1), 0.01, 1e-2, state)
        assert not state


def test_backprop_sees_the_mean_over_all_micro_batches() -> None:
    """The gradient of a split batch is that of the whole, and leaves no requires_grad behind."""
    toy = mixed()
    whole, split = gradient(toy), toy.losses([2, 3]).gradient()[1]
    assert all(torch.allclose(whole[number], split[number], rtol=0, atol=1e-14) for number in whole)
    assert not any(parameter.requires_grad for parameter in toy.model.parameters())
