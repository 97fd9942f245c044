"""GRZO: batched forwards and closed-form update are what one direction per example means, on every kind of
layer.
"""

from dataclasses import replace
from math import pi, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support import reference
from tests.support.flat import theta_of
from tests.support.measured import record
from tests.support.toys import CAUSAL, NAMES, Toy, flat, gradient, language_model, least_squares, mixed
from zocore.carriers.flipout import Flipout
from zocore.carriers.layout import Layout
from zocore.carriers.scratch import Scratch
from zocore.directions import per_example
from zocore.directions.laws import Direction, Gaussian, LowRank, Masked, Rademacher
from zocore.directions.per_example import PerExample, WeightedExamples
from zocore.methods import build
from zocore.noise.addressed import Key, Purpose
from zocore.step.difference import Central
from zocore.step.losses import Losses, Part
from zocore.subspaces.by_name import all_weights
from zocore.weights.leaf import Leaf

B = 5
EVERY = ["mixed", *NAMES]
LAWS = (Gaussian(), Rademacher(), LowRank(3), Masked(Gaussian(), 0.4))
CPU = torch.device("cpu")


def grzo_shaping(scale: str) -> Any:
    """GRZO's shaping by a scale."""
    method: Any = build("grzo", scale=scale)
    return method.shaping


def toy_of(name: str) -> Toy:
    return mixed() if name == "mixed" else language_model(name, count=B)


def explicit(toy: Toy, directions: PerExample, example: int, offset: float) -> float:
    """Loss of one example, alone and unpadded, under its own explicit weights."""
    with toy.moved(lambda leaf: offset * directions.of(leaf, example)), torch.no_grad():
        return float(toy.alone(example))


@pytest.mark.parametrize("name", EVERY)
def test_each_example_sees_its_own_weights(name: str) -> None:
    """G1: the batched forward gives each example the loss it has alone, unpadded, under theta +- sigma
    Delta_i.
    """
    toy = toy_of(name)
    for law in LAWS if name in ("mixed", "llama tied", "gpt2") else LAWS[:1]:
        directions = PerExample(Key(0, 1), law.prepared(toy.leaves), B)
        plus, minus = toy.carried(directions, (0.05, -0.05))
        assert float((plus - minus).abs().min()) > 1e-6
        for example in range(B):
            for losses, offset in ((plus, 0.05), (minus, -0.05)):
                assert float(losses[example]) == pytest.approx(explicit(toy, directions, example, offset), abs=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_the_update_is_the_weighted_sum_of_the_directions(name: str) -> None:
    """G2: theta moves by -lr sum a_i Delta_i on every tensor, a table that is only looked up on each
    example's tokens.
    """
    for law in LAWS if name in ("mixed", "llama", "gpt2") else LAWS[:1]:
        toy, lr = toy_of(name), 0.5
        before = toy.weights()
        prepared = build("grzo", law=law, scale="raw").prepared(toy.leaves)
        used = {leaf.id: [in_use(toy, leaf, i) for i in range(B)] for leaf in toy.leaves if is_table(leaf)}
        step = prepared.step(toy.leaves, toy.losses(), Key(0, 1), lr, 1e-3, {})
        directions = step.directions[0]
        assert len(step.coefficients) == B
        assert len(set(step.coefficients)) == B
        for leaf in toy.leaves:
            moved = before[leaf.id] - leaf.tensor
            with_old = replace(leaf, tensor=before[leaf.id])  # a mask reads the weights of the step's start
            parts = [directions.of(with_old, i) for i in range(B)]
            if leaf.id in used:
                parts = [part * rows.unsqueeze(1) for part, rows in zip(parts, used[leaf.id], strict=True)]
            expected = lr * sum(a * part for a, part in zip(step.coefficients, parts, strict=True))
            assert torch.allclose(moved, torch.as_tensor(expected), rtol=0, atol=1e-12), leaf.name


def is_table(leaf: Leaf) -> bool:
    return all(isinstance(site.module, nn.Embedding) for site in leaf.sites)


def in_use(toy: Toy, leaf: Leaf, example: int) -> Tensor:
    """1 for the rows that an example's real tokens look up: found by autograd, not by the engine."""
    return (gradient(toy, example)[leaf.id].abs().sum(1) > 0).double()


@pytest.mark.parametrize("name", EVERY)
def test_differences_are_per_example_directional_derivatives(name: str) -> None:
    """G3: (l_i+ - l_i-) / 2 sigma = <grad l_i, Delta_i> by autograd of each example's own loss."""
    toy, sigma = toy_of(name), 1e-5
    directions = PerExample(Key(0, 1), Gaussian(), B)
    found = Central()(toy.losses(), [directions], sigma).projected_grad
    for example in range(B):
        grads = gradient(toy, example)
        exact = sum(float((grads[leaf.id] * directions.of(leaf, example)).sum()) for leaf in toy.leaves)
        assert float(found[example]) == pytest.approx(exact, rel=1e-6, abs=1e-8)


def test_the_base_is_bitwise_the_same_in_both_forwards_and_the_update(monkeypatch) -> None:
    """G4: U of every leaf is drawn with the same bits in plus, minus and update, and forwards leave the
    weights bitwise.
    """
    toy = language_model("gpt2", dtype=torch.float32)
    drawn: dict[int, list[bytes]] = {}
    original, passed = Direction.displace, Direction.shift

    def shift(self, leaf):  # what the update asks for
        u = torch.zeros_like(leaf.matrix)
        original(self, u, u, leaf, 1.0, 0)
        drawn.setdefault(leaf.id, []).append(u.numpy().tobytes())
        return passed(self, leaf)

    def displace(self, out, base, leaf, c, rows=0):
        if isinstance(rows, int) and rows == 0 and len(out) == len(leaf.matrix):
            u = torch.zeros_like(out)
            original(self, u, u, leaf, 1.0, 0)
            drawn.setdefault(leaf.id, []).append(u.numpy().tobytes())
        original(self, out, base, leaf, c, rows)

    monkeypatch.setattr(Direction, "displace", displace)
    monkeypatch.setattr(Direction, "shift", shift)
    before = toy.weights()
    toy.carried(PerExample(Key(0, 1), Gaussian(), B), (1e-3, -1e-3))
    assert all(torch.equal(leaf.tensor, before[leaf.id]) for leaf in toy.leaves)
    build("grzo").step(toy.leaves, toy.losses(), Key(0, 1), 1e-3, 1e-3, {})
    assert len(drawn) == len([leaf for leaf in toy.leaves if not is_table(leaf)])
    for number, draws in drawn.items():
        # two forwards by hand, two of the step and its update; a table's own forwards draw only rows
        assert len(draws) >= (1 if len(toy.leaves[number].sites) > 1 else 5)
        assert len(set(draws)) == 1


@pytest.mark.parametrize("name", ["mixed", "llama", "opt", "bert"])
def test_micro_batches_with_global_example_numbers_are_the_full_batch(name: str) -> None:
    """G5: losses, coefficients and weights after a step do not depend on how the batch is split."""
    ends = []
    for sizes in ([5], [2, 3], [1, 1, 1, 2]):
        toy = toy_of(name)
        step = build("grzo").step(toy.leaves, toy.losses(sizes), Key(0, 1), 0.1, 1e-3, {})
        ends.append((torch.tensor(step.coefficients), flat(toy.weights())))
    for coefficients, weights in ends[1:]:
        # 1e-9 on the differences: rounding of losses over 2 sigma
        assert torch.allclose(coefficients, ends[0][0], rtol=0, atol=1e-9)
        assert torch.allclose(weights, ends[0][1], rtol=0, atol=1e-9)


def test_several_rows_of_one_question_share_its_direction() -> None:
    """Rows that are options of one example see one Delta_i; the update counts each token of the question
    once.
    """
    toy = language_model("llama", count=6)
    examples = torch.tensor([0, 0, 1, 1, 2, 2])
    layout = Layout(examples, toy.mask.bool())

    def evaluate() -> Tensor:
        return -toy.forward(torch.arange(6)).view(3, 2).log_softmax(1)[:, 0]

    losses = Losses([Part(layout, evaluate)], toy.leaves, Scratch(toy.leaves), Flipout(toy.leaves, 1))
    assert losses.count == 3
    directions = PerExample(Key(0, 2), Gaussian(), 3)
    with losses.along(directions) as at:
        seen = at(0.05)
    for example in range(3):
        with toy.moved(lambda leaf, i=example: 0.05 * directions.of(leaf, i)):
            assert float(seen[example]) == pytest.approx(float(evaluate()[example]), abs=1e-12)
    table = toy.leaf("model.embed_tokens.weight")
    for example, rows in enumerate(losses.touched[table.id]):
        real = toy.ids[examples == example][toy.mask[examples == example].bool()]
        assert rows.tolist() == sorted(set(real.tolist()))


def test_without_signs_it_is_mezo(monkeypatch) -> None:
    """G6: with R = S = 1 and raw differences the step is MeZO's along U, and B = 1 is MeZO along Delta_1."""
    ends = []
    for method in ("grzo", "mezo"):
        toy = mixed()
        # a table that is only looked up moves in used rows alone, unlike MeZO's
        toy.leaves = [leaf for leaf in toy.leaves if leaf.name != "places.weight"]
        with monkeypatch.context() as patch:
            patch.setattr(per_example, "draw_signs", lambda k, leaf, p, rows, width, d: torch.ones(rows, width))
            knobs = {"scale": "raw"} if method == "grzo" else {}
            build(method, **knobs).step(toy.leaves, toy.losses(), Key(0, 1), 0.1, 1e-3, {})
        ends.append(flat(toy.weights()))
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-12)

    toy = least_squares(count=1)
    before = theta_of(toy)
    delta = PerExample(Key(0, 1), Gaussian(), 1).of(toy.leaves[0], 0).flatten().numpy()
    build("grzo", scale="raw").step(toy.leaves, toy.losses(), Key(0, 1), 0.1, 1e-3, {})
    (grad,) = gradient(replace_weights(least_squares(count=1), before)).values()
    np.testing.assert_allclose(theta_of(toy), before - 0.1 * float(grad.flatten().numpy() @ delta) * delta, atol=1e-9)


def replace_weights(toy: Toy, theta: np.ndarray) -> Toy:
    toy.leaves[0].tensor.copy_(torch.tensor(theta).view(toy.leaves[0].tensor.shape))
    return toy


@pytest.mark.parametrize("scale", ["raw", "std", "rms"])
@pytest.mark.parametrize("shape", [(3, 1), (3, 2)])
def test_one_step_is_the_papers(scale: str, shape: tuple[int, int]) -> None:
    """GRZO on a matrix equals the paper's equations in NumPy; zocore's lr is the paper's over 2 sigma, but
    for raw.
    """
    sigma, lr, count = 1e-1, 0.05, 4
    toy = least_squares(count, *shape, kind="smooth")
    x, y, theta = toy.model.inputs.numpy(), toy.model.targets.numpy(), theta_of(toy)
    leaf, directions = toy.leaves[0], PerExample(Key(0, 3), Gaussian(), count)
    u = directions.base.tensor(leaf).numpy()
    r, s = directions.row_signs(leaf, CPU).numpy(), directions.column_signs(leaf, CPU).numpy()
    deltas = [reference.flip(u, r[i], s[i]) for i in range(count)]

    def loss(i: int, weights: np.ndarray) -> float:
        out = x[i] @ weights.reshape(leaf.tensor.shape).T
        return float((np.log1p((out - y[i]) ** 2) + np.sin(out)).sum())

    expected = reference.grzo(loss, theta, deltas, sigma, lr, scale)
    unit = lr if scale == "raw" else lr / (2 * sigma)
    build("grzo", scale=scale).step(toy.leaves, toy.losses(), Key(0, 3), unit, sigma, {})
    assert np.abs(expected - theta).max() > 1e-3
    np.testing.assert_allclose(theta_of(toy) - theta, expected - theta, rtol=1e-6, atol=1e-12)


def test_sigma_zero_negation_and_order() -> None:
    """G7: at offset 0 nothing differs; swapping the sides negates d; the order of examples in a batch does
    not matter.
    """
    toy = mixed()
    directions = PerExample(Key(0, 1), Gaussian(), B)
    zero, plus, minus = toy.carried(directions, (0.0, 1e-2, -1e-2))
    with torch.no_grad():
        assert torch.equal(zero, toy.forward(torch.arange(B)))
    swapped_minus, swapped_plus = toy.carried(directions, (-1e-2, 1e-2))
    assert torch.equal(swapped_plus - swapped_minus, -(minus - plus))
    # sequences in another order keep their example numbers, hence their directions
    order = torch.tensor([3, 0, 4, 1, 2])
    layout = Layout(order, toy.mask[order].bool())
    part = Part(layout, lambda: toy.forward(order))
    losses = Losses([part], toy.leaves, Scratch(toy.leaves), Flipout(toy.leaves, 1))
    with losses.along(directions) as at:
        assert torch.allclose(at(1e-2), plus[order], rtol=0, atol=1e-13)


@pytest.mark.parametrize("purpose", [Purpose.ROW_SIGN, Purpose.COLUMN_SIGN])
def test_signs_of_the_examples_are_independent(purpose: Purpose) -> None:
    """G9: fair, of full rank, no two examples equal or opposite, and different in each step and leaf."""
    leaf, other = Leaf("w", 3, torch.zeros(200, 200), ()), Leaf("v", 4, torch.zeros(200, 200), ())
    vectors = []
    for key, one in ((Key(0, 0), leaf), (Key(0, 1), leaf), (Key(1, 0), leaf), (Key(0, 0), other)):
        directions = PerExample(key, Gaussian(), 32)
        draw = directions.row_signs if purpose == Purpose.ROW_SIGN else directions.column_signs
        signs = draw(one, torch.device("cpu"))
        assert np.linalg.matrix_rank(signs.numpy()) == 32
        assert abs(float(signs.mean())) < 5 / sqrt(signs.numel())
        vectors.append(signs)
    stacked = torch.cat(vectors)
    assert float((stacked @ stacked.T / 200).fill_diagonal_(0).abs().max()) < 6 / sqrt(200)
    assert torch.equal(directions.row_signs(other, CPU)[:3], replace(directions, count=3).row_signs(other, CPU))


def cosines(method: str, count: int, trials: int, alike: float) -> tuple[np.ndarray, float]:
    """Cosines of steps with the gradient on a block of 32 x 32 weights, and B_eff of a batch of `alike`
    examples.
    """
    toy = least_squares(count, 32, 32, kind="smooth")
    for fixed in (toy.model.inputs, toy.model.targets):
        fixed.copy_(alike * fixed[:1] + (1 - alike) * fixed)
    grads = torch.stack([flat(gradient(toy, i)) for i in range(count)])
    mean = grads.mean(0)
    effective = count * float(mean.square().sum() / grads.square().sum(1).mean())
    before, found = toy.weights(), []
    knobs = {"scale": "raw"} if method == "grzo" else {}
    for step in range(trials):
        build(method, **knobs).step(toy.leaves, toy.losses(), Key(0, step), 1.0, 1e-5, {})
        moved = flat(before) - flat(toy.weights())
        found.append(float(moved @ mean / moved.norm() / mean.norm()))
        toy.set(before)
    return np.array(found), effective


@pytest.mark.parametrize(("count", "alike"), [(8, 0.9), (16, 0.9), (16, 0.0)])
def test_cosines_of_grzo_follow_the_law(count: int, alike: float) -> None:
    """G10: the rms cosine is sqrt(B_eff / d) where examples agree; the part 1 - B_eff / B matters where
    they do not.
    """
    found, effective = cosines("grzo", count, 400, alike)
    rms = sqrt((found**2).mean())
    # for equal norms E cos^2 = (rho^2 sum x^2 + (1 - rho^2)) / d with rho^2 = B_eff / B and x normal;
    # the s.e. of the rms over 400 trials is 1 % where examples agree (B squares), else 3.5 % (of one)
    wanted = sqrt((effective + 1 - effective / count) / 1024)
    assert rms == pytest.approx(wanted, rel=0.05 if alike else 0.1)
    if alike > 0.5:
        assert effective > count / 2
        assert rms == pytest.approx(sqrt(effective / 1024), rel=0.05)


def test_cosines_of_mezo_follow_the_law() -> None:
    """G10: MeZO's mean |cosine| is sqrt(2 / (pi d)) whatever the batch."""
    found, _ = cosines("mezo", 4, 900, 0.5)
    assert np.abs(found).mean() == pytest.approx(sqrt(2 / (pi * 1024)), rel=0.05)  # s.e. 2.5 %


@pytest.mark.parametrize("law", [Gaussian(), Rademacher()], ids=["gaussian", "rademacher"])
def test_raw_steps_average_to_the_gradient_with_the_derived_length(law) -> None:
    """G11: the mean of raw estimates is the gradient, and E ||g||^2 the closed form, both within 5 standard
    errors.
    """
    count, trials = 4, 800
    toy = least_squares(count, 3, 2, kind="smooth")
    grads = torch.stack([flat(gradient(toy, i)) for i in range(count)])
    d, fourth, base = 6, 3 if isinstance(law, Gaussian) else 1, toy.leaves[0]
    samples = []
    for step in range(trials):
        directions = PerExample(Key(0, step), law, count)
        a = Central()(toy.losses(), [directions], 1e-4).projected_grad
        g = torch.zeros(2, 3, dtype=torch.float64)
        WeightedExamples(directions, tuple((a / count).tolist())).displace(g, g, base, 1.0)
        samples.append(g.flatten())
    stacked = torch.stack(samples)
    error = stacked.std(0) / sqrt(trials)
    assert bool(((stacked.mean(0) - grads.mean(0)).abs() < 5 * error).all())
    inner = grads @ grads.T
    own, cross = inner.diagonal().sum(), inner.sum() - inner.diagonal().sum()
    law_length = float((d + fourth - 1) * own + fourth * cross) / count**2
    lengths = stacked.square().sum(1)
    assert float(lengths.mean()) == pytest.approx(law_length, abs=5 * float(lengths.std()) / sqrt(trials))


def test_the_step_has_the_length_that_lr_says() -> None:
    """G12: the rms move per weight is lr rms(a) / sqrt B with the unit-step lr, so lr / sqrt B under rms
    scaling.
    """
    toy = least_squares(16, 60, 50, kind="smooth")
    before = flat(toy.weights())
    build("grzo").step(toy.leaves, toy.losses(), Key(0, 0), 1e-3, 1e-3, {})
    moved = flat(toy.weights()) - before
    assert float(moved.square().mean().sqrt()) == pytest.approx(1e-3 / 4, rel=0.05)  # 3,000 weights: s.e. 2 %


def test_degenerate_batches_have_defined_steps() -> None:
    """G13: B = 1 moves by the sign, identical differences and all-zero ones stay finite, one NaN skips the
    step.
    """
    toy = least_squares(count=1)
    before, directions = theta_of(toy), PerExample(Key(0, 0), Gaussian(), 1)
    step = build("grzo").step(toy.leaves, toy.losses(), Key(0, 0), 0.1, 1e-3, {})
    delta = directions.of(toy.leaves[0], 0).flatten().numpy()
    sign = np.sign(float(step.measured.projected_grad))
    np.testing.assert_allclose(theta_of(toy), before - 0.1 * sign * delta, rtol=1e-6)

    for scale in ("rms", "std", "raw"):
        for value in (0.0, float("nan"), float("inf")):
            toy = least_squares()
            before, original = theta_of(toy), toy.forward
            toy.forward = lambda rows, o=original, v=value: torch.where(rows == 2, o(rows) * v, o(rows) * 0)
            step = build("grzo", scale=scale).step(toy.leaves, toy.losses(), Key(0, 0), 0.1, 1e-3, {})
            assert step.skipped == (value != 0)
            assert np.array_equal(theta_of(toy), before)

    # under std identical differences are divided by the guard alone, as published
    for scale in ("rms", "raw"):
        shaped = grzo_shaping(scale)(record(*[0.3] * 4))
        assert shaped.tolist() == pytest.approx([0.25 if scale == "rms" else 0.3 / 4] * 4, rel=1e-6)
    assert bool(torch.isfinite(grzo_shaping("std")(record(*[0.3] * 4))).all())


def test_fitted_examples_do_not_blow_rounding_noise_up() -> None:
    """Below the floor of 1e-3 the step shrinks with the differences instead of keeping its length."""
    shaping = grzo_shaping("rms")
    small = shaping(record(1e-6, -1e-6))
    assert small.abs().tolist() == pytest.approx([0.5e-3, 0.5e-3], rel=1e-4)


@pytest.mark.parametrize("name", ["mixed", "llama", "llama tied", "bert"])
def test_each_storage_is_updated_once_and_fires(name: str, monkeypatch) -> None:
    """G14: every leaf is moved exactly once a step, and its layer answered in both forwards."""
    toy = toy_of(name)
    moved, fired = [], []
    grzo: Any = build("grzo")
    original_call, original_signs = type(grzo.update).__call__, PerExample.row_signs
    monkeypatch.setattr(
        type(grzo.update),
        "__call__",
        lambda self, leaf, *rest: (moved.append(leaf.id), original_call(self, leaf, *rest)),
    )
    monkeypatch.setattr(
        PerExample,
        "row_signs",
        lambda self, leaf, device: (fired.append(leaf.id), original_signs(self, leaf, device))[1],
    )
    grzo.step(toy.leaves, toy.losses(), Key(0, 0), 0.1, 1e-3, {})
    assert moved == [leaf.id for leaf in toy.leaves]
    for leaf in toy.leaves:
        assert fired.count(leaf.id) >= 2 * len([s for s in leaf.sites if not list(s.module.children())]) + 1


@pytest.mark.parametrize("name", [name for name in CAUSAL if name != "llama tied"])
def test_rows_that_no_real_token_looked_up_stay_bitwise(name: str) -> None:
    """Pad rows and unused tokens of a table that is not the head do not move; used ones do."""
    toy = language_model(name, dtype=torch.float32)
    before, tables = toy.weights(), [leaf for leaf in toy.leaves if is_table(leaf)]
    assert tables or name == "qwen2"
    rows = {leaf.id: torch.stack([in_use(toy, leaf, i) for i in range(B)]).sum(0) > 0 for leaf in tables}
    build("grzo").step(toy.leaves, toy.losses(), Key(0, 1), 0.1, 1e-3, {})
    for leaf in tables:
        used = rows[leaf.id]
        changed = (leaf.tensor != before[leaf.id]).any(1)
        assert torch.equal(changed, used), leaf.name
        if leaf.name == "model.embed_tokens.weight":
            assert not changed[1]
            assert int(used.sum()) < len(used)


class Twice(nn.Module):
    """Looks its table up twice, and its one linear layer runs twice too."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = (
            nn.Embedding(12, 4, dtype=torch.float64),
            nn.Linear(4, 4, dtype=torch.float64),
        )

    def forward(self, ids: Tensor) -> Tensor:
        first = torch.tanh(self.layer(self.table(ids)))
        return self.layer(first + self.table(ids + 6)).square().sum((1, 2))


def test_a_module_that_runs_twice_has_one_direction_and_all_its_rows() -> None:
    """Shared layers use the same noise at each call, and a table's rows accumulate over calls."""
    torch.manual_seed(0)
    model = Twice().requires_grad_(False)
    ids = torch.tensor([[0, 1, 1], [2, 3, 0], [5, 5, 5]])
    toy = Toy(
        model,
        all_weights(model),
        3,
        lambda rows: model(ids[rows]),
        lambda i: model(ids[i : i + 1])[0],
        ids=ids,
    )
    directions = PerExample(Key(0, 1), Gaussian(), 3)
    (seen,) = toy.carried(directions, [0.1])
    for example in range(3):
        assert float(seen[example]) == pytest.approx(explicit(toy, directions, example, 0.1), abs=1e-12)
    before, table = toy.weights(), toy.leaf("table.weight")
    used = [in_use(toy, table, i) for i in range(3)]
    step = build("grzo", scale="raw").step(toy.leaves, toy.losses(), Key(0, 1), 0.1, 1e-3, {})
    parts = [directions.of(table, i) * used[i].unsqueeze(1) for i in range(3)]
    expected = 0.1 * sum(a * part for a, part in zip(step.coefficients, parts, strict=True))
    assert torch.allclose(before[table.id] - table.tensor, torch.as_tensor(expected), rtol=0, atol=1e-12)


def test_a_per_example_forward_costs_about_two() -> None:
    """Dense directions double every perturbed product; thin ones and tables cost less."""
    toy = language_model("llama")
    carrier = toy.losses().per_example
    assert carrier.cost(PerExample(Key(0, 0), Gaussian(), B)) == 2.0
    assert 1.0 < carrier.cost(PerExample(Key(0, 0), LowRank(2), B)) < 1.3
    losses = toy.losses()
    build("grzo").step(toy.leaves, losses, Key(0, 0), 0.1, 1e-3, {})
    assert (losses.forward_passes, losses.forward_cost) == (2, 4.0)
