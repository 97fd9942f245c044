"""Activity perturbation: pushes on outputs times clean inputs estimate the gradient, without bias up to O(eps^2)."""

from collections.abc import Sequence
from math import sqrt

import pytest
import torch
from torch import Tensor

from tests.support.scored import Scored, scored
from zocore.directions.pushes import Pushes, Tie
from zocore.methods import build
from zocore.noise.addressed import Key
from zocore.step.difference import Central
from zocore.step.losses import Losses
from zocore.step.update import Estimate, estimate

DRAWS = 1500


def estimates(toy: Scored, tie: Tie, eps: float, draws: int, seed: int = 0) -> dict[str, Tensor]:
    """Independent estimates of the gradient, (draws, *shape) by leaf name."""
    found: dict[str, list[Tensor]] = {leaf.name: [] for leaf in toy.leaves}
    losses = toy.losses(tie=tie)
    for number in range(draws):
        g = one(losses, [Pushes(Key(seed, number), tie)], eps)
        for leaf in toy.leaves:
            found[leaf.name].append(whole(g, toy, leaf.name))
    return {name: torch.stack(values) for name, values in found.items()}


def one(losses: Losses, pushes: Sequence[Pushes], eps: float) -> Estimate:
    measured = Central()(losses, pushes, eps)
    coefficients = (measured.projected_grad / len(measured.projected_grad)).tolist()
    return estimate(pushes, coefficients, losses.trace(pushes))


def whole(g: Estimate, toy: Scored, name: str) -> Tensor:
    leaf = next(leaf for leaf in toy.leaves if leaf.name == name)
    out = torch.zeros_like(leaf.matrix)
    g.displace(out, out, leaf, 1.0)
    return out.view(leaf.tensor.shape)


def test_the_mean_over_draws_is_the_gradient() -> None:
    """With a push for each token, the mean of 1,500 estimates is autograd's gradient within 4.5 standard errors."""
    toy = scored()
    found, truth = estimates(toy, "none", 1e-3, DRAWS), toy.gradient()
    for name, values in found.items():
        error = (values.mean(0) - truth[name]).abs()
        assert bool((error <= 4.5 * values.std(0) / sqrt(DRAWS) + 1e-5).all()), name


def test_tied_pushes_are_exact_where_an_example_has_one_token() -> None:
    """Tied over tokens, the estimate is unbiased where there is nothing to tie."""
    toy = scored(tokens=1)
    found, truth = estimates(toy, "tokens", 1e-3, DRAWS), toy.gradient()
    for name, values in found.items():
        error = (values.mean(0) - truth[name]).abs()
        assert bool((error <= 4.5 * values.std(0) / sqrt(DRAWS) + 1e-5).all()), name


def test_the_slope_is_that_of_the_push() -> None:
    """The measured difference of each example is xi . dl/dy by autograd, its error falling as eps^2."""
    toy = scored(moves="second")
    push, errors = Pushes(Key(3, 1), "none"), []
    losses = toy.losses(tie="none")
    site = losses.outputs.sites[0] if losses.outputs else None
    assert site is not None
    xi = push.signs(site.id, torch.arange(5), 4, 4).double() * toy.mask.unsqueeze(-1)
    kept: list[Tensor] = []
    handle = toy.model.second.register_forward_hook(lambda _, args, y: kept.append(y.requires_grad_()))
    toy.model.second.requires_grad_(True)
    value = -toy.model(toy.x, toy.mask).gather(1, toy.labels[:, None]).squeeze(1)
    handle.remove()
    (slopes,) = torch.autograd.grad(value.sum(), kept)
    exact = (slopes * xi).sum((1, 2))
    for eps in (1e-1, 1e-2):
        errors.append(float((Central()(losses, [push], eps).projected_grad - exact).abs().max()))
    assert errors[1] < 1e-3
    assert 50 < errors[0] / errors[1] < 200  # slope 2: a tenth of eps, a hundredth of the error


def test_padding_gets_no_push_and_no_weight() -> None:
    """What stands on padding changes neither the losses at a push nor the estimate."""
    toy, other = scored(), scored()
    other.x[~other.mask] = 1e3
    for tie in ("tokens", "none"):
        push = Pushes(Key(0, 5), tie)  # type: ignore[arg-type]
        ours, theirs = (one(t.losses(tie=tie), [push], 1e-2) for t in (toy, other))  # type: ignore[arg-type]
        for leaf in toy.leaves:
            assert torch.allclose(whole(ours, toy, leaf.name), whole(theirs, other, leaf.name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("tie", ["tokens", "none"])
def test_micro_batches_change_nothing(tie: Tie) -> None:
    """Two draws over a batch in one piece and in three give the same estimate."""
    toy = scored()
    pushes = [Pushes(Key(0, 9, k), tie) for k in range(2)]
    ours, theirs = one(toy.losses(tie=tie), pushes, 1e-2), one(toy.losses([2, 2, 1], tie=tie), pushes, 1e-2)
    for leaf in toy.leaves:
        assert torch.allclose(whole(ours, toy, leaf.name), whole(theirs, toy, leaf.name), rtol=1e-9, atol=1e-12)


def test_draws_average() -> None:
    """K draws in one step are the mean of K steps of one draw each."""
    toy = scored()
    pushes = [Pushes(Key(0, 9, k), "none") for k in range(3)]
    together = one(toy.losses(tie="none"), pushes, 1e-2)
    alone = [one(toy.losses(tie="none"), [push], 1e-2) for push in pushes]
    for leaf in toy.leaves:
        mean = torch.stack([whole(g, toy, leaf.name) for g in alone]).mean(0)
        assert torch.allclose(whole(together, toy, leaf.name), mean, rtol=1e-5, atol=1e-7)


def test_only_what_the_head_reads_is_pushed_after_the_last_mixing() -> None:
    """In a layer marked last, positions that the head does not read get neither push nor weight."""
    toy = scored(moves="second")
    losses = toy.losses(tie="none")
    layout = losses.parts[0].layout
    layout.read = torch.zeros(5, 1, dtype=torch.int64)
    counts = layout.counted(read_alone=True)
    assert counts.sum().item() == 5
    assert torch.equal(counts[:, 0], torch.ones(5))
    assert torch.equal(layout.counted(), toy.mask.float())


@pytest.mark.parametrize(("sides", "passes"), [(1, 4), (2, 7)])
def test_a_step_spends_what_it_says_and_moves_no_weight_while_it_asks(sides: int, passes: int) -> None:
    """Three draws: one clean forward for the inputs, and one or two for each push; weights move in the update alone."""
    toy = scored()
    method, losses = build("activity", directions=3, sides=sides), toy.losses()
    before = {leaf.name: leaf.tensor.clone() for leaf in toy.leaves}
    step = method.step(toy.leaves, losses, Key(0, 1), 0.0, 1e-2, {})
    assert losses.forward_passes == method.forward_passes() == passes
    assert len(step.coefficients) == 3 * 5
    assert all(torch.equal(before[leaf.name], leaf.tensor) for leaf in toy.leaves)


def test_layers_that_are_not_linear_are_refused() -> None:
    """A leaf of another kind of layer is named, with what to do."""
    from torch import nn

    from zocore.carriers.outputs import output_sites
    from zocore.subspaces.by_name import all_weights

    with pytest.raises(ValueError, match=r"0\.weight \(LayerNorm\).*take --subspace writers"):
        output_sites(all_weights(nn.Sequential(nn.LayerNorm(3))))
