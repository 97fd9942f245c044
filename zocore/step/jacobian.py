"""How answers respond to pushes on outputs: a Jacobian of one matrix per layer, learned from what was seen.

The answers of an example are A numbers (`readout.py`): its L label scores, or the D features before a known head.
Where an example is one row, they answer a push xi (n,) by J xi with J (A, n). Where it has one row for each label
(label words of several tokens), the score of a label answers the push on its own row alone: label c by J_c . xi_c.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zocore.carriers.outputs import OutputSite, Seen
from zocore.directions.pushes import Pushes
from zocore.step.readout import Readout, Scores
from zocore.step.update import State

FEEDBACK = "feedback"  # name of J among the buffers of a run


@dataclass(frozen=True)
class Jacobian:
    """J of every site for one batch of B examples with A answers; the matrices live in the state of the run."""

    seen: Seen
    examples: int
    answers: int
    state: State
    readout: Readout = Scores()

    @property
    def new(self) -> bool:
        """Whether nothing has been learned yet."""
        return not any((FEEDBACK, site.id) in self.state for site in self.seen.sites)

    def of(self, site: OutputSite) -> Tensor:
        """Return J of a site (A, n), zero before the first lesson."""
        learned = self.state.get((FEEDBACK, site.id))
        device = self.seen.inputs[site.id].device
        return torch.zeros(self.answers, site.width, device=device) if learned is None else learned

    def respond(self, push: Pushes) -> Tensor:
        """Return how the answers would respond to a push (B, A): sum_s J_s xi_s."""
        total = torch.zeros(self.examples, self.answers, device=self.seen.examples.device)
        for site in self.seen.sites:
            xi = self.signs(push, site)
            total += xi @ self.of(site).T if xi.ndim == 2 else (xi * self.of(site)).sum(2)
        return self.readout.relevant(total)

    def residuals(self, pushes: Sequence[Pushes], responses: Tensor) -> list[Tensor]:
        """Return r of each push (B, A): what J did not foresee of the responses (K, B, A)."""
        return [response - self.respond(push) for push, response in zip(pushes, responses, strict=True)]

    def carry_back(self, errors: Tensor, site: OutputSite) -> Tensor:
        """Return J^T u of a site for each row (rows, n), from the errors u of the answers (B, A)."""
        if self._one_row:
            return errors @ self.of(site)
        return (errors.unsqueeze(2) * self.of(site)).reshape(-1, site.width)

    def begin(self, pushes: Sequence[Pushes], responses: Tensor) -> None:
        """J_s = a_s I where a site is as wide as the answers, a_s the mean of response times push over all of them."""
        for site in self.seen.sites:
            if site.width == self.answers:
                products = [dh * self.signs(push, site) for push, dh in zip(pushes, responses, strict=True)]
                a = torch.stack(products).mean()
                self.state[FEEDBACK, site.id] = a * torch.eye(self.answers, device=a.device)

    def learn(self, pushes: Sequence[Pushes], residuals: Sequence[Tensor], mu: float) -> None:
        """J_s += mu / max(N, K B) sum_{i,k} r_i xi_{s,i}^T: normalised least mean squares, N outputs in all."""
        outputs = sum(site.width for site in self.seen.sites)
        rate = mu / max(outputs, len(pushes) * self.examples)
        for site in self.seen.sites:
            j = self.of(site)
            for push, residual in zip(pushes, residuals, strict=True):
                xi = self.signs(push, site)
                j += rate * (residual.T @ xi if xi.ndim == 2 else (residual.unsqueeze(2) * xi).sum(0))
            self.state[FEEDBACK, site.id] = j

    def signs(self, push: Pushes, site: OutputSite) -> Tensor:
        """Return xi of a site, (B, n) or, with a row for each label, (B, L, n)."""
        tokens = self.seen.counted[site.id].shape[1]
        xi = push.signs(site.id, self.seen.numbers, tokens, site.width).squeeze(1)
        return xi if self._one_row else xi.view(self.examples, self.answers, site.width)

    @property
    def _one_row(self) -> bool:
        return len(self.seen.examples) == self.examples
