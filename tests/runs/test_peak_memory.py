"""A zeroth-order step takes the memory of a forward pass and one tensor, and not of a gradient."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from tests.support.allocations import peak
from zocore.carriers.flipout import Flipout, matmul_weights
from zocore.carriers.layout import Layout
from zocore.carriers.scratch import Scratch
from zocore.methods import build
from zocore.models.objectives.label_rows import only_rows
from zocore.noise.addressed import Key
from zocore.step.losses import Losses, Part
from zocore.subspaces.by_name import all_weights


def _model() -> nn.Module:
    shape: dict[str, Any] = {"vocab_size": 2048, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6}
    return LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4, use_cache=False)).requires_grad_(False).eval()


@pytest.mark.parametrize("method", ["mezo", "n-spsa", "mezo-greedy", "fzoo"])
def test_a_step_needs_a_forward_and_the_largest_tensor(method: str) -> None:
    """Peak of weights and step together stays within 5 % of weights, one plain forward and the largest tensor."""
    model = _model()
    ids = torch.arange(16 * 32).view(16, 32) % 2000 + 3
    last = torch.full((16, 1), 31)

    def forward() -> torch.Tensor:
        with torch.no_grad(), only_rows(model, last):
            return model(input_ids=ids).logits[:, 0].log_softmax(-1)[:, 0].neg()

    leaves = all_weights(model)
    weights = sum(leaf.tensor.nbytes for leaf in leaves)
    largest = max(leaf.tensor.nbytes for leaf in leaves)
    layout = Layout(torch.arange(16))

    def step() -> None:
        losses = Losses([Part(layout, forward)], leaves, Scratch(leaves), None)
        build(method).step(leaves, losses, Key(0, 0), 1e-9, 1e-3, {})

    forward()
    step()
    allowed = 1.05 * (weights + peak(forward)) + largest
    assert weights + peak(step) <= allowed
    gradient = weights  # what backprop would hold besides the activations of all layers
    assert peak(step) < gradient


def test_per_example_directions_hold_one_base_at_a_time() -> None:
    """GRZO holds the base of one tensor and its signs, and no copy of the weights."""
    model = _model()
    ids = torch.arange(16 * 32).view(16, 32) % 2000 + 3
    layout = Layout(torch.arange(16), torch.ones(16, 32, dtype=torch.bool))

    def forward() -> torch.Tensor:
        with torch.no_grad(), only_rows(model, torch.full((16, 1), 31)):
            return model(input_ids=ids).logits[:, 0].log_softmax(-1)[:, 0].neg()

    leaves = all_weights(model)

    def step() -> None:
        losses = Losses([Part(layout, forward)], leaves, Scratch(leaves), Flipout(leaves, matmul_weights(model)))
        build("grzo").step(leaves, losses, Key(0, 0), 1e-9, 1e-3, {})

    step()
    largest = max(leaf.tensor.nbytes for leaf in leaves)
    assert peak(step) - peak(forward) <= 3 * largest
