"""Heads: features and the head give the objective's scores, and the closed-form derivative is autograd's."""

from typing import Any

import pytest
import torch
from torch.nn.functional import nll_loss

from tests.support import tiny
from zocore.data.tasks import Example, Task
from zocore.models.objectives.base import Objective
from zocore.models.objectives.causal import CausalChoice
from zocore.models.objectives.encoder import Classification, LabelSimilarity
from zocore.models.objectives.masked import MaskedChoice

TEXTS = ("the film was great", "food", "It was not the film and the food was very very bad", "a b a")
EXAMPLES = tuple(Example({"text": text}, number % 2) for number, text in enumerate(TEXTS))
MAKERS: dict[str, Any] = {
    "causal": CausalChoice,
    "masked": MaskedChoice,
    "classifier": Classification,
    "encoder": LabelSimilarity,
}
KNOWN = [(family, "causal") for family in tiny.CAUSAL] + [
    (family, kind) for family in tiny.MASKED for kind in ("masked", "classifier", "encoder")
]


def objective(
    family: str, kind: str, dtype: torch.dtype = torch.float32, words: tuple[str, ...] = ("terrible", "great")
) -> Objective:
    task = Task("toy", "Toy", "{text} It was {label}", ("0", "1"), words, EXAMPLES, EXAMPLES, EXAMPLES)
    made: Objective = MAKERS[kind](tiny.model(family, kind, dtype=dtype), tiny.tokenizer(family in tiny.MASKED), task)
    return made


@pytest.mark.parametrize(("family", "kind"), KNOWN)
def test_the_head_makes_the_objectives_scores_from_its_features(family: str, kind: str) -> None:
    """One forward gives the features, (B, D) and float32, and the head's log-probabilities equal the objective's."""
    one = objective(family, kind)
    batch = one.batch(EXAMPLES)
    features = one.features(batch)
    assert features.shape == (len(EXAMPLES), tiny.HIDDEN)
    assert features.dtype == torch.float32
    assert one.head is not None
    torch.testing.assert_close(one.head.log_probs(features), one.log_probs(batch), atol=1e-6, rtol=1e-6)
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in one.model.modules())


@pytest.mark.parametrize(("family", "kind"), KNOWN)
def test_the_derivative_of_the_head_is_autograds(family: str, kind: str) -> None:
    """In float64, p - onehot(y) pulled back is the gradient of each example's loss in its features, to 1e-12."""
    one = objective(family, kind, torch.float64)
    batch = one.batch(EXAMPLES)
    features = one.features(batch).requires_grad_()
    assert one.head is not None
    log_probs = one.head.log_probs(features)
    (expected,) = torch.autograd.grad(nll_loss(log_probs, batch.labels, reduction="sum"), features)
    errors = log_probs.detach().exp()
    errors[torch.arange(len(EXAMPLES)), batch.labels] -= 1
    torch.testing.assert_close(one.head.pull_back(features.detach(), errors), expected, atol=1e-12, rtol=1e-12)
    assert expected.abs().max() > 1e-3


def test_sixteen_bits_give_wide_features_and_a_wide_head() -> None:
    """In bf16 features and head are float32, and their scores are the model's to its own rounding."""
    one = objective("llama", "causal", torch.bfloat16)
    batch = one.batch(EXAMPLES)
    assert one.head is not None
    features = one.features(batch)
    assert features.dtype == one.head.log_probs(features).dtype == torch.float32
    torch.testing.assert_close(one.head.log_probs(features), one.log_probs(batch), atol=3e-2, rtol=3e-2)


def test_what_is_not_made_by_one_linear_layer_has_no_known_head() -> None:
    """Label words of several tokens, logits of a chosen token, and logits that go through a softcap."""
    capped = objective("llama", "causal")
    forward = capped.model.forward

    def softcap(*args: Any, **inputs: Any) -> Any:
        found = forward(*args, **inputs)
        found.logits = 30 * torch.tanh(found.logits / 30)
        return found

    capped.model.forward = softcap
    unknown = [capped, objective("llama", "classifier"), objective("llama", "causal", words=("a b", "great"))]
    assert [one.head for one in unknown] == [None, None, None]
    for one in unknown[:2]:
        with pytest.raises(ValueError, match="not made from features"):
            one.features(one.batch(EXAMPLES))
