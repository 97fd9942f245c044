"""Low-rank adapters as a subspace: W x + (alpha / r) B A x with only A and B moving (LoRA, arXiv 2106.09685)."""

import math
import re

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from zocore.noise.addressed import Key, Purpose, address, normals
from zocore.subspaces.by_name import matching
from zocore.weights.leaf import Leaf

RANK, ALPHA = 8, 16  # MeZO's: r = 8, alpha = 16 on queries and values
# names of the query and value projections, or of the fused one, by architecture
TARGETS = r".*\.(q_proj|v_proj|query|value|c_attn|query_key_value|q_lin|v_lin)"


def lora(model: nn.Module, seed: int, rank: int = RANK) -> list[Leaf]:
    """Add adapters to the model's queries and values and return them as leaves.

    A starts with variance 1 / (3 width) (Kaiming-uniform's), from the run's seed, and B at zero, so the model
    is unchanged at first. With B = 0 the loss does not feel A yet: a method that normalises its step still
    moves A, by noise. Raises ValueError when the model has no such projections.
    """
    targets = [name for name, _ in model.named_modules() if re.fullmatch(TARGETS, name)]
    if not targets:
        raise ValueError(
            "the lora subspace needs query and value projections, and this model has none by their usual names"
        )
    with torch.random.fork_rng():  # peft draws A from the global generator; ours replaces it below
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=targets, lora_dropout=0.0), model)
    model.requires_grad_(False)
    leaves = matching(model, r"lora_[AB]\.")
    for leaf in leaves:
        if "lora_A" in leaf.name:
            _initialise(leaf.tensor, leaf.id, seed)
    return leaves


def _initialise(a: Tensor, leaf_id: int, seed: int) -> None:
    z = normals(address(Key(seed, 0), leaf_id, Purpose.INITIAL), 0, a.numel())
    a.copy_((z / math.sqrt(3 * a.shape[1])).view(a.shape))
