"""Directions: what the update adds is what the probe added, on every tensor, for every method and law."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from tests.support.toys import Toy, language_model, mixed
from zocore.directions.laws import Combination, Direction, Gaussian, LowRank, Masked, Rademacher
from zocore.methods import build
from zocore.noise.addressed import Key
from zocore.step.samplers import Fresh
from zocore.step.step import Method
from zocore.step.update import Sgd
from zocore.weights.leaf import Leaf

SHARED = ("mezo", "n-spsa", "mezo-gv", "mezo-greedy", "qzo", "fzoo", "openai-es")
EPS, LR = 1e-3, 1e-2


def snapshots(toy: Toy) -> list[dict[int, Tensor]]:
    """Let every forward of the toy note the weights it ran with."""
    seen: list[dict[int, Tensor]] = []
    original = toy.forward

    def forward(rows: Tensor) -> Tensor:
        seen.append(toy.weights())
        return original(rows)

    toy.forward = forward
    return seen


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize("method", ["mezo", "mezo-gv", "mezo-greedy", "qzo"])
@pytest.mark.parametrize("name", ["mixed", "llama tied"])
def test_every_tensor_moves_parallel_to_what_the_probe_added(method: str, name: str) -> None:
    """G8: theta_after - theta_before is parallel to theta_plus - theta_minus, tensor by tensor (released
    code: only one).
    """
    toy = mixed() if name == "mixed" else language_model(name)
    before, seen = toy.weights(), snapshots(toy)
    knobs = {"pool": 4, "share": 0.25} if method == "mezo-gv" else {}
    step = build(method, **knobs).step(toy.leaves, toy.losses(in_place=True), Key(0, 5), LR, EPS, {})
    (c,) = step.coefficients
    assert c != 0
    for leaf in toy.leaves:
        minus = seen[-1][leaf.id]
        plus = 2 * before[leaf.id] - minus if method == "mezo-greedy" else seen[-2][leaf.id]  # greedy reuses its plus
        probe = plus - minus
        moved = leaf.tensor - before[leaf.id]
        assert abs(cosine(moved, probe)) > 1 - 1e-6, leaf.name
        # and of the right length and sign: the probe is 2 eps z, the move -lr c z
        assert torch.allclose(moved, -LR * c * probe / (2 * EPS), rtol=1e-6, atol=1e-9), leaf.name


@pytest.mark.parametrize("method", ["n-spsa", "fzoo", "openai-es"])
def test_steps_of_several_directions_combine_what_was_probed(method: str) -> None:
    """theta moves by -lr sum_k c_k z_k with z_k = what the k-th probe added over eps, on every tensor."""
    toy = mixed()
    before, seen = toy.weights(), snapshots(toy)
    step = build(method, directions=3).step(toy.leaves, toy.losses(in_place=True), Key(0, 5), LR, EPS, {})
    plus = seen[1:] if method == "fzoo" else seen[::2]
    assert len(plus) == len(step.coefficients) == 3
    assert any(step.coefficients)
    for leaf in toy.leaves:
        probed = [(one[leaf.id] - before[leaf.id]) / EPS for one in plus]
        expected: Any = sum(c * z for c, z in zip(step.coefficients, probed, strict=True))
        assert torch.allclose(before[leaf.id] - leaf.tensor, LR * expected, rtol=1e-6, atol=1e-9), leaf.name


@contextmanager
def reads(toy: Toy) -> Iterator[list[tuple[int, Tensor]]]:
    """Note every leaf as a module reads it inside its forward; whole tables are left out, their rows are
    tested below.
    """
    seen: list[tuple[int, Tensor]] = []
    patches = []
    for leaf in toy.leaves:
        for site in leaf.sites:
            module, original = site.module, site.module.forward
            if isinstance(module, nn.Embedding):
                continue

            def forward(*args, leaf=leaf, site=site, original=original, **kwargs):
                seen.append((leaf.id, site.parameter.data.clone()))
                return original(*args, **kwargs)

            patches.append(patch.object(module, "forward", forward))
            patches[-1].start()
    try:
        yield seen
    finally:
        for one in reversed(patches):
            one.stop()


@pytest.mark.parametrize("law", [Gaussian(), Rademacher(), LowRank(2), Masked(Gaussian(), 0.5)], ids=str)
@pytest.mark.parametrize("decay", [0.0, 2.0])
def test_scratch_shows_modules_what_the_update_will_add(law, decay: float) -> None:
    """The tensors that modules read differ from the weights by eps times what the update adds, with decay
    too.
    """
    toy = language_model("llama")
    method = Method("mezo", Fresh(1, law), update=Sgd(decay)).prepared(toy.leaves)
    before = toy.weights()
    with reads(toy) as seen:
        step = method.step(toy.leaves, toy.losses(), Key(3, 5), LR, EPS, {})
    (c,) = step.coefficients
    by_id = {leaf.id: leaf for leaf in toy.leaves}
    assert {number for number, _ in seen} == {leaf.id for leaf in toy.leaves if "embed" not in leaf.name}
    for number, shown in seen[: len(seen) // 2]:
        z = (shown - before[number]) / EPS
        shrink = 1 - LR * decay if by_id[number].decay else 1.0
        # 1e-9: rounding of (theta + eps z) - theta over eps
        assert torch.allclose(by_id[number].tensor, shrink * before[number] - LR * c * z, rtol=1e-9, atol=1e-12)


def test_a_table_shows_the_rows_that_the_update_will_add() -> None:
    """Looked-up rows come out as theta + eps z of exactly these rows, repeated tokens included."""
    for law in (Gaussian(), Rademacher(), LowRank(2), Masked(Gaussian(), 0.5)):
        toy = language_model("llama")
        direction = Direction(Key(1, 1), law.prepared(toy.leaves))
        leaf = toy.leaf("model.embed_tokens.weight")
        seen = []
        layer = toy.model.model.layers[0]
        handle = layer.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        with toy.losses().along(direction) as at:
            at(0.25)
        handle.remove()
        expected = (leaf.tensor + 0.25 * direction.tensor(leaf))[toy.ids]
        assert torch.allclose(seen[0], expected, rtol=0, atol=1e-13)


def test_a_combination_is_the_sum_of_its_terms() -> None:
    """v = sum w_i z_i tensor by tensor and row by row, nested or not, and one term is that term bit for
    bit.
    """
    toy = mixed()
    z = [Direction(Key(0, 0, number), Gaussian()) for number in range(3)]
    v = Combination(((0.5, z[0]), (-2.0, z[1]), (1.0, Combination(((3.0, z[2]),)))))
    for leaf in toy.leaves:
        parts = [one.tensor(leaf) for one in z]
        assert torch.allclose(v.tensor(leaf), 0.5 * parts[0] - 2 * parts[1] + 3 * parts[2], rtol=0, atol=1e-14)
        rows = torch.tensor([len(leaf.matrix) - 1, 0])
        some = torch.zeros(2, leaf.matrix.shape[1], dtype=torch.float64)
        v.displace(some, some, leaf, 1.0, rows)
        assert torch.allclose(some, v.tensor(leaf).reshape(leaf.matrix.shape)[rows], rtol=0, atol=1e-14)
        assert torch.equal(Combination(((1.0, z[0]),)).tensor(leaf), z[0].tensor(leaf))


def test_low_rank_directions_have_the_rank_the_variance_and_the_lazy_side() -> None:
    """Matrices get U V^T / sqrt(rank) with unit variance; V stays for `refresh` steps while U is new;
    vectors are dense.
    """
    leaf, vector = Leaf("w", 0, torch.zeros(60, 80), ()), Leaf("b", 1, torch.zeros(50), ())
    law = LowRank(3, refresh=4)
    z = [Direction(Key(0, step), law).tensor(leaf).double() for step in range(8)]
    assert all(int(torch.linalg.matrix_rank(one, rtol=1e-5)) == 3 for one in z)
    assert int(torch.linalg.matrix_rank(torch.cat(z[:4]), rtol=1e-5)) == 3  # one row space within a refresh
    assert int(torch.linalg.matrix_rank(torch.cat(z[3:5]), rtol=1e-5)) == 6  # another after it
    assert int(torch.linalg.matrix_rank(torch.cat(z[:4], dim=1), rtol=1e-5)) == 12
    many = torch.stack([Direction(Key(0, 4 * step), law).tensor(leaf) for step in range(300)])
    # z^2 has variance about 8 here, elements share factors: 300 * 60 * 80 draws of rank 3 give about 2 % s.e.
    assert float(many.square().mean()) == pytest.approx(1, abs=0.06)
    assert torch.equal(Direction(Key(0, 1), law).tensor(vector), Direction(Key(0, 1), Gaussian()).tensor(vector))
    for wrong in ({"rank": 0}, {"refresh": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            LowRank(**wrong)


def test_low_rank_rows_equal_the_whole() -> None:
    """Rows of a low-rank direction are rows of the whole: to 1e-12 in float64."""
    leaf = Leaf("w", 0, torch.zeros(60, 80, dtype=torch.float64), ())
    direction = Direction(Key(0, 1), LowRank(8))
    rows = torch.tensor([5, 59, 0])
    some = torch.zeros(3, 80, dtype=torch.float64)
    direction.displace(some, some, leaf, 1.0, rows)
    assert torch.allclose(some, direction.tensor(leaf)[rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_mask_keeps_the_smallest_weights(dtype: torch.dtype) -> None:
    """z is the inner z on the `keep` smallest weights of each leaf and 0 elsewhere; keep = 1 is the inner
    law.
    """
    toy = mixed(dtype=dtype)
    for leaf in toy.leaves:
        leaf.tensor.mul_(1 + 2**0.5 * 1e-9)  # float64 weights that are no float32 numbers
    inner = Direction(Key(0, 2), Gaussian())
    for keep in (0.25, 0.5, 1.0):
        masked = replace(inner, law=Masked(Gaussian(), keep).prepared(toy.leaves))
        for leaf in toy.leaves:
            z = masked.tensor(leaf)
            cut = leaf.tensor.abs().flatten().sort().values[max(1, round(keep * leaf.tensor.numel())) - 1]
            expected = inner.tensor(leaf) * (leaf.tensor.abs() <= cut)
            assert torch.equal(z, expected), (leaf.name, keep)
    for wrong in (0.0, 1.5, -1.0):
        with pytest.raises(ValueError, match="share"):
            Masked(Gaussian(), wrong)
    with pytest.raises(ValueError, match="prepared"):
        Direction(Key(0, 0), Masked(Gaussian(), 0.5)).tensor(toy.leaves[0])


def test_a_mask_follows_the_weights_and_its_thresholds_stay() -> None:
    """The threshold is fixed when the run starts; which weights lie below it is asked anew at each step."""
    toy = mixed()
    law = Masked(Gaussian(), 0.5).prepared(toy.leaves)
    leaf = toy.leaf("inner.weight")
    leaf.tensor.mul_(100)
    assert int((Direction(Key(0, 0), law).tensor(leaf) != 0).sum()) < leaf.tensor.numel() // 10
    leaf.tensor.zero_()
    assert bool((Direction(Key(0, 0), law).tensor(leaf) != 0).all())
