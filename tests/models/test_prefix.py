"""The frozen prefix: losses with it are bitwise those without, on every architecture and kind of head."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from tests.support import tiny
from tests.support.toys import NAMES, language_model
from zocore.data.tasks import Example, Task
from zocore.models.load import LoadedModel
from zocore.models.objectives.base import Objective
from zocore.models.objectives.choose import objective_for
from zocore.models.prefix import Prefix, frozen_prefix
from zocore.subspaces.blocks import blocks_of, top
from zocore.subspaces.by_name import all_weights, matching
from zocore.weights.leaf import Leaf

TEXTS = ["It was", "the film was good", "the film was very bad food and a b a b or not", "a"]
EXAMPLES = [Example({"text": text}, number % 2) for number, text in enumerate(TEXTS)]
KINDS = [(family, "causal") for family in tiny.CAUSAL]
KINDS += [(family, kind) for family in tiny.MASKED for kind in tiny.ENCODER_HEADS]


def objective(family: str, kind: str, words: Sequence[str] = ("bad", "good"), **sizes: Any) -> Objective:
    """An objective of a tiny model with three blocks."""
    changes: dict[str, Any] = {"num_hidden_layers": 3, **({"num_labels": 2} if kind == "classifier" else {}), **sizes}
    model = tiny.model(family, "" if kind == "causal" else kind, **changes)
    template = "{text} It was" if kind == "causal" else "{text}"
    rows = tuple(EXAMPLES)
    task = Task("toy", "Toy", template, ("0", "1"), tuple(words), rows, rows, rows)
    loaded = LoadedModel(model, tiny.tokenizer(frame=family in tiny.MASKED), kind, "tiny", "", "")  # type: ignore[arg-type]
    return objective_for(loaded, task)


def both(maker: Objective, leaves: Sequence[Leaf]) -> tuple[Prefix, Tensor, Tensor]:
    """The prefix, and the losses of a ragged batch without it and with it."""
    batch = maker.batch(EXAMPLES)
    prefix = frozen_prefix(maker.model, leaves, lambda: maker.losses(maker.batch(EXAMPLES[:1])))
    assert prefix is not None
    with torch.no_grad():
        plain = maker.losses(batch)
        output = prefix.output(lambda: maker.log_probs(batch))
        with prefix.standing_in(output):
            found = maker.losses(batch)
        assert torch.equal(maker.losses(batch), plain)  # and afterwards the model is what it was
    return prefix, plain, found


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_losses_with_a_frozen_prefix_are_bitwise_those_without(family: str, kind: str, count: int) -> None:
    """Decoders padded on the left; masked models, classifiers and encoders padded on the right."""
    maker = objective(family, kind)
    prefix, plain, found = both(maker, top(maker.model, count))
    assert len(prefix.blocks) == 3 - count
    assert prefix.of == 3
    assert torch.equal(found, plain)
    assert len(set(plain.tolist())) > 1


@pytest.mark.parametrize("family", tiny.CAUSAL)
def test_labels_of_several_tokens_and_16_bits(family: str) -> None:
    """One row per label, and a hidden state in bfloat16."""
    maker = objective(family, "causal", ("very bad food", "good"))
    maker.model.to(torch.bfloat16)
    _, plain, found = both(maker, top(maker.model, 1))
    assert torch.equal(found, plain)


@pytest.mark.parametrize("name", NAMES)
def test_in_float64_too(name: str) -> None:
    """The toys of the conformance suite, called with masks and positions of their own."""
    toy = language_model(name)
    rows = torch.arange(toy.count)
    prefix = frozen_prefix(toy.model, top(toy.model, 1), lambda: toy.forward(rows))
    assert prefix is not None
    with torch.no_grad(), prefix.standing_in(prefix.output(lambda: toy.forward(rows))):
        found = toy.forward(rows)
    assert torch.equal(found, toy.forward(rows))


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_the_later_blocks_still_feel_their_weights(family: str, kind: str) -> None:
    """With moved weights above, the losses move too, to the bits of a whole forward; only the prefix is skipped."""
    maker = objective(family, kind)
    leaves = top(maker.model, 1)
    _, before, _ = both(maker, leaves)
    for leaf in leaves:
        leaf.tensor.mul_(1.01)
    _, plain, found = both(maker, leaves)
    assert torch.equal(found, plain)
    assert not torch.equal(plain, before)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_frozen_blocks_do_not_run(family: str) -> None:
    """Inside the block no module of a frozen block is entered; an error there would be raised."""
    maker = objective(family, "causal" if family == "llama" else "masked")
    prefix = frozen_prefix(maker.model, top(maker.model, 1), lambda: maker.losses(maker.batch(EXAMPLES[:1])))
    assert prefix is not None
    batch = maker.batch(EXAMPLES)
    output = prefix.output(lambda: maker.log_probs(batch))

    def refuse(*_: Any) -> None:
        raise AssertionError("a frozen block ran")

    inner = [module for block in prefix.blocks for module in block.modules() if module is not block]
    handles = [module.register_forward_pre_hook(refuse) for module in inner]
    with torch.no_grad(), prefix.standing_in(output):
        maker.losses(batch)
    with pytest.raises(AssertionError, match="a frozen block ran"):
        maker.losses(batch)
    for handle in handles:
        handle.remove()


def test_adapters_in_the_last_block_leave_the_others_frozen() -> None:
    """PEFT's wrappers move as any other module would."""
    maker = objective("llama", "causal")
    inject_adapter_in_model(LoraConfig(r=2, target_modules=r".*layers\.2\..*v_proj"), maker.model)
    leaves = matching(maker.model, "lora_")
    for leaf in leaves:
        leaf.tensor.normal_()
    prefix, plain, found = both(maker, leaves)
    assert len(prefix.blocks) == 2
    assert torch.equal(found, plain)


def test_a_head_alone_leaves_every_block_frozen() -> None:
    """With all blocks skipped a call costs what the head does, which is not nothing."""
    maker = objective("bert", "classifier")
    prefix, plain, found = both(maker, matching(maker.model, "^classifier"))
    assert len(prefix.blocks) == 3
    assert 0 < 1 - prefix.share < 0.1
    assert torch.equal(found, plain)


def test_gradients_of_what_moves_are_the_same() -> None:
    """Backprop through the later blocks alone gives the same bits as through the whole model."""
    maker = objective("bert", "encoder")
    leaves = [leaf for leaf in top(maker.model, 1) if "pooler" not in leaf.name]
    batch = maker.batch(EXAMPLES)
    prefix = frozen_prefix(maker.model, leaves, lambda: maker.losses(batch))
    assert prefix is not None
    parameters = [dict(maker.model.named_parameters())[leaf.name].requires_grad_(True) for leaf in leaves]
    plain = torch.autograd.grad(maker.losses(batch).mean(), parameters)
    with prefix.standing_in(prefix.output(lambda: maker.log_probs(batch))):
        found = torch.autograd.grad(maker.losses(batch).mean(), parameters)
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


def test_where_something_below_moves_nothing_is_frozen() -> None:
    """All weights, the first block's and the embedding's alone: there is no prefix."""
    maker = objective("llama", "causal")

    def forward() -> Tensor:
        return maker.losses(maker.batch(EXAMPLES))

    assert frozen_prefix(maker.model, all_weights(maker.model), forward) is None
    assert frozen_prefix(maker.model, matching(maker.model, r"layers\.0\..*norm"), forward) is None
    assert frozen_prefix(maker.model, matching(maker.model, "embed"), forward) is None
    plain = nn.Sequential(nn.Linear(2, 2))
    assert frozen_prefix(plain, all_weights(plain), lambda: plain(torch.ones(1, 2))) is None


def test_a_model_that_writes_into_its_hidden_state_is_told() -> None:
    """The next forward would begin from something else: an error, not other losses."""
    maker = objective("llama", "causal")
    batch = maker.batch(EXAMPLES)
    prefix = frozen_prefix(maker.model, top(maker.model, 1), lambda: maker.losses(batch))
    assert prefix is not None

    def write(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        args[0].add_(1.0)

    blocks_of(maker.model)[-1].register_forward_pre_hook(write)
    with (
        torch.no_grad(),
        pytest.raises(RuntimeError, match="writes into its input"),
        prefix.standing_in(prefix.output(lambda: maker.log_probs(batch))),
    ):
        maker.losses(batch)


def test_blocks_are_themselves_again_after_an_error() -> None:
    """A failure inside leaves the model's own forwards, also those that an instance had of its own."""
    maker = objective("llama", "causal")
    batch = maker.batch(EXAMPLES)
    prefix = frozen_prefix(maker.model, top(maker.model, 1), lambda: maker.losses(batch))
    assert prefix is not None
    output = prefix.output(lambda: maker.log_probs(batch))
    own = prefix.blocks[0].forward
    prefix.blocks[0].forward = own  # as accelerate leaves it on quantised models
    with pytest.raises(KeyError), prefix.standing_in(output):
        raise KeyError
    assert vars(prefix.blocks[0])["forward"] is own
    assert "forward" not in vars(prefix.blocks[1])
