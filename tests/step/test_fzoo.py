"""FZOO and OpenAI-ES: one step as published, and what their shapings are invariant to."""

import numpy as np
import pytest
import torch

from tests.support import reference
from tests.support.flat import flat_loss, theta_of, z_of
from tests.support.measured import record
from tests.support.toys import flat, gradient, least_squares, mixed
from zocore.directions.laws import Rademacher
from zocore.methods import build
from zocore.noise.addressed import Key
from zocore.step.difference import Measured
from zocore.step.shaping import CentredRank, Clip, Mean, Normalise


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("kind", ["quadratic", "smooth"])
def test_one_step_of_fzoo_is_the_papers(count: int, kind: str) -> None:
    """FZOO on three parameters equals the equation in NumPy; zocore's lr is the paper's over eps."""
    eps, lr = 1e-2, 1e-3
    toy = least_squares(kind=kind)
    theta, loss = theta_of(toy), flat_loss(toy)
    us = [z_of(toy, Key(0, 3, number), Rademacher()) for number in range(count)]
    expected = reference.fzoo(loss, theta, us, eps, lr)
    build("fzoo", directions=count).step(toy.leaves, toy.losses(), Key(0, 3), lr / eps, eps, {})
    assert np.abs(expected - theta).max() > 1e-3
    # 1e-7: the guard of 1e-8 in zocore's denominator
    np.testing.assert_allclose(theta_of(toy) - theta, expected - theta, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("count", [2, 5])
def test_one_step_of_openai_es_is_the_papers(count: int) -> None:
    """Antithetic ES with centred ranks in NumPy; zocore's lr is the paper's over sigma."""
    sigma, lr = 1e-1, 0.02
    toy = least_squares(kind="smooth")
    theta, loss = theta_of(toy), flat_loss(toy)
    zs = [z_of(toy, Key(0, 3, number)) for number in range(count)]
    expected = reference.openai_es(loss, theta, zs, sigma, lr)
    build("openai-es", directions=count).step(toy.leaves, toy.losses(), Key(0, 3), lr / sigma, sigma, {})
    assert np.abs(expected - theta).max() > 1e-3
    np.testing.assert_allclose(theta_of(toy), expected, rtol=0, atol=1e-12)


def test_shapings_give_the_numbers_of_their_formulas() -> None:
    """Each shaping on (3, -1, 4, -2) against numbers worked out by hand."""
    d = record(3, -1, 4, -2)
    assert Mean()(d).tolist() == [0.75, -0.25, 1, -0.5]
    assert Clip(2.5)(d).tolist() == [0.625, -0.25, 0.625, -0.5]
    rms, std = 7.5**0.5, (26 / 3) ** 0.5  # mean square 30/4; squared distances from 1: 4 + 4 + 9 + 9 over 3
    assert Normalise("rms")(d).tolist() == pytest.approx([x / rms / 4 for x in (3, -1, 4, -2)], rel=1e-7)
    assert Normalise("std")(d).tolist() == pytest.approx([x / std / 4 for x in (3, -1, 4, -2)], rel=1e-7)
    assert Normalise("rms", floor=100)(d).tolist() == pytest.approx([x / 400 for x in (3, -1, 4, -2)], rel=1e-7)
    # plus 4, 0, 5, -1 has ranks 6, 3, 7, 2 among the eight losses, minus -2, 2, -3, 3 has 1, 4, 0, 5
    assert CentredRank()(d).tolist() == pytest.approx([5 / 56, -1 / 56, 7 / 56, -3 / 56])


def test_normalised_steps_have_the_length_that_lr_says() -> None:
    """rms scaling gives sum (K c)^2 = K, does not change with the losses' scale, and one measurement gives
    its sign.
    """
    d = record(3, -1, 4, -2)
    for scale in (1e-3, 1.0, 1e3):
        scaled = record(*(scale * d.projected_grad).tolist())
        for by in ("rms", "std"):
            assert torch.allclose(Normalise(by)(scaled), Normalise(by)(d), rtol=1e-4)
        assert float((4 * Normalise("rms")(scaled)).square().sum()) == pytest.approx(4, rel=1e-4)
    assert Normalise("rms")(record(-0.3)).tolist() == pytest.approx([-1], rel=1e-6)
    with pytest.raises(ValueError, match="standard deviation"):
        Normalise("std")(record(1.0))
    for threshold in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="threshold"):
            Clip(threshold)


def test_nothing_measured_is_nothing_moved() -> None:
    """All-zero differences give all-zero coefficients under every shaping."""
    for shaping in (Mean(), Clip(1.0), Normalise("rms"), Normalise("std"), CentredRank()):
        assert shaping(record(0, 0, 0)).tolist() == [0, 0, 0]


def test_ranks_ignore_scale_and_share_ties() -> None:
    """Centred ranks depend on the order of the losses alone, and equal losses share theirs."""
    g = torch.Generator().manual_seed(0)
    plus, minus = torch.randn(6, generator=g).double(), torch.randn(6, generator=g).double()
    plain = CentredRank()(Measured(plus, minus, plus - minus))
    assert torch.equal(plain, CentredRank()(Measured(plus.exp(), minus.exp(), plus - minus)))
    tied = CentredRank()(Measured(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0]), torch.zeros(2)))
    assert tied.tolist() == pytest.approx([0, 0.25])


def test_fzoo_asks_the_base_once_and_each_direction_once() -> None:
    """n + 1 forwards on one batch."""
    toy = mixed()
    losses, base = toy.losses(), float(toy.forward(torch.arange(5)).mean())
    step = build("fzoo", directions=6).step(toy.leaves, losses, Key(0, 0), 0.1, 1e-3, {})
    assert losses.forward_passes == 7 == build("fzoo", directions=6).forward_passes()
    assert step.measured.minus.tolist() == [pytest.approx(base, rel=1e-14)] * 6


@pytest.mark.parametrize("method", ["fzoo", "openai-es"])
def test_steps_point_down_the_gradient_on_average(method: str) -> None:
    """Over 60 keys the mean step has a cosine of at least 0.9 with the gradient."""
    toy = least_squares(kind="smooth", width=4, height=2)
    before, grad, total = toy.weights(), flat(gradient(toy)), torch.zeros(8).double()
    for number in range(60):
        build(method, directions=8).step(toy.leaves, toy.losses(), Key(0, number), 1.0, 1e-3, {})
        total += flat(before) - flat(toy.weights())
        toy.set(before)
    assert float(total @ grad / total.norm() / grad.norm()) > 0.9
