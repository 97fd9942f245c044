"""The last blocks as a subspace, on every architecture: what moves, what writes, and what is refused."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from tests.support import tiny
from zocore.subspaces.blocks import blocks_of, of_blocks, residual_writers, shares, top, trace, writers
from zocore.subspaces.by_name import all_weights

KINDS = [(family, "") for family in tiny.CAUSAL]
KINDS += [(family, kind) for family in tiny.MASKED for kind in tiny.ENCODER_HEADS]

# the two maps of a block that add to the hidden state, as each architecture calls them
WRITERS = {
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "opt": ("self_attn.out_proj", "fc2"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "qwen2": ("self_attn.o_proj", "mlp.down_proj"),
    "qwen3": ("self_attn.o_proj", "mlp.down_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "bert": ("attention.output.dense", "output.dense"),
    "roberta": ("attention.output.dense", "output.dense"),
}


def names_in(block: nn.Module, modules: list[nn.Module]) -> tuple[str, ...]:
    """What a block calls some of its modules."""
    names = {module: name for name, module in block.named_modules()}
    return tuple(names[module] for module in modules)


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_the_maps_that_write_into_the_hidden_state_are_found(family: str, kind: str) -> None:
    """Two in each block, in order; adding to what they give out moves the block's output, whatever else it does."""
    model = tiny.model(family, kind, num_hidden_layers=3)
    blocks = blocks_of(model)
    assert len(blocks) == 3
    for count in (1, 2, 3, None):
        found = residual_writers(model, count)
        kept = blocks[-count:] if count else blocks
        assert len(found) == 2 * len(kept)
        assert [names_in(block, found[2 * i : 2 * i + 2]) for i, block in enumerate(kept)] == [WRITERS[family]] * len(
            kept
        )


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_writers_are_their_weights_and_offsets(family: str, kind: str) -> None:
    """The subspace holds exactly the parameters of those maps, with the ids they have among all weights."""
    model = tiny.model(family, kind)
    ids = {leaf.name: leaf.id for leaf in all_weights(model)}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for count in (1, None):
        wanted = {names[p] for module in residual_writers(model, count) for p in module.parameters()}
        leaves = writers(model, count)
        assert {leaf.name for leaf in leaves} == wanted
        assert all(ids[leaf.name] == leaf.id for leaf in leaves)


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_the_top_is_what_no_earlier_block_reads(family: str, kind: str) -> None:
    """Every parameter of the last k blocks moves, none of the others' and no embedding; norms and heads after do."""
    model = tiny.model(family, kind, num_hidden_layers=3)
    names = {module: name for name, module in model.named_modules()}
    blocks = [names[block] + "." for block in blocks_of(model)]
    for count in (1, 2, 3):
        found = {leaf.name for leaf in top(model, count)}
        inside = {name for name, _ in model.named_parameters() if name.startswith(tuple(blocks[-count:]))}
        after = found - inside
        assert inside <= found
        assert not any(name.startswith(tuple(blocks)) or "embed" in name.lower() or "wte" in name for name in after)
    afterwards = {"": ("norm.weight", "ln_f.weight"), "masked": ("bias",), "classifier": ("classifier",)}
    if kind != "encoder":
        assert any(end in name for name in after for end in afterwards[kind])


def test_a_head_that_is_the_embedding_stays() -> None:
    """A tied head would move the embedding below every block: it is left out, an untied one moves."""
    for tied in (True, False):
        model = tiny.model("llama", tie_word_embeddings=tied)
        assert ("lm_head.weight" in {leaf.name for leaf in top(model, 1)}) == (not tied)


def test_an_adapted_map_is_found_whole() -> None:
    """Where adapters wrap a map, the writer is base and adapter together, not the adapter's last factor."""
    model = tiny.model("llama")
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["o_proj", "v_proj"]), model)
    found = residual_writers(model, 1)
    assert names_in(blocks_of(model)[-1], found) == WRITERS["llama"]
    assert hasattr(found[0], "base_layer")


@pytest.mark.parametrize(
    ("word", "found"),
    {
        "top:1": ("top", 1),
        "top:12": ("top", 12),
        "writers": ("writers", None),
        "writers:3": ("writers", 3),
        "all": None,
        "layers.0.top": None,
        "writers_2": None,
    }.items(),
)
def test_the_words_are_read(word: str, found: tuple[str, int | None] | None) -> None:
    """A word with its number, or nothing for any other subspace."""
    assert of_blocks(word) == found


@pytest.mark.parametrize("word", ["top:0", "top:", "top", "top:two", "top:-1", "top:1.5", "writers:0", "writers:"])
def test_a_word_without_a_number_of_blocks_is_refused(word: str) -> None:
    """Nothing, zero and what is no number: one sentence that shows how to write it."""
    with pytest.raises(ValueError, match="needs a number of blocks from 1 on, as in (top|writers):2"):
        of_blocks(word)


def test_more_blocks_than_there_are_and_models_without_blocks_are_refused() -> None:
    """One sentence each."""
    model = tiny.model("llama")
    for take in (top, writers, residual_writers):
        with pytest.raises(ValueError, match="the model has 2 blocks, so the last 99 cannot be taken"):
            take(model, 99)
    with pytest.raises(ValueError, match="Sequential has no list of blocks: name what moves by a pattern"):
        blocks_of(nn.Sequential(nn.Linear(2, 2)))


class Shared(nn.Module):
    """One block that runs three times."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Three times the same."""
        for _ in range(3):
            x = self.layers[0](x)
        return x


def test_blocks_that_run_more_than_once_are_no_blocks() -> None:
    """A shared block is before itself: nothing can be frozen below it."""
    model = Shared()
    with pytest.raises(ValueError, match="do not run one after the other, once each"):
        trace(model, lambda: model(torch.ones(1, 4)))


@pytest.mark.parametrize("layers", [3, 6])
def test_the_share_of_equal_blocks_is_their_number(layers: int) -> None:
    """Without a head, k of L blocks do k / L of the multiplications; a head that reads every token adds its own."""
    ids = torch.randint(4, 100, (2, 7))
    encoder: Any = tiny.model("bert", "encoder", num_hidden_layers=layers)
    encoder.pooler = None
    seen, blocks = trace(encoder, lambda: encoder(input_ids=ids)), blocks_of(encoder)
    for count in range(layers + 1):
        assert shares(blocks[:count], seen) == pytest.approx(count / layers)
    decoder = tiny.model("llama", num_hidden_layers=layers)
    seen, blocks = trace(decoder, lambda: decoder(input_ids=ids)), blocks_of(decoder)
    inside = sum(m.weight.numel() for block in blocks for m in block.modules() if isinstance(m, nn.Linear))
    assert shares(blocks, seen) == pytest.approx(inside / (inside + decoder.lm_head.weight.numel()))
