"""MeZO-GV and MeZO-Greedy: the pool, the partition, the papers' steps, and what ranking can gain."""

from contextlib import contextmanager
from itertools import permutations
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import reference
from tests.support.flat import flat_loss, theta_of, z_of
from tests.support.toys import flat, least_squares, mixed
from zocore.directions.laws import Combination, Direction, Gaussian
from zocore.methods import build
from zocore.noise import addressed
from zocore.noise.addressed import Key, Purpose, address
from zocore.step.samplers import Guided
from zocore.step.step import Method
from zocore.weights.leaf import Leaf


class Ranked:
    """Losses that say a given number for each candidate, and remember what was asked."""

    def __init__(self, values: Any) -> None:
        self.values, self.asked = values, []

    @contextmanager
    def along(self, direction: Direction):
        """Yield the loss of the candidate."""
        self.asked.append(direction)
        yield lambda offset: torch.tensor([float(self.values[direction.key.direction])])

    def forget(self) -> None:
        """Nothing is remembered."""


def ranked(values: Any) -> Any:
    """Such losses, in place of a model's."""
    return Ranked(values)


@pytest.mark.parametrize("pool", [2, 3, 4, 7])
@pytest.mark.parametrize("kind", ["quadratic", "smooth"])
def test_one_step_is_the_papers(pool: int, kind: str) -> None:
    """GV (elite share 0.5 and 0.3) and Greedy on three parameters equal a NumPy transcription of the
    algorithms.
    """
    eps, lr = 1e-1, 0.3
    for method, knobs in (("mezo-gv", {}), ("mezo-gv", {"share": 0.3}), ("mezo-greedy", {})):
        if int(knobs.get("share", 0.5) * pool) < 1:
            continue
        toy = least_squares(kind=kind)
        theta, loss = theta_of(toy), flat_loss(toy)
        zs = [z_of(toy, Key(0, 3, number)) for number in range(pool)]
        build(method, pool=pool, **knobs).step(toy.leaves, toy.losses(), Key(0, 3), lr, eps, {})
        expected = (
            reference.mezo_greedy(loss, theta, zs, eps, lr)
            if method == "mezo-greedy"
            else reference.mezo_gv(loss, theta, zs, knobs.get("share", 0.5), eps, lr)
        )
        assert np.abs(expected - theta).max() > 1e-3
        np.testing.assert_allclose(theta_of(toy), expected, rtol=0, atol=1e-12)


def test_the_pool_asks_the_loss_of_each_candidate_and_leaves_the_weights() -> None:
    """Candidates are asked once at +eps each, their losses are those of explicit weights, and nothing
    moves.
    """
    toy = mixed()
    before, losses = toy.weights(), toy.losses()
    (v,) = Guided(5)(Key(0, 1), losses, 1e-2)
    assert losses.forward_passes == 5
    assert all(torch.equal(leaf.tensor, before[leaf.id]) for leaf in toy.leaves)
    by_loss = sorted(range(5), key=lambda m: float(toy.at(Direction(Key(0, 1, m), Gaussian()), 1e-2).mean()))
    assert [direction.key.direction for _, direction in v.terms] == by_loss
    with losses.along(v.terms[0][1]) as at:
        seen = at(1e-2)
    assert torch.allclose(seen, toy.at(v.terms[0][1], 1e-2), rtol=0, atol=1e-12)


def test_v_is_rebuilt_right_on_every_tensor() -> None:
    """v = mean of elite z - mean of the rest, of the z that the pool was asked along, on every tensor
    (released code: one).
    """
    toy = mixed()
    seen, original, before = [], toy.forward, toy.weights()
    toy.forward = lambda rows: (seen.append(toy.weights()), original(rows))[1]
    losses = toy.losses(in_place=True)
    (v,) = Guided(5, share=0.4)(Key(0, 1), losses, 1e-2)
    for leaf in toy.leaves:
        z = [(seen[direction.key.direction][leaf.id] - before[leaf.id]) / 1e-2 for _, direction in v.terms]
        expected = (z[0] + z[1]) / 2 - (z[2] + z[3] + z[4]) / 3
        assert torch.allclose(v.tensor(leaf), expected, rtol=0, atol=1e-12), leaf.name


@pytest.mark.parametrize(("pool", "share"), [(2, 0.5), (4, 0.5), (5, 0.5), (8, 0.25), (7, 0.9), (10, 0.1)])
def test_the_partition_uses_every_candidate(pool: int, share: float) -> None:
    """floor(share * pool) elite and the rest, weights summing to 0, by loss order alone, whatever the
    losses' scale.
    """
    values = np.random.default_rng(0).normal(size=pool)
    guided = Guided(pool, share)
    (v,) = guided(Key(0, 0), ranked(values), 1.0)
    weights = {direction.key.direction: w for w, direction in v.terms}
    elite = set(np.argsort(values)[: int(share * pool)].tolist())
    assert weights == {
        m: pytest.approx(1 / len(elite) if m in elite else -1 / (pool - len(elite))) for m in range(pool)
    }
    assert sum(weights.values()) == pytest.approx(0, abs=1e-15)
    for change in (lambda x: x + 100, lambda x: np.exp(x), lambda x: 1e-6 * x**3):
        assert guided(Key(0, 0), ranked(change(values)), 1.0) == [v]


def test_v_does_not_depend_on_the_order_of_the_candidates() -> None:
    """Permuting candidates with their losses gives the same tensors of v."""
    leaf, guided = Leaf("w", 0, torch.zeros(4, 4, dtype=torch.float64), ()), Guided(3, share=0.34)
    values = [0.3, -1.0, 2.0]
    sets = set()
    for order in permutations(range(3)):
        ranked = sorted((Direction(Key(0, 0, m), Gaussian()) for m in order), key=lambda z: values[z.key.direction])
        sets.add(tuple(guided._contrast(ranked).tensor(leaf).flatten().round(decimals=12).tolist()))
    assert len(sets) == 1


def test_ties_and_nan_are_ranked_deterministically() -> None:
    """Equal losses go to the earlier candidate, so v is never 0; a candidate whose loss is NaN comes last."""
    assert [d.key.direction for _, d in Guided(4)(Key(0, 0), ranked([1, 1, 1, 1]), 1.0)[0].terms] == [
        0,
        1,
        2,
        3,
    ]
    nan = ranked([float("nan"), 2, 1, float("nan")])
    assert [d.key.direction for _, d in Guided(4)(Key(0, 0), nan, 1.0)[0].terms] == [2, 1, 0, 3]
    (best,) = Guided(4, greedy=True)(Key(0, 0), nan, 1.0)
    assert best.key.direction == 2


def test_a_partition_with_an_empty_side_is_refused() -> None:
    """1 <= floor(share * pool) < pool, and a pool has at least two."""
    for pool, share in ((4, 0.2), (4, 1.0), (2, 0.4)):
        with pytest.raises(ValueError, match="empty"):
            Guided(pool, share)
    for pool in (0, 1):
        with pytest.raises(ValueError, match="at least 2"):
            Guided(pool)


class Along(Guided):
    """A sampler that returns one given direction."""

    def __call__(self, key, losses, eps):
        """The direction scaled by `share`."""
        pair = [Direction(Key(key.seed, key.step, number), self.law) for number in (0, 1)]
        return [Combination(tuple((sign * self.share, z) for sign, z in zip((1, -1), pair, strict=True)))]


def moved(method: Method, lr: float, eps: float) -> tuple[torch.Tensor, float]:
    toy = mixed()
    before = flat(toy.weights())
    step = method.step(toy.leaves, toy.losses(), Key(0, 6), lr, eps, {})
    return flat(toy.weights()) - before, float(step.measured.projected_grad)


def test_a_pool_of_two_is_mezo_at_twice_the_rate() -> None:
    """GV with M = 2 is MeZO along (z1 - z2)/sqrt 2 with eps sqrt 2 and 2 lr, on a non-linear loss; swapping
    changes nothing.
    """
    lr, eps = 0.1, 0.05
    guided, g = moved(Method("gv", Guided(2)), lr, eps)
    along = Along(2)
    object.__setattr__(along, "share", 1 / sqrt(2))
    plain, _ = moved(Method("m", along), 2 * lr, eps * sqrt(2))
    object.__setattr__(along, "share", -1.0)
    turned, minus_g = moved(Method("m", along), lr, eps)
    object.__setattr__(along, "share", 1.0)
    straight, plus_g = moved(Method("m", along), lr, eps)
    assert float(guided.abs().max()) > 1e-4
    assert torch.allclose(guided, plain, rtol=0, atol=1e-12)
    # evenness: g turns with v, the update does not
    assert torch.allclose(turned, straight, rtol=0, atol=1e-12)
    assert minus_g == pytest.approx(-plus_g, rel=1e-10)
    assert abs(g) == pytest.approx(abs(plus_g), rel=1e-10)
    assert torch.allclose(guided, straight, rtol=0, atol=1e-12)


GAINS = {2: (1.00, 1.00), 4: (2.103, 1.551), 8: (4.553, 2.400), 16: (9.601, 3.414)}


@pytest.mark.parametrize("pool", GAINS)
def test_ranking_gains_what_order_statistics_say(pool: int) -> None:
    """On a linear loss E[(v . g)^2] / w is 1.00, 2.10, 4.55, 9.60 and Greedy's 1.00, 1.55, 2.40, 3.41;
    shuffled 1.00.
    """
    trials = 200_000
    y = addressed.normals(address(Key(1, 0), pool, Purpose.NORMAL), 0, trials * pool).double().view(trials, pool)
    # the engine's weights by place; a direction's loss to first order is its projection y on the unit
    # gradient
    order = list(range(pool))
    (v,) = Guided(pool)(Key(0, 0), ranked(order), 1.0)
    weights = torch.tensor([w for w, _ in v.terms]).double()
    assert [z.key.direction for _, z in v.terms] == order
    w = 1 / (pool // 2) + 1 / (pool - pool // 2)
    assert float(weights.square().sum()) == pytest.approx(w)
    gain = float((y.sort(1).values @ weights).square().mean()) / w
    greedy = float(y.min(1).values.square().mean())
    shuffled = float((y @ weights).square().mean()) / w
    assert (gain, greedy, shuffled) == pytest.approx((*GAINS[pool], 1.0), rel=0.02)  # s.e. below 0.6 %


def test_an_unranked_v_has_the_variance_that_its_scale_says() -> None:
    """var(v) = 1/|elite| + 1/|rest| per coordinate when losses carry no information, within 1 %."""
    leaf = Leaf("w", 0, torch.zeros(1000, 300), ())
    for pool, share in ((2, 0.5), (4, 0.5), (8, 0.25)):
        (v,) = Guided(pool, share)(Key(0, 0), ranked(np.random.default_rng(1).normal(size=pool)), 1.0)
        elite = int(share * pool)
        assert float(v.tensor(leaf).var()) == pytest.approx(1 / elite + 1 / (pool - elite), rel=0.01)


def chosen_projections(pool: int, trials: int) -> np.ndarray:
    """|z* . g| of Greedy on a linear loss with unit gradient g, through the sampler itself."""
    leaf = Leaf("w", 0, torch.zeros(1, 4), ())
    g = np.array([0.5, -0.5, 0.5, 0.5])
    found = []
    for step in range(trials):
        y = [float(Direction(Key(2, step, m), Gaussian()).tensor(leaf).numpy()[0] @ g) for m in range(pool)]
        (best,) = Guided(pool, greedy=True)(Key(2, step), ranked(y), 1.0)
        assert y[best.key.direction] == min(y)
        found.append(abs(y[best.key.direction]))
    return np.array(found)


def test_greedy_with_two_candidates_draws_the_directions_of_mezo() -> None:
    """|z* . g| has the law of |N(0, 1)| at M = 2 (K-S passes) and not at M = 4 (K-S fails)."""
    trials = 2000

    def folded(x: float) -> float:
        return 2 * reference.phi(x) - 1

    critical = 1.63 / sqrt(trials)  # exceeded with chance 0.01 by the law itself
    assert reference.kolmogorov_smirnov(chosen_projections(2, trials), folded) < critical
    assert reference.kolmogorov_smirnov(chosen_projections(4, trials), folded) > 2 * critical


def test_greedy_with_reuse_is_greedy_without() -> None:
    """Taking the pool's loss as the loss at +eps saves one forward and changes no bit."""
    ends, passes = [], []
    for reuse in (True, False):
        toy = mixed()
        losses = toy.losses()
        method = Method("greedy", Guided(4, greedy=True, reuse=reuse))
        method.step(toy.leaves, losses, Key(0, 6), 0.1, 1e-2, {})
        ends.append(flat(toy.weights()))
        passes.append(losses.forward_passes)
        assert losses.forward_passes == method.forward_passes()
    assert torch.equal(*ends)
    assert passes == [5, 6]


@pytest.mark.parametrize("pool", [2, 4, 6])
def test_forward_passes_include_the_pool(pool: int) -> None:
    """M + 2 for GV and M + 1 for Greedy, all on the same batch."""
    for method, extra in (("mezo-gv", 2), ("mezo-greedy", 1)):
        toy = mixed()
        original, batches = toy.forward, []
        toy.forward = lambda rows, original=original, batches=batches: (batches.append(rows), original(rows))[1]
        losses = toy.losses()
        stepper = build(method, pool=pool)
        stepper.step(toy.leaves, losses, Key(0, 0), 0.1, 1e-2, {})
        assert losses.forward_passes == len(batches) == stepper.forward_passes() == pool + extra
        assert all(batch is batches[0] for batch in batches)


@pytest.mark.parametrize("method", ["mezo-gv", "mezo-greedy"])
def test_steps_repeat_bitwise_from_their_record(method: str) -> None:
    """Directions and coefficients of a step, applied again without a forward, end at the same bits."""
    live, again = mixed(dtype=torch.float32), mixed(dtype=torch.float32)
    for number in range(3):
        stepper: Any = build(method)
        step = stepper.step(live.leaves, live.losses(), Key(0, number), 0.01, 1e-2, {})
        stepper.apply(again.leaves, step.directions, step.coefficients, step.touched, Key(0, number), 0.01, {})
    assert torch.equal(flat(live.weights()), flat(again.weights()))
