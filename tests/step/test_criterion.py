"""What label scores are worth: derivatives against autograd, F1 against its definition, and what has none."""

import pytest
import torch
from torch import Tensor

from zocore.step.criterion import Criterion, CrossEntropy, Margin, MissedF1, Mistake

LABELS = torch.tensor([0, 1, 2, 2, 1, 0])


def scores(seed: int = 0, count: int = 3) -> Tensor:
    """Random label scores (6, count), float64."""
    return 2 * torch.randn(len(LABELS), count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("criterion", [CrossEntropy(), Margin(), Margin(5.0)])
@pytest.mark.parametrize("seed", range(5))
def test_errors_are_the_derivative_in_the_scores(criterion: Criterion, seed: int) -> None:
    """What learned feedback carries back is autograd's gradient of the values through the softmax."""
    z = scores(seed).requires_grad_()
    (expected,) = torch.autograd.grad(criterion(z.log_softmax(1), LABELS).sum(), z)
    torch.testing.assert_close(criterion.errors(z.detach().log_softmax(1), LABELS), expected)


def test_margin_is_zero_once_the_lead_is_there() -> None:
    """A right answer that leads by more than 1 costs nothing; one that trails by 2 costs 3."""
    z = torch.tensor([[2.0, 0.5, 0.0], [0.0, 2.0, 0.0]])
    assert Margin()(z.log_softmax(1), torch.tensor([0, 0])).tolist() == pytest.approx([0.0, 3.0])


def test_mistakes_are_one_less_accuracy() -> None:
    """Their mean is the share of wrong answers."""
    z = scores()
    right = (z.argmax(1) == LABELS).double().mean()
    assert float(Mistake()(z.log_softmax(1), LABELS).mean()) == pytest.approx(1 - float(right))


@pytest.mark.parametrize("seed", range(10))
def test_f1_is_the_mean_over_labels_of_harmonic_means(seed: int) -> None:
    """Against precision and recall computed label by label; labels that occur nowhere count not at all."""
    z, parts = scores(seed, 4), []
    answers = z.argmax(1)
    for label in range(4):
        hits = int((answers.eq(label) & LABELS.eq(label)).sum())
        answered, true = int((answers == label).sum()), int(LABELS.eq(label).sum())
        if answered + true:
            precision, recall = hits / max(answered, 1), hits / max(true, 1)
            parts.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    values = MissedF1()(z.log_softmax(1), LABELS)
    assert values.tolist() == pytest.approx([1 - sum(parts) / len(parts)] * len(LABELS))
    assert MissedF1().report(z.log_softmax(1), LABELS)["f1"] == pytest.approx(sum(parts) / len(parts))


@pytest.mark.parametrize("criterion", [Mistake(), MissedF1()])
def test_what_is_flat_has_no_errors(criterion: Criterion) -> None:
    """Accuracy and F1 say so rather than hand on zeros."""
    with pytest.raises(ValueError, match="no derivative"):
        criterion.errors(scores().log_softmax(1), LABELS)
