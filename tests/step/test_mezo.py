"""MeZO and n-SPSA: the paper's step, the calculus behind it, and its statistics."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import reference
from tests.support.flat import flat_loss, theta_of, z_of
from tests.support.toys import Toy, flat, gradient, language_model, least_squares, mixed
from zocore.directions.laws import Direction, Gaussian, Rademacher
from zocore.methods import build
from zocore.noise import addressed
from zocore.noise.addressed import Key, Purpose, address
from zocore.step.difference import Central, Forward, Measured
from zocore.step.samplers import Fresh
from zocore.step.step import Method
from zocore.step.update import Momentum, Sgd, estimate


@pytest.mark.parametrize("kind", ["quadratic", "smooth"])
@pytest.mark.parametrize("in_place", [False, True])
def test_one_step_is_the_papers(kind: str, in_place: bool) -> None:
    """MeZO, n-SPSA and clipped MeZO on three parameters equal a NumPy transcription of the equations."""
    eps, lr = 1e-2, 0.3
    for method, knobs in (("mezo", {}), ("n-spsa", {"directions": 5}), ("qzo", {"clip": 0.1}), ("qzo", {})):
        toy = least_squares(kind=kind)
        theta, loss = theta_of(toy), flat_loss(toy)
        zs = [z_of(toy, Key(0, 3, number)) for number in range(5)]
        build(method, **knobs).step(toy.leaves, toy.losses(in_place=in_place), Key(0, 3), lr, eps, {})
        match method:
            case "mezo":
                expected = reference.mezo(loss, theta, zs[0], eps, lr)
            case "n-spsa":
                expected = reference.n_spsa(loss, theta, zs, eps, lr)
            case _:
                expected = reference.clipped(loss, theta, zs[0], eps, lr, knobs.get("clip", 100.0))
        assert np.abs(expected - theta).max() > 1e-3
        np.testing.assert_allclose(theta_of(toy), expected, rtol=0, atol=1e-12)


def measured(toy: Toy, eps: float, difference=None) -> float:
    losses = toy.losses()
    return float((difference or Central())(losses, Fresh(1)(Key(0, 1), losses, eps), eps).projected_grad)


def test_a_linear_loss_is_measured_exactly_at_any_eps() -> None:
    """L = a . theta gives g = a . z, and the step is -lr (a . z) z."""
    toy = least_squares(kind="linear", width=5, height=3)
    a = flat(gradient(toy)).numpy()
    z = z_of(toy, Key(0, 1))
    for eps in (1.0, 1e-1, 1e-3):
        for difference in (Central(), Forward()):
            assert measured(toy, eps, difference) == pytest.approx(a @ z, rel=1e-10)
    before = theta_of(toy)
    build("mezo").step(toy.leaves, toy.losses(), Key(0, 1), 0.1, 1.0, {})
    np.testing.assert_allclose(theta_of(toy) - before, -0.1 * (a @ z) * z, rtol=1e-10, atol=1e-14)


def test_a_quadratic_loss_is_measured_exactly_and_one_sided_is_off_by_its_curvature() -> None:
    """Central differences see z . grad L whatever eps; one-sided ones add eps/2 z . H z."""
    toy = least_squares(width=5, height=3)
    z, grad = z_of(toy, Key(0, 1)), flat(gradient(toy)).numpy()
    outputs = toy.model.inputs.numpy() @ z.reshape(3, 5).T
    curvature = (outputs**2).sum(1).mean()  # z . H z of the mean of half squares
    for eps in (1e-1, 1e-3):
        assert measured(toy, eps) == pytest.approx(grad @ z, rel=1e-9)
        assert measured(toy, eps, Forward()) == pytest.approx(grad @ z + eps / 2 * curvature, rel=1e-9)


def test_a_cubic_loss_is_off_by_a_sixth_of_its_third_derivative() -> None:
    """The error of a central difference is (eps^2 / 6) D^3 L[z, z, z], exactly for a cubic."""
    toy = least_squares(kind="cubic", width=5, height=3)
    z, grad = z_of(toy, Key(0, 1)), flat(gradient(toy)).numpy()
    third = 6 * ((toy.model.inputs.numpy() @ z.reshape(3, 5).T) ** 3).sum(1).mean()
    for eps in (0.3, 0.1):
        assert measured(toy, eps) - grad @ z == pytest.approx(eps**2 / 6 * third, rel=1e-9)


@pytest.mark.parametrize("name", ["mixed", "llama"])
def test_halving_eps_quarters_the_error_against_autograd(name: str) -> None:
    """g - z . grad L is O(eps^2) on a whole model, tied table included."""
    toy = mixed() if name == "mixed" else language_model(name)
    direction = Direction(Key(0, 1), Gaussian())
    exact = sum(float((direction.tensor(leaf) * g).sum()) for leaf, g in zip(toy.leaves, ordered(toy), strict=True))
    errors = [measured(toy, eps) - exact for eps in (2e-3, 1e-3, 5e-4)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)
    assert abs(measured(toy, 1e-5) - exact) < 1e-6 * abs(exact)


def ordered(toy: Toy) -> list[torch.Tensor]:
    found = gradient(toy)
    return [found[leaf.id] for leaf in toy.leaves]


@pytest.mark.parametrize("law", [Gaussian(), Rademacher()], ids=["gaussian", "rademacher"])
def test_the_mean_of_many_estimates_is_autograds_gradient(law) -> None:
    """Averaged over 600 directions the estimate lies within 5 standard errors of the gradient in every
    coordinate.
    """
    toy = least_squares(kind="smooth", width=4, height=2)
    grad, n = flat(gradient(toy)), 600
    losses = toy.losses()
    directions = Fresh(n, law)(Key(0, 0), losses, 1e-4)
    g = Central()(losses, directions, 1e-4).projected_grad
    z = torch.stack([direction.tensor(toy.leaves[0]).flatten() for direction in directions])
    samples = g.unsqueeze(1) * z
    deviation = samples.std(0) / n**0.5
    assert bool(((samples.mean(0) - grad).abs() < 5 * deviation).all())
    assert float((5 * deviation).max()) < float(grad.norm())  # the bound can tell 0 from the gradient


def test_the_length_of_the_estimate_is_the_papers_slowdown() -> None:
    """E ||g z||^2 = (d + 2) ||grad||^2 for normals and d ||grad||^2 for signs, within 2 %."""
    d, n = 6, 400_000
    grad = torch.linspace(-1, 2, d).double()
    for purpose, draw, expected in ((Purpose.NORMAL, addressed.normals, d + 2), (Purpose.SIGN, addressed.signs, d)):
        z = draw(address(Key(0, 0), 0, purpose), 0, n * d).double().view(n, d)
        lengths = (z @ grad).square() * z.square().sum(1)
        assert float(lengths.mean() / grad.square().sum()) == pytest.approx(expected, rel=0.02)


def test_equal_directions_are_mezo_and_several_are_the_mean_of_their_steps() -> None:
    """n = 1 is MeZO bit for bit, n equal ones are MeZO, and n are the mean of n MeZO steps from one point."""
    key, lr, eps = Key(0, 4), 0.1, 1e-3
    moves = []
    for number in range(3):
        toy = mixed()
        before = toy.weights()
        direction = Direction(replace(key, direction=number), Gaussian())
        losses = toy.losses()
        (g,) = Central()(losses, [direction], eps).projected_grad.tolist()
        for leaf in toy.leaves:
            Sgd()(leaf, estimate([direction], [g]), lr, key, {})
        moves.append({leaf.id: leaf.tensor - before[leaf.id] for leaf in toy.leaves})
    ends = {}
    for method, knobs in (("mezo", {}), ("n-spsa", {"directions": 1}), ("n-spsa", {"directions": 3})):
        toy = mixed()
        build(method, **knobs).step(toy.leaves, toy.losses(), key, lr, eps, {})
        ends[method, knobs.get("directions", 1)] = toy.weights()
    for number, before_leaf in mixed().weights().items():
        assert torch.equal(ends["mezo", 1][number], ends["n-spsa", 1][number])
        assert torch.allclose(ends["mezo", 1][number], before_leaf + moves[0][number], rtol=0, atol=1e-14)
        mean = sum(move[number] for move in moves) / 3
        assert torch.allclose(ends["n-spsa", 3][number], before_leaf + mean, rtol=0, atol=1e-12)


class Repeated(Fresh):
    """The same direction several times."""

    def __call__(self, key, losses, eps):
        """Number 0, count times."""
        return [Direction(key, self.law)] * self.count


def test_the_same_direction_several_times_is_mezo() -> None:
    """n identical seeds are one MeZO step."""
    ends = []
    for sampler in (Fresh(1), Repeated(4)):
        toy = mixed()
        Method("m", sampler).step(toy.leaves, toy.losses(), Key(0, 4), 0.1, 1e-3, {})
        ends.append(flat(toy.weights()))
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-12)


def test_momentum_is_the_sum_over_remembered_directions() -> None:
    """m_t = sum_i beta^(t - i) g_i z_i, rebuilt from two numbers per step, equals the buffer."""
    toy, state, lr, beta = mixed(), {}, 0.05, 0.8
    method = Method("m", Fresh(1), update=Momentum(beta))
    history = []
    for step in range(8):
        before = toy.weights()
        done = method.step(toy.leaves, toy.losses(), Key(0, step), lr, 1e-3, state)
        history.append((done.coefficients[0], done.directions[0]))
        for leaf in toy.leaves:
            m: Any = sum(beta ** (step - i) * g * z.tensor(leaf) for i, (g, z) in enumerate(history))
            assert torch.allclose(before[leaf.id] - leaf.tensor, lr * m, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "knobs", "passes"),
    [("mezo", {}, 2), ("n-spsa", {"directions": 5}, 10), ("qzo", {}, 2), ("openai-es", {"directions": 3}, 6)],
)
def test_forward_passes_are_counted_as_the_papers_count(method: str, knobs: dict, passes: int) -> None:
    """2 for MeZO and 2n for n directions, each on the same batch; the counter is what was run."""
    toy = mixed()
    original, batches = toy.forward, []
    toy.forward = lambda rows: (batches.append(rows), original(rows))[1]
    losses = toy.losses()
    build(method, **knobs).step(toy.leaves, losses, Key(0, 0), 0.1, 1e-3, {})
    assert losses.forward_passes == len(batches) == passes == build(method, **knobs).forward_passes()
    assert losses.forward_cost == passes
    assert all(batch is batches[0] for batch in batches)


def test_a_step_repeated_from_its_coefficients_is_bitwise_the_same() -> None:
    """Applying the recorded directions and coefficients again, without a forward, ends at the same bits."""
    for dtype in (torch.float32, torch.bfloat16):
        live, replayed = mixed(dtype=dtype), mixed(dtype=dtype)
        method: Any = build("mezo")
        for step in range(5):
            done = method.step(live.leaves, live.losses(), Key(0, step), 0.01, 1e-2, {})
            method.apply(replayed.leaves, done.directions, done.coefficients, done.touched, Key(0, step), 0.01, {})
        assert torch.equal(flat(live.weights()), flat(replayed.weights()))


def test_losses_of_the_step_are_those_of_explicit_weights() -> None:
    """loss_plus and loss_minus are L(theta +- eps z), and the reported loss their mean."""
    toy = mixed()
    direction = Direction(Key(0, 2), Gaussian())
    plus, minus = (float(toy.at(direction, offset).mean()) for offset in (1e-2, -1e-2))
    step = build("mezo").step(toy.leaves, toy.losses(), Key(0, 2), 0.0, 1e-2, {})
    assert float(step.measured.plus) == pytest.approx(plus, rel=1e-13)
    assert float(step.measured.minus) == pytest.approx(minus, rel=1e-13)
    assert step.loss == pytest.approx((plus + minus) / 2, rel=1e-13)


def test_clipping_shortens_the_estimate_by_the_papers_factor() -> None:
    """E[clip(z . g) z] = erf(C / (sqrt 2 |g|)) g: shorter, not turned (Q3)."""
    d, n, threshold = 4, 400_000, 0.8
    g = torch.tensor([0.3, -1.0, 0.5, 0.2]).double()
    z = addressed.normals(address(Key(0, 0), 0, Purpose.NORMAL), 0, n * d).double().view(n, d)
    d_k = z @ g
    # the clipped d over n
    clipped: Any = build("qzo", directions=n, clip=threshold)
    shaped = clipped.shaping(Measured(d_k, -d_k, d_k))
    factor = 2 * reference.phi(threshold / float(g.norm())) - 1  # erf(x / sqrt 2) = 2 Phi(x) - 1
    assert torch.allclose(shaped @ z, factor * g, rtol=0, atol=5 / n**0.5)
