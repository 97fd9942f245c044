"""Any sampler goes with any law, update and carrier: the cross product steps, and equal compositions are
equal.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch

from tests.support.toys import Toy, flat, gradient, language_model, mixed
from zocore.directions.laws import Gaussian, Law, LowRank, Masked, Rademacher, law
from zocore.methods import build
from zocore.noise.addressed import Key
from zocore.step.difference import Central, Forward
from zocore.step.samplers import Fresh, Guided, OnePerExample, Sampler
from zocore.step.shaping import CentredRank, Clip, Mean, Normalise, Shaping
from zocore.step.step import Method
from zocore.step.update import Adam, Momentum, Sgd, estimate

LAWS: dict[str, Law] = {
    "gaussian": Gaussian(),
    "rademacher": Rademacher(),
    "low rank": LowRank(2),
    "sparse": Masked(Gaussian(), 0.5),
    "sparse low rank": Masked(LowRank(2), 0.5),
}
SAMPLERS: dict[str, Callable[[Law], Any]] = {
    "fresh": lambda one: Fresh(3, one),
    "per example": lambda one: OnePerExample(one),
    "gv": lambda one: Guided(4, law=one),
    "greedy": lambda one: Guided(3, greedy=True, law=one),
}


SAMPLED: tuple[Sampler, ...] = (Fresh(3), OnePerExample())


def run(method: Any, toy: Toy, steps: int = 1, lr: float = 1e-2, eps: float = 1e-3, in_place: bool = False):
    state: dict = {}
    method = method.prepared(toy.leaves)
    done = None
    for number in range(steps):
        done = method.step(toy.leaves, toy.losses(in_place=in_place), Key(0, number), lr, eps, state)
    return done


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("one", LAWS)
def test_every_sampler_goes_with_every_law_and_update(sampler: str, one: str) -> None:
    """Each composition moves the weights by finite amounts, along its own directions, and repeats bitwise."""
    for update, difference in ((Sgd(0.01), Central()), (Momentum(), Forward()), (Adam(), Central())):
        method = Method("m", SAMPLERS[sampler](LAWS[one]), difference, Mean(), update)
        ends = []
        for _ in range(2):
            toy = mixed()
            before = flat(toy.weights())
            run(method, toy, 2)
            ends.append(flat(toy.weights()))
        assert torch.equal(*ends)
        assert bool(torch.isfinite(ends[0]).all())
        assert not torch.equal(ends[0], before)


@pytest.mark.parametrize("method", ["mezo", "grzo"])
@pytest.mark.parametrize("name", ["mixed", "llama", "gpt2"])
def test_sparse_steps_move_only_small_weights(method: str, name: str) -> None:
    """Sparse-MeZO and Sparse-GRZO leave every weight above its leaf's threshold bitwise alone."""
    toy = mixed() if name == "mixed" else language_model(name)
    before = toy.weights()
    run(build(method, law=Masked(Gaussian(), 0.25)), toy)
    moved = 0
    for leaf in toy.leaves:
        cut = before[leaf.id].abs().flatten().sort().values[max(1, round(0.25 * leaf.tensor.numel())) - 1]
        changed = leaf.tensor != before[leaf.id]
        assert not bool(changed[before[leaf.id].abs() > cut].any()), leaf.name
        moved += int(changed.sum())
    assert moved > 0.1 * len(flat(before))


def test_low_rank_steps_have_low_rank_and_per_example_ones_the_rank_of_the_batch() -> None:
    """LOZO moves matrices by rank r, LO-GRZO by at most r B, and both raise vectors as MeZO does."""
    for method, most in (("mezo", 2), ("grzo", 10)):
        toy = language_model("opt")
        before = toy.weights()
        run(build(method, law=LowRank(2)), toy)
        weight = toy.leaf("model.decoder.layers.0.fc1.weight")
        assert int(torch.linalg.matrix_rank(weight.tensor - before[weight.id], rtol=1e-8)) == most
        bias = toy.leaf("model.decoder.layers.0.fc1.bias")
        assert bool((bias.tensor != before[bias.id]).all())


def test_a_mask_of_everything_is_no_mask() -> None:
    """Masked(all) takes the same steps as its inner law, for shared and per-example directions."""
    for method in ("mezo", "grzo", "mezo-gv"):
        for inner in (Gaussian(), Rademacher()):
            ends = []
            for one in (inner, Masked(inner, 1.0)):
                toy = mixed()
                for leaf in toy.leaves:
                    leaf.tensor.mul_(1 + 1e-9 * 2**0.5)
                # the thresholds hold for the weights at the start of a run: one step
                run(build(method, law=one), toy)
                ends.append(flat(toy.weights()))
            assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-15), (method, inner)


@pytest.mark.parametrize("one", [name for name in LAWS if "sparse" not in name])
def test_trajectories_do_not_depend_on_the_carrier(one: str) -> None:
    """Scratch and in-place runs stay together for three steps in float64."""
    for method in ("n-spsa", "mezo-gv", "mezo-greedy"):
        ends = []
        for in_place in (False, True):
            toy = mixed()
            run(build(method, law=LAWS[one]), toy, 3, 1e-3, in_place=in_place)
            ends.append(flat(toy.weights()))
        assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-9), method  # differences over 2 eps amplify rounding


@pytest.mark.parametrize("one", LAWS)
def test_estimates_of_every_law_agree_with_autograd_along_their_direction(one: str) -> None:
    """The measured number is z . grad L for every law, sparse and thin ones included."""
    toy = language_model("llama tied")
    prepared: Law = LAWS[one].prepared(toy.leaves)
    step = run(Method("m", Fresh(1, prepared)), toy, lr=0.0, eps=1e-5)
    grads, (direction,) = gradient(toy), step.directions
    exact = sum(float((direction.tensor(leaf) * grads[leaf.id]).sum()) for leaf in toy.leaves)
    assert float(step.measured.projected_grad) == pytest.approx(exact, rel=1e-6)


def test_shapings_go_with_every_sampler() -> None:
    """Ranks, signs, clips and scales work on shared and per-example measurements alike."""
    shapings: tuple[Shaping, ...] = (
        Mean(),
        Clip(0.1),
        Clip(0.1, Normalise("std")),
        Normalise("rms"),
        Normalise("std"),
        CentredRank(),
    )
    for shaping, sampler in product(shapings, SAMPLED):
        toy = mixed()
        before = flat(toy.weights())
        step = run(Method("m", sampler, shaping=shaping), toy)
        count = 3 if isinstance(sampler, Fresh) else 5
        assert step.coefficients == tuple(shaping(step.measured).tolist())
        assert len(step.coefficients) == count
        expected = torch.zeros_like(before)
        g = estimate(step.directions, step.coefficients, step.touched)
        whole = {leaf.id: torch.zeros_like(leaf.matrix) for leaf in toy.leaves}
        for leaf in toy.leaves:
            g.displace(whole[leaf.id], whole[leaf.id], leaf, 1.0)
        expected = before - 1e-2 * flat(whole)
        assert torch.allclose(flat(toy.weights()), expected, rtol=0, atol=1e-13)


def test_laws_are_chosen_by_words() -> None:
    """The words of a configuration name the laws, and unknown ones are refused."""
    assert law() == Gaussian()
    assert law("rademacher") == Rademacher()
    assert law(rank=4) == LowRank(4)
    assert law(keep=0.5) == Masked(Gaussian(), 0.5)
    assert law("rademacher", rank=2, keep=0.5) == Masked(LowRank(2), 0.5)
    with pytest.raises(ValueError, match="unknown noise"):
        law("uniform")
    with pytest.raises(ValueError, match="share"):
        law(keep=0.0)
