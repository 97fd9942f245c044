"""Heads from features to label scores, as functions whose derivative is known: rows of a linear layer, and cosines."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class LinearHead:
    """z = W h + b, one row of W for each label."""

    rows: Tensor  # W (L, D)
    bias: Tensor | None  # b (L,)

    def log_probs(self, features: Tensor) -> Tensor:
        """Return the log-probabilities of the labels (B, L) from features (B, D)."""
        return nn.functional.linear(features, self.rows, self.bias).log_softmax(dim=1)

    def pull_back(self, features: Tensor, errors: Tensor) -> Tensor:
        """Return dl/dh = e W (B, D) from e = dl/dz (B, L)."""
        return errors @ self.rows


@dataclass(frozen=True, eq=False)
class CosineHead:
    """z = s A h / |h|, one anchor of length 1 for each label."""

    anchors: Tensor  # A (L, D)
    scale: float  # s

    def log_probs(self, features: Tensor) -> Tensor:
        """Return the log-probabilities of the labels (B, L) from features (B, D)."""
        return (self.scale * nn.functional.normalize(features, dim=1) @ self.anchors.T).log_softmax(dim=1)

    def pull_back(self, features: Tensor, errors: Tensor) -> Tensor:
        """Return dl/dh = (v - (v . n) n) / |h| (B, D) with v = s e A and n = h / |h|, from e = dl/dz (B, L)."""
        lengths = features.norm(dim=1, keepdim=True)
        n, v = features / lengths, self.scale * errors @ self.anchors
        return (v - (v * n).sum(1, keepdim=True) * n) / lengths
