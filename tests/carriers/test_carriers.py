"""Carriers: three ways to show a forward moved weights are one, and none of them leaves a trace."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from tests.support.hooks import hooks
from tests.support.toys import NAMES, Toy, language_model, least_squares, mixed
from zocore.carriers.flipout import Flipout
from zocore.carriers.in_place import InPlace
from zocore.carriers.layout import Layout
from zocore.carriers.scratch import Scratch, unreached
from zocore.directions.laws import Combination, Direction, Gaussian, Law, LowRank, Masked, Rademacher
from zocore.directions.per_example import PerExample
from zocore.noise.addressed import Key
from zocore.step.losses import Losses, Part
from zocore.subspaces.by_name import all_weights, matching, without
from zocore.weights.leaf import ParameterSite

LAWS: tuple[Law, ...] = (Gaussian(), Rademacher(), LowRank(3, refresh=5), Masked(Gaussian(), 0.3))


def build(name: str) -> Toy:
    return mixed() if name == "mixed" else language_model(name)


@pytest.mark.parametrize("name", ["mixed", *NAMES])
def test_scratch_in_place_and_explicit_weights_give_the_same_losses(name: str) -> None:
    """In float64 every carrier of a shared direction is theta + offset * z, for every law and kind of
    model.
    """
    toy = build(name)
    for law in LAWS if name in ("mixed", "llama tied") else LAWS[:1]:
        law = law.prepared(toy.leaves)
        one, two = (Direction(Key(0, 3, number), law) for number in (0, 1))
        for direction in (one, Combination(((0.5, one), (-1.5, two)))):
            for in_place in (False, True):
                if in_place and law.reads_weights:
                    continue
                seen = toy.carried(direction, (0.1, -0.1, 0.0), in_place)
                for offset, losses in zip((0.1, -0.1, 0.0), seen, strict=True):
                    assert torch.allclose(losses, toy.at(direction, offset), rtol=0, atol=1e-12)


def test_weights_shown_by_scratch_are_one_rounding_of_the_exact_ones() -> None:
    """In 16 bits a probe is theta + eps z computed in float32 and rounded once."""
    for dtype in (torch.bfloat16, torch.float16):
        toy = least_squares(dtype=dtype, width=40, height=9, count=2)
        leaf, direction = toy.leaves[0], Direction(Key(0, 0), Gaussian())
        with patch.object(ParameterSite, "show") as show, Scratch(toy.leaves).along(direction) as move_to:
            move_to(1e-3)
            toy.model(torch.tensor([0]))
            (shown,) = (call.args[0].clone() for call in show.call_args_list)
        expected = (leaf.tensor.float() + direction.tensor(leaf) * torch.tensor(1e-3)).to(dtype)
        assert torch.equal(shown, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_thousand_scratch_cycles_change_no_bit(dtype: torch.dtype) -> None:
    """Scratch never writes a weight: zero drift in every dtype, where in-place MeZO walks off by 12 % in
    bfloat16.
    """
    toy = mixed(2, dtype) if dtype == torch.bfloat16 else least_squares(2, 8, 8, "smooth", dtype)
    before = toy.weights()
    carrier = Scratch(toy.leaves)
    for step in range(1000):
        with carrier.along(Direction(Key(0, step), Rademacher())) as move_to, torch.no_grad():
            for offset in (1e-3, -1e-3):
                move_to(offset)
                toy.forward(torch.arange(2))
    assert all(torch.equal(leaf.tensor, before[leaf.id]) for leaf in toy.leaves)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_flipout_changes_no_bit(dtype: torch.dtype) -> None:
    """Per-example forwards leave every stored weight bitwise alone."""
    toy = mixed(dtype=dtype)
    before = toy.weights()
    for step in range(50):
        with toy.losses().along(PerExample(Key(0, step), Gaussian(), toy.count)) as at:
            assert float((at(1e-2) - at(-1e-2)).abs().max()) > 0
    assert all(torch.equal(leaf.tensor, before[leaf.id]) for leaf in toy.leaves)


def test_in_place_returns_within_four_ulp() -> None:
    """One cycle of +eps, -eps and back restores a weight to 4 ulp of the larger of it and its probe."""
    for dtype in (torch.float64, torch.float32):
        toy = mixed(dtype=dtype)
        before = toy.weights()
        direction = Direction(Key(0, 1), Gaussian())
        with toy.losses(in_place=True).along(direction) as at:
            at(1e-3), at(-1e-3)
        ulp = torch.finfo(dtype).eps
        for leaf in toy.leaves:
            size = torch.maximum(before[leaf.id].abs(), 2e-3 * direction.tensor(leaf).to(dtype).abs())
            assert bool(((leaf.tensor - before[leaf.id]).abs() <= 4 * ulp * size).all())


def test_in_place_makes_the_moves_of_the_mezo_paper() -> None:
    """In float32 its positions are bitwise MeZO's sweeps +eps, -2 eps, +eps."""
    toy = least_squares(dtype=torch.float32, width=50, height=7, count=2)
    leaf, direction = toy.leaves[0], Direction(Key(0, 1), Gaussian())
    z, theta, eps = direction.tensor(leaf), leaf.tensor.clone(), 1e-3
    seen = []
    with InPlace(toy.leaves).along(direction) as move_to:
        for offset in (eps, -eps):
            move_to(offset)
            seen.append(leaf.tensor.clone())
    plus = theta + z * torch.tensor(eps)
    minus = plus + z * torch.tensor(-2 * eps)
    assert torch.equal(seen[0], plus)
    assert torch.equal(seen[1], minus)
    assert torch.equal(leaf.tensor, minus + z * torch.tensor(eps))


def test_in_place_refuses_half_precision_and_laws_that_read_the_weights() -> None:
    """Where moving the weights would drift or change the mask, the error names the way out."""
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(ValueError, match="scratch"):
            InPlace(mixed(dtype=dtype).leaves)
    toy = mixed()
    before = toy.weights()
    law = Masked(Gaussian(), 0.5).prepared(toy.leaves)
    for direction in (Direction(Key(0, 0), law), Combination(((1.0, Direction(Key(0, 0), law)),))):
        with pytest.raises(ValueError, match="sparse"), InPlace(toy.leaves).along(direction):
            pass
    assert all(torch.equal(leaf.tensor, before[leaf.id]) for leaf in toy.leaves)


class Bypass(nn.Module):
    """Reads the weight of a layer without running the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.bypassed = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.used(x) @ self.bypassed.weight.T).sum(-1)


def test_a_leaf_that_the_forward_never_reads_is_an_error() -> None:
    """Hooks that never fire raise, where published code updates such weights with pure noise; then it can
    be left out.
    """
    model = Bypass().requires_grad_(False)
    leaves, x = all_weights(model), torch.ones(2, 3)
    part = Part(Layout(torch.arange(2)), lambda: model(x))
    assert unreached(leaves, lambda: model(x)) == ["bypassed.weight"]
    for direction in (Direction(Key(0, 0), Gaussian()), PerExample(Key(0, 0), Gaussian(), 2)):
        losses = Losses([part], leaves, Scratch(leaves), Flipout(leaves, 9))
        with pytest.raises(RuntimeError, match=r"bypassed\.weight"), losses.along(direction) as at:
            at(0.1)
        rest = without(leaves, ["bypassed.weight"])
        with Losses([part], rest, Scratch(rest), Flipout(rest, 9)).along(direction) as at:
            at(0.1)
    assert not list(hooks(model))


class Outer(nn.Module):
    """A module with a weight of its own that it reads after running a child of the same size."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(1, 2, 9, dtype=torch.float64).view(3, 3))
        self.child = Outer(depth - 1) if depth else nn.Linear(3, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.child(x)) @ self.scale


def test_a_weight_stays_shown_while_children_of_its_module_run() -> None:
    """Nested modules each keep their own displaced weights: the buffer of an outer one is not written
    over.
    """
    model = Outer(2).requires_grad_(False)
    x = torch.ones(2, 3, dtype=torch.float64)
    toy = Toy(model, all_weights(model), 2, lambda rows: model(x[rows]).sum(-1), lambda i: model(x[i : i + 1])[0])
    direction = Direction(Key(0, 0), Gaussian())
    scratch = Scratch(toy.leaves)
    losses = Losses([toy.part(torch.arange(2))], toy.leaves, scratch)
    with losses.along(direction) as at:
        seen = {offset: at(offset) for offset in (0.1, -0.1)}
    for offset, values in seen.items():
        assert torch.allclose(values, toy.at(direction, offset), rtol=0, atol=1e-12)
    held = [buffer.numel() for buffer in scratch._buffers.values()]
    assert max(held) <= 9 + 3  # the largest module's leaves: a weight and its bias


def test_layers_without_a_per_example_form_are_refused_by_name() -> None:
    """A convolution and a bare parameter cannot give each example its own direction, and the error says
    which.
    """
    for model, name in ((nn.Conv1d(2, 2, 3), "weight"), (Outer(0), "scale")):
        with pytest.raises(ValueError, match=rf"{name} \({type(model).__name__}\)"):
            Flipout(all_weights(model), 1)


def test_activations_that_cannot_be_split_into_rows_are_refused() -> None:
    """A leading index that is neither the rows nor all tokens raises: nothing is guessed from
    divisibility.
    """
    layout = Layout(torch.tensor([0, 0, 1, 1]), torch.ones(4, 6, dtype=torch.bool))
    assert layout.of(torch.zeros(4, 9)).tolist() == [0, 0, 1, 1]
    assert layout.of(torch.zeros(24, 9)).tolist() == [0] * 12 + [1] * 12
    for shape in ((8, 9), (12, 9), (2, 9), (24, 2, 9)):
        with pytest.raises(ValueError, match="cannot be split"):
            layout.of(torch.zeros(shape))


def test_losses_that_are_not_one_per_example_are_refused() -> None:
    """A scalar, a wrong count or half precision raises TypeError; micro-batches are joined in order."""
    leaves = all_weights(nn.Linear(2, 2))
    layout = Layout(torch.arange(3))
    for wrong in (torch.tensor(1.0), torch.ones(2), torch.ones(3, 1), torch.ones(3, dtype=torch.bfloat16)):
        with pytest.raises(TypeError, match="one float32 loss per example"):
            Losses([Part(layout, lambda wrong=wrong: wrong)], leaves, Scratch(leaves))()
    halves = [Part(Layout(torch.tensor([i])), lambda i=i: torch.tensor([float(i)])) for i in range(3)]
    assert Losses(halves, leaves, Scratch(leaves))().tolist() == [0, 1, 2]


def test_a_point_asked_twice_is_run_once_until_forgotten() -> None:
    """Within a step a loss is remembered by direction and offset, and counted once."""
    toy = least_squares()
    losses, direction = toy.losses(), Direction(Key(0, 0), Gaussian())
    with losses.along(direction) as at:
        at(0.1), at(0.1), at(-0.1)
    assert losses.forward_passes == 2
    losses.forget()
    with losses.along(direction) as at:
        at(0.1)
    assert losses.forward_passes == 3


def test_only_matching_tensors_move_and_the_rest_stay_bitwise() -> None:
    """Frozen storages are not touched by probe or update, and the probe equals explicit weights."""
    toy = language_model("llama tied")
    everything = toy.weights(), toy.leaves
    toy.leaves = matching(toy.model, r"mlp|norm")
    assert 0 < len(toy.leaves) < len(everything[1])
    ids = {leaf.name: leaf.id for leaf in everything[1]}
    assert all(ids[leaf.name] == leaf.id for leaf in toy.leaves)  # an address does not depend on the subspace
    direction = Direction(Key(0, 0), Gaussian())
    (seen,) = toy.carried(direction, [0.1])
    assert torch.allclose(seen, toy.at(direction, 0.1), rtol=0, atol=1e-12)
    assert all(torch.equal(leaf.tensor, everything[0][leaf.id]) for leaf in everything[1])
    for pattern in ("(", "no such name"):
        with pytest.raises(ValueError, match=r"pattern|matches"):
            matching(toy.model, pattern)
