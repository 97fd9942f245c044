"""The engine on a device of its own: nothing mixes devices, nothing waits between two forwards, the bits are the CPU's.

The device does not exist (`tests/support/far.py`); its tensors have values, and every operation on them that a
GPU would refuse raises.
"""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support import far
from tests.support.toys import Toy, language_model, mixed
from zocore.carriers.flipout import Flipout
from zocore.carriers.in_place import InPlace
from zocore.carriers.layout import Layout
from zocore.carriers.scratch import Scratch
from zocore.directions.laws import Combination, Direction, Gaussian, Law, LowRank, Masked, Rademacher
from zocore.directions.per_example import PerExample
from zocore.methods import build
from zocore.noise.addressed import Key
from zocore.step.losses import Losses, Part
from zocore.step.step import Method
from zocore.step.update import Adam, Momentum, Sgd
from zocore.subspaces.by_name import all_weights
from zocore.weights.leaf import Leaf

CARD = torch.device("meta", 0)
KEY = Key(3, 4)
LAWS: dict[str, Law] = {
    "gaussian": Gaussian(),
    "rademacher": Rademacher(),
    "low-rank": LowRank(2),
    "sparse": Masked(Gaussian(), 0.5),
}


def on_card(toy: Toy) -> tuple[list[Leaf], Losses]:
    """A copy of a toy's model on the device, with the losses of its batch there."""
    model = far.sent(deepcopy(toy.model))
    assert toy.ids is not None and toy.mask is not None
    ids, mask = far.Far(toy.ids, CARD), far.Far(toy.mask, CARD)
    target = far.Far(torch.arange(toy.count) % 3, CARD)

    def forward() -> Tensor:
        out = model(ids, mask) if not hasattr(model, "config") else model(input_ids=ids, attention_mask=mask).logits
        logits = out[:, -1] if out.ndim == 3 else out
        return functional.cross_entropy(logits.float(), target, reduction="none")

    leaves = [leaf for leaf in all_weights(model) if leaf.name in {own.name for own in toy.leaves}]
    part = Part(Layout(torch.arange(toy.count), mask.bool()), forward)
    return leaves, Losses([part], leaves, Scratch(leaves), Flipout(leaves, 1000))


def values(leaves: list[Leaf]) -> dict[str, Tensor]:
    return {leaf.name: far.near(leaf.tensor).clone() for leaf in leaves}


def toy_of(name: str, dtype: torch.dtype) -> Toy:
    return mixed(dtype=dtype) if name == "mixed" else language_model(name, dtype=dtype)


RULES = {"sgd": Sgd(decay=0.1), "momentum": Momentum(), "adam": Adam()}
HALVES = (torch.bfloat16, torch.float16)
CASES = [(torch.bfloat16, "gaussian", "grzo", "sgd"), (torch.float32, "low-rank", "grzo", "adam")]
CASES += [(torch.float32, law, method, "sgd") for law in LAWS for method in ("mezo", "grzo")]
CASES += [(dtype, law, "grzo", "sgd") for dtype in HALVES for law in ("gaussian", "low-rank", "sparse")]
CASES += [(dtype, "rademacher", "mezo", rule) for dtype in (torch.float32, torch.float16) for rule in RULES]
CASES += [(torch.bfloat16, "gaussian", "grzo", rule) for rule in ("momentum", "adam")]


def first(cases: list[tuple], count: int) -> list:
    """The first few on every run, the others with the slow tests."""
    return [*cases[:count], *(pytest.param(*case, marks=pytest.mark.slow) for case in cases[count:])]


@pytest.mark.parametrize(("dtype", "law", "method", "rule"), first(CASES, 4))
def test_recorded_scalars_give_the_same_weights_on_another_device(dtype, law: str, method: str, rule: str) -> None:
    """A step done on a CPU and replayed on the device: bit for bit, for every law, rule and dtype.

    Mixed has a table that is tied to its head and one (the positions) that is only looked up, whose touched rows
    come from the recording as CPU tensors.
    """
    toy = mixed(dtype=dtype)
    found = build(method, law=LAWS[law], update=RULES[rule]).prepared(toy.leaves)
    assert isinstance(found, Method)
    with far.Device():
        leaves, _ = on_card(toy)
        states: tuple[dict, dict] = ({}, {})
        for number in range(2):
            key = Key(5, number)
            step = found.step(toy.leaves, toy.losses(), key, 1e-2, 1e-2, states[0])
            assert step.coefficients
            found.apply(leaves, step.directions, step.coefficients, step.touched, key, 1e-2, states[1])
        here = {leaf.name: leaf.tensor for leaf in toy.leaves}
        assert all(torch.equal(here[name], there) for name, there in values(leaves).items())


STEPS = [("mixed", law, "grzo") for law in LAWS]
STEPS += [(name, "gaussian", "grzo") for name in ("gpt2", "opt", "bert")]
STEPS += [("opt", "low-rank", "grzo"), ("bert", "sparse", "mezo")]
STEPS += [("mixed", "gaussian", method) for method in ("mezo", "mezo-gv", "mezo-greedy", "fzoo", "n-spsa", "openai-es")]


@pytest.mark.parametrize(("name", "law", "method"), first(STEPS, 2))
def test_nothing_waits_for_the_device_between_two_forwards(name: str, law: str, method: str) -> None:
    """A difference fetches its losses at once, after its last forward; a ranking does too. No device is mixed.

    What transformers itself waits for in a forward (it looks at the mask) is counted off.
    """
    toy = toy_of(name, torch.float32)
    with far.Device() as device, torch.no_grad():
        leaves, losses = on_card(toy)
        found = build(method, law=LAWS[law]).prepared(leaves)
        assert isinstance(found, Method)
        losses()
        device.waits.clear()
        losses()
        own = len(device.waits)
        found.step(leaves, losses, Key(3, 0), 1e-3, 1e-3, {})  # what is found out once in a run
        passes = losses.forward_passes

        def asked() -> int:
            return len(device.waits) - own * (losses.forward_passes - passes)

        device.waits.clear()
        directions = found.sampler(Key(3, 1), losses, 1e-3)
        assert asked() == (method in ("mezo-gv", "mezo-greedy"))  # the ranking
        device.waits.clear()
        passes = losses.forward_passes
        measured = found.difference(losses, directions, 1e-3)
        assert asked() == 1 and measured.finite
        assert losses.forward_passes > passes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("law", ["gaussian", *(pytest.param(law, marks=pytest.mark.slow) for law in list(LAWS)[1:])])
def test_probes_on_another_device_see_the_cpus_weights(dtype: torch.dtype, law: str) -> None:
    """Losses along a direction are those on the CPU, to the rounding of other kernels; the weights stay put."""
    toy = mixed(dtype=dtype)
    prepared = LAWS[law].prepared(toy.leaves)
    target = torch.arange(toy.count) % 3

    def near_losses() -> Tensor:
        return functional.cross_entropy(toy.model(toy.ids, toy.mask).float(), target, reduction="none")

    with far.Device(), torch.no_grad():
        leaves, losses = on_card(toy)
        before = values(leaves)
        several = Combination(((0.5, Direction(KEY, prepared)), (-1.0, Direction(Key(3, 9), prepared))))
        for direction in (Direction(KEY, prepared), several, PerExample(KEY, prepared, toy.count)):
            with losses.along(direction) as at:
                there = far.near(at(0.05))
            carrier = toy.losses()
            carrier.parts = [Part(carrier.parts[0].layout, near_losses)]
            with carrier.along(direction) as at:
                here = at(0.05)
            assert torch.allclose(here, there, rtol=1e-5 if dtype == torch.float32 else 0.02)
        assert all(torch.equal(before[name], tensor) for name, tensor in values(leaves).items())


class Spread(nn.Module):
    """Layers on two devices; each fetches its input, as a model spread by accelerate does."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first, self.norm, self.last = (
            nn.Embedding(11, 6),
            nn.Linear(6, 8),
            nn.LayerNorm(8),
            nn.Linear(8, 3),
        )
        for module in (self.table, self.first, self.norm, self.last):
            module.forward = _fetching(module, module.forward)  # type: ignore[method-assign]

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(self.norm(self.first(self.table(ids)))).mean(1)


def _fetching(module: nn.Module, forward):
    return lambda x: forward(x.to(module.weight.device))


@pytest.mark.parametrize("method", ["mezo", "grzo"])
@pytest.mark.parametrize("law", ["gaussian", "low-rank"])
def test_one_process_serves_a_model_on_several_devices(method: str, law: str) -> None:
    """Buffers, noise, signs and updates are each where their layer is; the weights are those of one device."""
    torch.manual_seed(0)
    model = Spread().requires_grad_(False)
    ids, target = torch.randint(0, 11, (4, 5)), torch.arange(4) % 3
    ends = []
    for places in (lambda name: "meta:0", lambda name: "meta:1" if name.startswith(("norm", "last")) else "meta:0"):
        with far.Device(), torch.no_grad():
            torch.manual_seed(0)
            own = far.sent(Spread().requires_grad_(False), places=places)
            out = torch.device(places("last"))
            leaves = all_weights(own)
            there, wanted = far.Far(ids, CARD), far.Far(target, out)
            part = Part(
                Layout(torch.arange(4), torch.ones(4, 5, dtype=torch.bool)),
                lambda: functional.cross_entropy(own(there), wanted, reduction="none"),  # noqa: B023
            )
            losses = Losses([part], leaves, Scratch(leaves), Flipout(leaves, 1000))
            build(method, law=LAWS[law]).step(leaves, losses, KEY, 1e-2, 1e-2, {})
            ends.append(values(leaves))
            assert {leaf.tensor.device for leaf in leaves} == {torch.device(places(leaf.name)) for leaf in leaves}
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not all(torch.equal(ends[0][name], p) for name, p in model.named_parameters())


def test_in_place_probes_come_back_on_another_device() -> None:
    """Weights that are moved themselves are moved where they are."""
    toy = mixed(dtype=torch.float32)
    with far.Device(), torch.no_grad():
        leaves, _ = on_card(toy)
        before = values(leaves)
        with InPlace(leaves).along(Direction(KEY, Gaussian())) as move_to:
            move_to(0.1)
            assert not torch.equal(before["inner.weight"], values(leaves)["inner.weight"])
        assert all(torch.allclose(before[name], tensor, atol=1e-6) for name, tensor in values(leaves).items())


def test_the_device_that_does_not_exist_refuses_what_a_gpu_refuses() -> None:
    """The test's own instrument: mixed devices raise, and what waits is noticed."""
    with far.Device() as device:
        there, here = far.Far(torch.arange(3.0), CARD), torch.arange(3.0)
        with pytest.raises(RuntimeError, match="mixes tensors"):
            there + here
        with pytest.raises(RuntimeError, match="mixes tensors"):
            there + far.Far(here, torch.device("meta", 1))
        assert (there + there).device == CARD and not device.waits
        float(there.sum())
        there.cpu()
        torch.unique(there)
        here.to(CARD)
        assert len(device.waits) == 4
        here.to(CARD, non_blocking=True)
        assert len(device.waits) == 4
