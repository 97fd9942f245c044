"""How label scores answer pushes on outputs: a Jacobian of one small matrix per layer, learned from the answers.

Where an example is one row, the answer of its L centred scores to a push xi (n,) is J xi with J (L, n). Where it
has one row for each label (label words of several tokens), the score of a label answers the push on its own row
alone: label c by J_c . xi_c. Scores are centred over the labels, as only their differences matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zocore.carriers.outputs import OutputSite, Seen
from zocore.directions.pushes import Pushes
from zocore.step.update import State

FEEDBACK = "feedback"  # name of J among the buffers of a run


@dataclass(frozen=True)
class Jacobian:
    """J of every site for one batch of B examples and L labels; the matrices live in the state of the run."""

    seen: Seen
    examples: int
    labels: int
    state: State

    def of(self, site: OutputSite) -> Tensor:
        """Return J of a site (L, n), zero before the first step."""
        if (FEEDBACK, site.id) not in self.state:
            device = self.seen.inputs[site.id].device
            self.state[FEEDBACK, site.id] = torch.zeros(self.labels, site.width, device=device)
        return self.state[FEEDBACK, site.id]

    def answer(self, push: Pushes) -> Tensor:
        """Return how the centred scores would answer a push (B, L): sum_s J_s xi_s."""
        total = torch.zeros(self.examples, self.labels, device=self.seen.examples.device)
        for site in self.seen.sites:
            xi = self.signs(push, site)
            total += xi @ self.of(site).T if xi.ndim == 2 else (xi * self.of(site)).sum(2)
        return total - total.mean(1, keepdim=True)

    def residuals(self, pushes: Sequence[Pushes], responses: Tensor) -> list[Tensor]:
        """Return r = dz - J xi (B, L) of each push: what J did not foresee of the responses (K, B, L)."""
        return [response - self.answer(push) for push, response in zip(pushes, responses, strict=True)]

    def carry_back(self, errors: Tensor, site: OutputSite) -> Tensor:
        """Return J^T e of a site for each row (rows, n), from the errors of the scores (B, L)."""
        if self._one_row:
            return errors @ self.of(site)
        return (errors.unsqueeze(2) * self.of(site)).reshape(-1, site.width)

    def learn(self, pushes: Sequence[Pushes], residuals: Sequence[Tensor], mu: float) -> None:
        """J_s += mu / max(N, K B) sum_{i,k} r_i xi_{s,i}^T: normalised least mean squares, N outputs in all."""
        outputs = sum(site.width for site in self.seen.sites)
        rate = mu / max(outputs, len(pushes) * self.examples)
        for site in self.seen.sites:
            for push, residual in zip(pushes, residuals, strict=True):
                xi = self.signs(push, site)
                step = residual.T @ xi if xi.ndim == 2 else (residual.unsqueeze(2) * xi).sum(0)
                self.of(site).add_(step, alpha=rate)

    def signs(self, push: Pushes, site: OutputSite) -> Tensor:
        """Return xi of a site, (B, n) or, with a row for each label, (B, L, n)."""
        tokens = self.seen.counted[site.id].shape[1]
        xi = push.signs(site.id, self.seen.numbers, tokens, site.width).squeeze(1)
        return xi if self._one_row else xi.view(self.examples, self.labels, site.width)

    @property
    def _one_row(self) -> bool:
        return len(self.seen.examples) == self.examples


def centred(scores: Tensor) -> Tensor:
    """Return scores (B, L) less their mean over the labels: what the softmax adds to all of them cancels."""
    return scores - scores.mean(1, keepdim=True)
