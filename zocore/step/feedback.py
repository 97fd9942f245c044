"""Learned feedback: what the pushes of all steps have taught carries each example's error back to the layers.

A fresh random direction forgets everything. But what a push on a layer's output measures, the answer of the label
logits, changes slowly and is nearly the same for all examples. So it is learned: J_s (L, n) for a site with n
outputs and L labels, by normalised least mean squares over the pushes of every step. One clean forward gives the
probabilities p_i of each example, and with them its exact error; J carries that error to the outputs:

    clean     e_i = p_i - onehot(y_i), and the mean input xbar_{s,i} of each site over the tokens that count
    push k    xi_{s,i} random signs, one for all tokens of a row; z centred logits
              dz_i = (z_i(+eps) - z_i(0)) / eps,   or two-sided over 2 eps
    learn     r_i = dz_i - sum_s J_s xi_{s,i};   J_s += mu / max(N, K B) sum_{i,k} r_i xi_{s,i}^T
    feedback  g_{s,i} = J_s^T e_i + alpha / K sum_k (e_i . r_i) xi_{s,i}
    update    W_s along 1/B sum_i g_{s,i} xbar_{s,i}^T, b_s along the mean of g_{s,i}

N is the number of outputs of all sites. Both J and g are those before this step's pushes are learned, so alpha = 1
is unbiased for any J up to O(eps) and the tie over tokens: J is then a control variate. alpha = 0 trusts J, with a
bias by how the examples' Jacobians differ, and far less noise. Where an example has one row for each label (label
words of several tokens), the score of a row answers the pushes of that row alone, with its label's own row of J.

Ancestors: node perturbation (Werfel, Xie, Seung 2005); feedback weights learned from perturbations (Lansdell,
Prakash, Kording, arXiv 1906.00889); direct feedback alignment (Nokland, arXiv 1609.01596).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from zocore.carriers.outputs import OutputSite, Seen
from zocore.directions.laws import Gaussian, Law
from zocore.directions.pushes import Pushes, Tie
from zocore.noise.addressed import Key
from zocore.step.difference import Measured
from zocore.step.jacobian import Jacobian, centred
from zocore.step.losses import Losses, scores_of
from zocore.step.outer import OuterProducts
from zocore.step.step import Recorded, Step
from zocore.step.update import Adam, State, Update, small_ones
from zocore.weights.leaf import Leaf


@dataclass(frozen=True)
class Lesson:
    """What the forwards of one step teach: pushes, the scores' responses, and the clean pass."""

    pushes: tuple[Pushes, ...]
    responses: Tensor  # dz (K, B, L)
    scores: Tensor  # log-probabilities of the labels (B, L), clean
    labels: Tensor  # (B,)
    seen: Seen  # what the sites read, clean

    @property
    def errors(self) -> Tensor:
        """e = p - onehot(y) (B, L): the gradient of each example's loss in its scores."""
        errors = self.scores.float().exp()
        errors[torch.arange(len(self.labels), device=errors.device), self.labels] -= 1
        return errors


@dataclass(frozen=True)
class Feedback:
    """Descent along errors that a learned Jacobian carries back, from forward passes alone."""

    name: str
    draws: int = 1  # K, pushes a step
    mu: float = 0.5  # how fast J learns; stable below 2
    alpha: float = 0.0
    two_sided: bool = False
    update: Update = Adam()
    pushes: Tie = field(default="tokens", init=False)
    law: Law = field(default=Gaussian(), init=False)
    per_example = False
    zeroth_order = True
    replays_with_data = True

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"learned feedback needs at least 1 push a step, not {self.draws}")
        if not 0 < self.mu < 2:
            raise ValueError(f"the learning rate mu of the feedback must be above 0 and below 2, not {self.mu}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"the correction alpha must be from 0 to 1, not {self.alpha}")

    def prepared(self, leaves: Sequence[Leaf]) -> "Feedback":
        """Nothing depends on the leaves."""
        return self

    def step(self, leaves: Sequence[Leaf], losses: Losses, key: Key, lr: float, eps: float, state: State) -> Step:
        """Do one step; a non-finite answer skips it. Raises what a forward raises, weights and J unmoved."""
        lesson, measured = self.ask(losses, key, eps)
        loss = float(_losses(lesson.scores, lesson.labels).mean())
        if not measured.finite:
            return Step(loss, measured, lesson.pushes, skipped=True)
        unexplained = self.apply(leaves, lesson, key, lr, state)
        return Step(loss, measured, lesson.pushes, responses=lesson.responses, unexplained=unexplained)

    def ask(self, losses: Losses, key: Key, eps: float) -> tuple["Lesson", Measured]:
        """Do the forwards of a step: what they teach, and the losses they gave."""
        scores, seen = losses.clean(scores_of)
        pushes = tuple(Pushes(replace(key, direction=key.direction + k)) for k in range(self.draws))
        answers = [self._answers(losses, push, scores, eps) for push in pushes]
        responses = torch.stack([(centred(plus) - centred(minus)) / far for plus, minus, far in answers]).float()
        return Lesson(pushes, responses, scores, losses.labels, seen), _measured(answers, losses.labels)

    def propose(self, losses: Losses, key: Key, eps: float, state: State) -> OuterProducts | None:
        """Return a step's estimate without doing the step, J as it is; None when an answer was not finite."""
        lesson, measured = self.ask(losses, key, eps)
        if not measured.finite:
            return None
        jacobian = Jacobian(lesson.seen, len(lesson.labels), lesson.scores.shape[1], dict(state))
        return self.estimate(lesson, jacobian, jacobian.residuals(lesson.pushes, lesson.responses))

    def replay(
        self, leaves: Sequence[Leaf], recorded: Recorded, losses: Callable[[], Losses], key: Key, state: State
    ) -> None:
        """Do a recorded step again: one clean forward; the responses are in the recording."""
        if recorded.responses is None:
            raise ValueError("the recording of this step holds no responses of the label scores: replay cannot go on")
        oracle = losses()
        scores, seen = oracle.clean(scores_of)
        pushes = tuple(push for push in recorded.directions if isinstance(push, Pushes))
        lesson = Lesson(pushes, recorded.responses.to(scores.device), scores, oracle.labels, seen)
        self.apply(leaves, lesson, key, recorded.lr, state)

    def forward_passes(self) -> int:
        """The clean pass and the pushes."""
        return 1 + self.draws * (2 if self.two_sided else 1)

    def forward_cost(self, call: float) -> float:
        """Every pass at the cost of a displaced one."""
        return call * self.forward_passes()

    def _answers(self, losses: Losses, push: Pushes, clean: Tensor, eps: float) -> tuple[Tensor, Tensor, float]:
        """Log-probabilities at the two points of a difference, and the distance between them."""
        with losses.along(push, scores_of) as at:
            return (at(+eps), at(-eps), 2 * eps) if self.two_sided else (at(+eps), clean, eps)

    def apply(self, leaves: Sequence[Leaf], lesson: Lesson, key: Key, lr: float, state: State) -> float:
        """Move the weights, then let J learn; return |r|^2 / |dz|^2, the share of the responses J did not foresee."""
        jacobian = Jacobian(lesson.seen, len(lesson.labels), lesson.scores.shape[1], state)
        residuals = jacobian.residuals(lesson.pushes, lesson.responses)
        g = self.estimate(lesson, jacobian, residuals)
        with torch.no_grad():
            for leaf in small_ones(self.update, leaves, g, lr, key):
                self.update(leaf, g, lr, key, state)
        jacobian.learn(lesson.pushes, residuals, self.mu)
        return _square(torch.stack(residuals)) / max(_square(lesson.responses), 1e-300)

    def estimate(self, lesson: Lesson, jacobian: Jacobian, residuals: Sequence[Tensor]) -> OuterProducts:
        """Return the gradient's estimate: J^T e, corrected by alpha times what J did not foresee."""
        errors, examples = lesson.errors, lesson.seen.examples

        def gradients(site: OutputSite) -> Tensor:
            g = jacobian.carry_back(errors, site)
            if self.alpha:
                for push, residual in zip(lesson.pushes, residuals, strict=True):
                    missed = (errors * residual).sum(1)[examples]  # e . r, to first order the loss J did not foresee
                    xi = jacobian.signs(push, site).reshape(-1, site.width)
                    g = g + self.alpha / len(lesson.pushes) * missed.unsqueeze(1) * xi
            return g / len(errors)

        return OuterProducts(lesson.seen, gradients)


def _losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy (B,) in float64."""
    return -scores.gather(1, labels.unsqueeze(1)).squeeze(1).double().cpu()


def _measured(answers: Sequence[tuple[Tensor, Tensor, float]], labels: Tensor) -> Measured:
    """The losses of each example at both points of each push, and their difference (K * B,)."""
    plus = torch.cat([_losses(one, labels) for one, _, _ in answers])
    minus = torch.cat([_losses(other, labels) for _, other, _ in answers])
    return Measured(plus, minus, (plus - minus) / answers[0][2])


def _square(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())
