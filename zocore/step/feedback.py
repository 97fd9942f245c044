"""Learned feedback: what the pushes of all steps have taught carries each example's error back to the layers.

A fresh random direction forgets everything. But what a push on a layer's output measures, the response of what the
model answers, changes slowly and is nearly the same for all examples. So it is learned: J_s (A, n) for a site with n
outputs and A answers an example, by normalised least mean squares over the pushes of every step. One clean forward
gives the probabilities p_i of each example, and with them its exact error; J carries that error to the outputs:

    clean     h_i the answers, u_i the gradient of the loss in them, from p_i - onehot(y_i); and the mean input
              xbar_{s,i} of each site over the tokens that count
    push k    xi_{s,i} random signs, one for all tokens of a row;
              dh_i = (h_i(+eps) - h_i(0)) / eps,   or two-sided over 2 eps
    learn     r_i = dh_i - sum_s J_s xi_{s,i};   J_s += mu / max(N, K B) sum_{i,k} r_i xi_{s,i}^T
    feedback  g_{s,i} = J_s^T u_i + alpha / K sum_k (u_i . r_i) xi_{s,i}
    update    W_s along 1/B sum_i g_{s,i} xbar_{s,i}^T, b_s along the mean of g_{s,i}

N is the number of outputs of all sites. The answers h are the features before the label head where that head is a
fixed known function, which then gives p and u (`readout.py`); elsewhere they are the centred label scores, and u is
p - onehot(y). Onto features, J begins as a_s I after the first pushes; onto scores at zero.

Pushes are asked every `push_every` steps; between them a step is one clean pass and trusts J as it stands. Onto
features J begins so close to what it becomes that pushes in each step cost more than they teach; onto scores it has
all to learn, and each step pushes (docs/ablation measures both).

Both J and g are those before this step's pushes are learned, so alpha = 1 is unbiased for any J up to O(eps) and the
tie over tokens: J is then a control variate. alpha = 0 trusts J, with a bias by how the examples' Jacobians differ,
and far less noise. Where an example has one row for each label (label words of several tokens), the score of a row
answers the pushes of that row alone, with its label's own row of J.

Ancestors: node perturbation (Werfel, Xie, Seung 2005); feedback weights learned from perturbations (Lansdell,
Prakash, Kording, arXiv 1906.00889); direct feedback alignment (Nokland, arXiv 1609.01596).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

import torch
from torch import Tensor

from zocore.carriers.outputs import OutputSite
from zocore.directions.laws import Gaussian, Law
from zocore.directions.pushes import Pushes, Tie
from zocore.noise.addressed import Key
from zocore.step.difference import Measured
from zocore.step.jacobian import FEEDBACK, Jacobian
from zocore.step.lesson import Lesson
from zocore.step.losses import Losses
from zocore.step.outer import OuterProducts
from zocore.step.readout import Features, Head, Onto, Readout, Scores
from zocore.step.step import Recorded, Step
from zocore.step.update import Adam, State, Update, small_ones
from zocore.weights.leaf import Leaf


@dataclass(frozen=True)
class Feedback:
    """Descent along errors that a learned Jacobian carries back, from forward passes alone."""

    name: str
    draws: int = 1  # K, pushes a step
    mu: float | None = None  # how fast J learns; stable below 2; None for what suits the readout
    alpha: float = 0.0
    onto: Onto | None = None  # None for features where the head is known, else scores
    two_sided: bool = False
    push_every: int | None = None  # steps between pushes, 0 for the first step alone; None as suits the readout
    update: Update = Adam()
    head: Head | None = None
    pushes: Tie = field(default="tokens", init=False)
    law: Law = field(default=Gaussian(), init=False)
    per_example = False
    zeroth_order = True
    reads_errors = True

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"learned feedback needs at least 1 push a step, not {self.draws}")
        if self.mu is not None and not 0 < self.mu < 2:
            raise ValueError(f"the learning rate mu of the feedback must be above 0 and below 2, not {self.mu}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"the correction alpha must be from 0 to 1, not {self.alpha}")
        if self.push_every is not None and self.push_every < 0:
            raise ValueError(f"--push-every must be 0 (the first step alone) or more, not {self.push_every}")
        if self.alpha and self.push_every not in (None, 1):
            raise ValueError(
                f"--push-every {self.push_every} and the correction alpha {self.alpha:g} do not go together: each step "
                "needs pushes to be corrected; take --push-every 1"
            )

    def prepared(self, leaves: Sequence[Leaf], head: Head | None = None) -> "Feedback":
        """Return the method with the head it learns feedback up to, if there is a known one."""
        if self.onto == "features" and head is None:
            raise ValueError(
                "feedback onto features and this run do not go together: there is no known, fixed head after the "
                "features (label words of several tokens, or a head that moves, have none); take --onto scores"
            )
        known = replace(self, head=head)
        return known.spaced(known.readout.push_every)

    def spaced(self, push_every: int) -> "Feedback":
        """Return the method with its pushes so far apart, unless it says itself; where they correct, in each step."""
        if self.push_every is not None:
            return self
        return replace(self, push_every=1 if self.alpha else push_every)

    @property
    def readout(self) -> Readout:
        """What the pushes teach of."""
        return Scores() if self.head is None or self.onto == "scores" else Features(self.head)

    def step(self, leaves: Sequence[Leaf], losses: Losses, key: Key, lr: float, eps: float, state: State) -> Step:
        """Do one step; a non-finite answer skips it. Raises what a forward raises, weights and J unmoved."""
        lesson, measured = self.ask(losses, key, eps, state)
        loss = float(self._losses(losses, lesson.answers).mean())
        if not (isfinite(loss) and measured.finite):
            return Step(loss, measured, lesson.pushes, skipped=True)
        unexplained = self.apply(leaves, lesson, key, lr, state)
        kept = lesson.responses if lesson.pushes and self.readout.recorded else None
        return Step(loss, measured, lesson.pushes, responses=kept, unexplained=unexplained)

    @property
    def _every(self) -> int:
        """As set; each step before the method is made ready."""
        return 1 if self.push_every is None else self.push_every

    def asks(self, step: int, state: State) -> bool:
        """Whether step 1, 2, ... has pushes: each where nothing has been learned yet, then every `push_every`."""
        new = not any(name == FEEDBACK for name, _ in state)
        return new or (self._every > 0 and (step - 1) % self._every == 0)

    def ask(self, losses: Losses, key: Key, eps: float, state: State) -> tuple["Lesson", Measured]:
        """Do the forwards of a step: what they teach, and the losses they gave; none where it does not push."""
        answers, seen = losses.clean(self.readout.ask)
        count = self.draws if self.asks(key.step, state) else 0
        pushes = tuple(Pushes(replace(key, direction=key.direction + k)) for k in range(count))
        probes = [self._probe(losses, push, answers, eps) for push in pushes]
        responses = self._responses(probes, answers)
        lesson = Lesson(pushes, responses, answers, losses.labels, self.readout, seen, losses.criterion)
        return lesson, self._measured(probes, losses)

    def propose(self, losses: Losses, key: Key, eps: float, state: State) -> OuterProducts | None:
        """Return a step's estimate without doing the step, J as it is; None when an answer was not finite."""
        lesson, measured = self.ask(losses, key, eps, state)
        if not measured.finite:
            return None
        jacobian = lesson.jacobian(state)
        return self.estimate(lesson, jacobian, jacobian.residuals(lesson.pushes, lesson.responses))

    def replay(
        self, leaves: Sequence[Leaf], recorded: Recorded, losses: Callable[[], Losses], key: Key, state: State
    ) -> None:
        """Do a recorded step again: a clean forward, and the pushes where the recording holds no responses."""
        self.apply(leaves, self.recall(recorded, losses(), key, state), key, recorded.lr, state)

    def recall(self, recorded: Recorded, losses: Losses, key: Key, state: State) -> Lesson:
        """Return what a recorded step taught. Raises ValueError where its pushes are not in the recording."""
        pushes = tuple(push for push in recorded.directions if isinstance(push, Pushes))
        if not pushes and self.asks(key.step, state):
            raise ValueError(f"step {key.step} was recorded without its pushes: it cannot be replayed")
        answers, seen = losses.clean(self.readout.ask)
        if recorded.responses is None:
            probes = [self._probe(losses, push, answers, recorded.eps) for push in pushes]
            responses = self._responses(probes, answers)
        else:
            responses = recorded.responses.to(answers.device)
        return Lesson(pushes, responses, answers, losses.labels, self.readout, seen, losses.criterion)

    def forward_passes(self, steps: int = 1) -> int:
        """A clean pass each, and the pushes of those steps that have some."""
        pushing = -(-steps // self._every) if self._every else min(steps, 1)
        return steps + pushing * self.draws * (2 if self.two_sided else 1)

    def replay_passes(self, steps: int = 1) -> int:
        """The clean pass where the responses are in the recording, else all passes of a step."""
        return steps if self.readout.recorded else self.forward_passes(steps)

    def forward_cost(self, call: float, steps: int = 1) -> float:
        """Every pass at the cost of a displaced one."""
        return call * self.forward_passes(steps)

    def apply(self, leaves: Sequence[Leaf], lesson: Lesson, key: Key, lr: float, state: State) -> float | None:
        """Move the weights, then let J learn; return |r|^2 / |dh|^2, the share of the responses J did not foresee.

        It is measured in what is learned: in features, or in centred scores. None for a step without pushes.
        """
        jacobian = lesson.jacobian(state)
        new = jacobian.new
        residuals = jacobian.residuals(lesson.pushes, lesson.responses)
        g = self.estimate(lesson, jacobian, residuals)
        with torch.no_grad():
            for leaf in small_ones(self.update, leaves, g, lr, key):
                self.update(leaf, g, lr, key, state)
        if not lesson.pushes:
            return None
        if new and self.readout.aligned:
            jacobian.begin(lesson.pushes, lesson.responses)
            residuals = jacobian.residuals(lesson.pushes, lesson.responses)
        jacobian.learn(lesson.pushes, residuals, self.readout.mu if self.mu is None else self.mu)
        return _square(torch.stack(residuals)) / max(_square(lesson.responses), 1e-300)

    def estimate(self, lesson: Lesson, jacobian: Jacobian, residuals: Sequence[Tensor]) -> OuterProducts:
        """Return the gradient's estimate: J^T u, corrected by alpha times what J did not foresee."""
        errors, examples = lesson.errors, lesson.seen.examples

        def gradients(site: OutputSite) -> Tensor:
            g = jacobian.carry_back(errors, site)
            if self.alpha:
                for push, residual in zip(lesson.pushes, residuals, strict=True):
                    missed = (errors * residual).sum(1)[examples]  # u . r, to first order the loss J did not foresee
                    xi = jacobian.signs(push, site).reshape(-1, site.width)
                    g = g + self.alpha / len(lesson.pushes) * missed.unsqueeze(1) * xi
            return g / len(errors)

        return OuterProducts(lesson.seen, gradients)

    def _probe(self, losses: Losses, push: Pushes, clean: Tensor, eps: float) -> tuple[Tensor, Tensor, float]:
        """Answers at the two points of a difference, and the distance between them."""
        with losses.along(push, self.readout.ask) as at:
            return (at(+eps), at(-eps), 2 * eps) if self.two_sided else (at(+eps), clean, eps)

    def _responses(self, probes: Sequence[tuple[Tensor, Tensor, float]], answers: Tensor) -> Tensor:
        """dh (K, B, A)."""
        relevant = self.readout.relevant
        if not probes:
            return answers.new_zeros(0, *answers.shape)
        return torch.stack([(relevant(plus) - relevant(minus)) / far for plus, minus, far in probes]).float()

    def _losses(self, losses: Losses, answers: Tensor) -> Tensor:
        """Each example's value (B,) in float64."""
        return losses.criterion(self.readout.log_probs(answers), losses.labels).double().cpu()

    def _measured(self, probes: Sequence[tuple[Tensor, Tensor, float]], losses: Losses) -> Measured:
        """The losses of each example at both points of each push, and their difference (K * B,)."""
        nothing = torch.zeros(0, dtype=torch.float64)
        plus = torch.cat([nothing, *(self._losses(losses, one) for one, _, _ in probes)])
        minus = torch.cat([nothing, *(self._losses(losses, other) for _, other, _ in probes)])
        return Measured(plus, minus, (plus - minus) / (probes[0][2] if probes else 1.0))


def _square(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())
