"""A linear probe: softmax regression on frozen features, the least that any tuning has to beat."""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

STEPS = 100  # of L-BFGS, each on all rows
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # on half the squared weights; the best on dev is taken


@dataclass(frozen=True)
class Probe:
    """Weights on standardised features."""

    mean: Tensor  # (d,)
    std: Tensor  # (d,)
    weight: Tensor  # (labels, d)
    bias: Tensor  # (labels,)

    def log_probs(self, features: Tensor) -> Tensor:
        """Return the log-probabilities (n, labels) of rows of features (n, d)."""
        return (((features - self.mean) / self.std) @ self.weight.T + self.bias).log_softmax(dim=1)

    def judge(self, features: Tensor, labels: Tensor) -> tuple[float, float]:
        """Return mean cross entropy and accuracy."""
        log_probs = self.log_probs(features)
        loss = torch.nn.functional.nll_loss(log_probs, labels)
        return float(loss), float((log_probs.argmax(dim=1) == labels).double().mean())


def fit(train: tuple[Tensor, Tensor], dev: tuple[Tensor, Tensor], count: int) -> Probe:
    """Return the probe for `count` labels, with the penalty that does best on dev; each split is (features, labels)."""
    features, labels = train
    mean, std = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    best, least = None, inf
    for penalty in PENALTIES:
        weight, bias = _fitted((features - mean) / std, labels, count, penalty)
        probe = Probe(mean, std, weight, bias)
        loss = probe.judge(*dev)[0]
        if best is None or loss < least:
            best, least = probe, loss
    assert best is not None
    return best


def _fitted(features: Tensor, labels: Tensor, count: int, penalty: float) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(count, features.shape[1], requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    descent = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        descent.zero_grad()
        with torch.enable_grad():
            value = torch.nn.functional.cross_entropy(features @ weight.T + bias, labels)
            value = value + penalty / 2 * weight.square().sum()
            value.backward()
        return value

    descent.step(loss)
    return weight.detach(), bias.detach()
