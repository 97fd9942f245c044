"""Float32 masters of 16-bit weights: small steps add up, and the model reads their rounding."""

from typing import Any

import pytest
import torch
from torch import nn

from zocore.carriers.flipout import Flipout, matmul_weights
from zocore.carriers.layout import Layout
from zocore.carriers.scratch import Scratch
from zocore.methods import build
from zocore.noise.addressed import Key
from zocore.step.losses import Losses, Part
from zocore.subspaces.by_name import all_weights


def _half() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).sin().view_as(parameter) * 0.1 * (number + 1))
    return model.to(torch.bfloat16).requires_grad_(False)


def _losses(model: nn.Module, master: bool) -> Losses:
    x = torch.linspace(-1, 1, 40).view(5, 8).to(torch.bfloat16)
    leaves = all_weights(model, master)
    part = Part(Layout(torch.arange(5)), lambda: model(x).float().square().sum(1))
    return Losses([part], leaves, Scratch(leaves), Flipout(leaves, matmul_weights(model)))


@pytest.mark.parametrize("method", ["mezo", "grzo", "mezo-gv"])
def test_the_model_reads_the_rounded_master(method: str) -> None:
    """After steps the master is float32 and every parameter is its rounding to nearest."""
    model = _half()
    losses = _losses(model, master=True)
    for step in range(3):
        build(method).step(losses.leaves, losses, Key(0, step), 1e-3, 1e-2, {})
        losses.forget()
    for leaf, parameter in zip(losses.leaves, model.parameters(), strict=True):
        assert leaf.tensor.dtype == torch.float32
        assert parameter.dtype == torch.bfloat16
        assert torch.equal(parameter.data, leaf.tensor.to(torch.bfloat16))


def test_steps_below_the_last_place_add_up_in_the_master_alone() -> None:
    """A thousandth of an ulp a step is lost without randomness in bfloat16, and kept by the master."""
    model = _half()
    losses = _losses(model, master=True)
    before = [leaf.tensor.clone() for leaf in losses.leaves]
    for step in range(20):
        build("mezo").step(losses.leaves, losses, Key(0, step), 1e-7, 1e-2, {})
        losses.forget()
    moved = [(leaf.tensor - old).abs().max() for leaf, old in zip(losses.leaves, before, strict=True)]
    assert all(0 < float(distance) < 1e-4 for distance in moved)


def test_probes_leave_master_and_parameters_alone() -> None:
    """Probing writes to neither the masters nor the parameters."""
    model = _half()
    losses = _losses(model, master=True)
    kept = [(leaf.tensor.clone(), p.data.clone()) for leaf, p in zip(losses.leaves, model.parameters(), strict=True)]
    for name in ("mezo", "grzo"):
        method: Any = build(name)
        directions = method.sampler(Key(1, 1), losses, 1e-2)
        method.difference(losses, directions, 1e-2)
    for (master, stored), leaf, parameter in zip(kept, losses.leaves, model.parameters(), strict=True):
        assert torch.equal(master, leaf.tensor)
        assert torch.equal(stored, parameter.data)
