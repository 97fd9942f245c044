"""Small models whose labels are scored: per-example log-probabilities, padding, and pushes on their linear layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zocore.carriers.layout import Layout
from zocore.carriers.outputs import Outputs, output_sites
from zocore.carriers.scratch import Scratch
from zocore.directions.pushes import Tie
from zocore.models.objectives.heads import LinearHead
from zocore.step.losses import Losses, Part
from zocore.subspaces.by_name import matching
from zocore.weights.leaf import Leaf


class Tagger(nn.Module):
    """Tokens -> a layer -> tanh (or nothing) -> a layer -> mean over real tokens -> a fixed head."""

    def __init__(self, labels: int, width: int = 6, *, linear: bool = False, deep: bool = True) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(labels + 10 * width)
        self.first = nn.Linear(width, 5, dtype=torch.float64)
        self.second = nn.Linear(5 if deep else width, 4, dtype=torch.float64)
        self.head = torch.randn(labels, 4, generator=g, dtype=torch.float64)
        self.linear, self.deep = linear, deep
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=g, dtype=torch.float64) / 2

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the log-probabilities (B, L) of x (B, T, width) with mask (B, T)."""
        return (self.features(x, mask) @ self.head.T).log_softmax(1)

    def features(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return what the head reads (B, 4)."""
        hidden = self.first(x) if self.deep else x
        hidden = self.second(hidden if self.linear else torch.tanh(hidden))
        counts = mask.to(hidden.dtype).unsqueeze(-1)
        return (hidden * counts).sum(1) / counts.sum(1)


@dataclass
class Scored:
    """A tagger, a batch for it, and the leaves that move."""

    model: Tagger
    x: Tensor
    mask: Tensor
    labels: Tensor
    leaves: list[Leaf]

    def losses(self, sizes: Sequence[int] | None = None, tie: Tie = "tokens") -> Losses:
        """The oracle of the batch, in micro-batches of the given sizes."""
        parts = []
        for rows in torch.arange(len(self.x)).split(list(sizes or [len(self.x)])):

            def scores(rows: Tensor = rows) -> Tensor:
                return self.model(self.x[rows], self.mask[rows])

            def values(rows: Tensor = rows) -> Tensor:
                return -self.model(self.x[rows], self.mask[rows]).gather(1, self.labels[rows, None]).squeeze(1)

            def features(rows: Tensor = rows) -> Tensor:
                return self.model.features(self.x[rows], self.mask[rows])

            parts.append(Part(Layout(rows, self.mask[rows]), values, scores, self.labels[rows], features))
        outputs = Outputs(output_sites(self.leaves), tie)
        return Losses(parts, self.leaves, Scratch(self.leaves), None, outputs)

    @property
    def head(self) -> LinearHead:
        """The fixed head as a function with its derivative."""
        return LinearHead(self.model.head, None)

    def gradient(self) -> dict[str, Tensor]:
        """Autograd's gradient of the mean loss, by leaf name."""
        _, by_id = self.losses().gradient()
        return {leaf.name: by_id[leaf.id] for leaf in self.leaves}


def scored(labels: int = 3, examples: int = 5, tokens: int = 4, moves: str = "first|second", **kind: bool) -> Scored:
    """A random batch with right padding: example i has 1 + i % tokens real tokens."""
    model = Tagger(labels, **kind)
    g = torch.Generator().manual_seed(7)
    x = torch.randn(examples, tokens, 6, generator=g, dtype=torch.float64)
    mask = torch.arange(tokens) < 1 + torch.arange(examples)[:, None] % tokens
    targets = torch.randint(labels, (examples,), generator=g)
    return Scored(model, x, mask, targets, matching(model, moves))
