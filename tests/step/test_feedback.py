"""Learned feedback: J becomes the true Jacobian, g the gradient; the correction makes any J unbiased."""

from dataclasses import replace
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.scored import Scored, scored
from zocore.directions.pushes import Pushes
from zocore.methods import build, feedback
from zocore.noise.addressed import Key
from zocore.step.feedback import Feedback
from zocore.step.jacobian import FEEDBACK
from zocore.step.lesson import Lesson
from zocore.step.readout import Features, Onto, Scores
from zocore.step.step import Recorded
from zocore.step.update import Sgd, State

READOUTS: tuple[Onto, ...] = ("features", "scores")


def made(toy: Scored, onto: Onto, **options: Any) -> Feedback:
    """The method for a toy, central differences and plain descent unless told otherwise."""
    method = Feedback("feedback", onto=onto, **{"two_sided": True, "update": Sgd(), "push_every": 1, **options})
    return method.prepared(toy.leaves, toy.head)


def lesson_of(toy: Scored, method: Feedback, key: Key, eps: float = 1e-4) -> Lesson:
    """What a step's forwards teach, without the step."""
    losses, readout = toy.losses(), method.readout
    answers, seen = losses.clean(readout.ask)
    pushes = tuple(Pushes(replace(key, direction=k)) for k in range(method.draws))
    responses = []
    for push in pushes:
        with losses.along(push, readout.ask) as at:
            responses.append(readout.relevant(at(eps) - at(-eps)) / (2 * eps))
    return Lesson(pushes, torch.stack(responses).float(), answers, toy.labels, readout, seen)


def taught(toy: Scored, steps: int, onto: Onto = "scores", mu: float = 1.0) -> tuple[State, Feedback]:
    """J after so many steps with the weights held still."""
    method, state = made(toy, onto, mu=mu), {}
    for number in range(steps):
        method.apply(toy.leaves, lesson_of(toy, method, Key(0, number)), Key(0, number), 0.0, state)
    return state, method


def _silent(lesson: Lesson) -> Lesson:
    """The lesson of a step that pushes nothing."""
    return replace(lesson, pushes=(), responses=lesson.responses[:0])


def estimate_of(toy: Scored, method: Feedback, lesson: Lesson, state: State) -> dict[str, Tensor]:
    jacobian = lesson.jacobian(state)
    g = method.estimate(lesson, jacobian, jacobian.residuals(lesson.pushes, lesson.responses))
    whole = {}
    for leaf in toy.leaves:
        out = torch.zeros_like(leaf.matrix)
        g.displace(out, out, leaf, 1.0)
        whole[leaf.name] = out.view(leaf.tensor.shape)
    return whole


@pytest.mark.parametrize("onto", READOUTS)
def test_where_all_examples_answer_alike_j_becomes_the_jacobian_and_g_the_gradient(onto: Onto) -> None:
    """One linear layer before a fixed head, one token: J is the centred head, or I onto the features, to 1e-4."""
    toy = scored(tokens=1, moves="second", linear=True, deep=False)
    state, method = taught(toy, 150, onto)
    (leaf, _) = toy.leaves
    head = toy.model.head
    true = head - head.mean(0) if onto == "scores" else torch.eye(4, dtype=torch.float64)
    assert torch.allclose(state[FEEDBACK, leaf.id].double(), true, atol=1e-4)
    lesson = lesson_of(toy, method, Key(1, 0))
    truth = toy.gradient()
    for name, g in estimate_of(toy, method, lesson, state).items():
        assert torch.allclose(g, truth[name], atol=1e-4), name


def test_two_labels_are_one_signed_number() -> None:
    """With two labels the rows of J are opposite: one slope with a sign."""
    toy = scored(labels=2)
    state, _ = taught(toy, 20)
    for leaf in (toy.leaves[0], toy.leaves[2]):
        j = state[FEEDBACK, leaf.id]
        assert torch.allclose(j[0], -j[1], atol=1e-6)
        assert j.abs().max() > 1e-3


@pytest.mark.parametrize("onto", READOUTS)
def test_the_correction_makes_any_feedback_unbiased(onto: Onto) -> None:
    """alpha = 1 with a random J and with none: the mean over 400 pushes is the gradient within 4.5 errors."""
    toy = scored(tokens=1)
    truth, draws, answers = toy.gradient(), 400, {"scores": 3, "features": 4}[onto]
    for scale in (0.0, 1.0):
        state: State = {}
        for site in toy.losses().outputs.sites:
            g = torch.Generator().manual_seed(site.id)
            state[FEEDBACK, site.id] = scale * torch.randn(answers, site.width, generator=g)
        method = made(toy, onto, alpha=1.0)
        found = [estimate_of(toy, method, lesson_of(toy, method, Key(0, n)), state) for n in range(draws)]
        for name in truth:
            values = torch.stack([one[name] for one in found])
            error = (values.mean(0) - truth[name]).abs()
            assert bool((error <= 4.5 * values.std(0) / sqrt(draws) + 1e-5).all()), (scale, name)


@pytest.mark.parametrize("onto", READOUTS)
def test_what_was_foreseen_needs_no_correction(onto: Onto) -> None:
    """Responses equal to J xi give alpha = 1 and alpha = 0 the same estimate, and leave J as it is."""
    toy = scored()
    state, method = taught(toy, 30, onto)
    lesson = lesson_of(toy, method, Key(2, 0))
    jacobian = lesson.jacobian(state)
    foreseen = replace(lesson, responses=torch.stack([jacobian.respond(push) for push in lesson.pushes]))
    plain, corrected = (estimate_of(toy, replace(method, alpha=alpha), foreseen, state) for alpha in (0.0, 1.0))
    for name, g in plain.items():
        assert torch.allclose(g, corrected[name], atol=1e-7)
    before = {name: j.clone() for name, j in state.items()}
    unexplained = method.apply(toy.leaves, foreseen, Key(2, 0), 0.0, state)
    assert unexplained is not None and unexplained < 1e-10
    assert all(torch.allclose(before[name], j, atol=1e-7) for name, j in state.items())


@pytest.mark.parametrize("onto", READOUTS)
def test_one_lesson_is_the_papers_equations(onto: Onto) -> None:
    """One step with K = 2 equals a transcription in plain sums over examples, answers and outputs."""
    toy = scored(moves="second")
    state, _ = taught(toy, 5, onto)
    (weight, bias) = toy.leaves
    j = state[FEEDBACK, weight.id].double().clone()
    method = made(toy, onto, draws=2, mu=0.5, alpha=0.3)
    lesson = lesson_of(toy, method, Key(4, 2))
    B, K, N = len(toy.labels), 2, 4
    p = toy.model(toy.x, toy.mask).exp().detach()
    new_w, new_b, new_j = weight.tensor.clone(), bias.tensor.clone(), j.clone()
    for i in range(B):
        u = p[i].clone()
        u[toy.labels[i]] -= 1
        if onto == "features":
            u = toy.model.head.T @ u
        real = toy.mask[i]
        xbar = torch.tanh(toy.model.first(toy.x[i]))[real].mean(0).detach()
        g = j.T @ u
        for k in range(K):
            xi = lesson.pushes[k].signs(weight.id, torch.tensor([i]), 4, N).double()[0, 0]
            dh = lesson.responses[k, i].double()
            r = dh - (j - j.mean(0) if onto == "scores" else j) @ xi
            g = g + 0.3 / K * (u @ r) * xi
            new_j += 0.5 / max(N, K * B) * torch.outer(r, xi)
        new_w -= 0.1 / B * torch.outer(g, xbar)
        new_b -= 0.1 / B * g
    method.apply(toy.leaves, lesson, Key(4, 2), 0.1, state)
    assert torch.allclose(weight.tensor, new_w, atol=1e-6)
    assert torch.allclose(bias.tensor, new_b, atol=1e-6)
    assert torch.allclose(state[FEEDBACK, weight.id].double(), new_j, atol=1e-6)


def test_onto_features_j_begins_as_one_number_times_the_identity() -> None:
    """After the first pushes a site as wide as the features starts at a I, a = mean of dh xi; others start at zero."""
    toy = scored()
    method, state = made(toy, "features", draws=2), {}
    lesson = lesson_of(toy, method, Key(0, 0))
    first, second = toy.leaves[0], toy.leaves[2]
    before = [leaf.tensor.clone() for leaf in toy.leaves]
    method.apply(toy.leaves, lesson, Key(0, 0), 0.1, state)
    assert all(torch.equal(old, leaf.tensor) for old, leaf in zip(before, toy.leaves, strict=True))  # J was zero
    xi = {
        leaf.id: torch.stack([push.signs(leaf.id, torch.arange(5), 4, width)[:, 0] for push in lesson.pushes])
        for leaf, width in ((first, 5), (second, 4))
    }
    a = (lesson.responses * xi[second.id]).mean()
    start = {first.id: torch.zeros(4, 5), second.id: a * torch.eye(4)}
    r = lesson.responses - sum(xi[leaf] @ start[leaf].T for leaf in start)
    for leaf, j in start.items():
        expected = j + torch.einsum("kba,kbn->an", r, xi[leaf]) / 10  # mu = 1 over max(N = 9, K B = 10)
        assert torch.allclose(state[FEEDBACK, leaf], expected, atol=1e-6)
    assert a.abs() > 0.1


def test_the_features_are_chosen_where_the_head_is_known() -> None:
    """Features with mu 1 where there is a head, scores with mu 0.5 where not or when asked; features alone refuse."""
    toy = scored()
    assert isinstance(feedback().prepared(toy.leaves, toy.head).readout, Features)
    assert isinstance(feedback().prepared(toy.leaves).readout, Scores)
    assert isinstance(feedback(onto="scores").prepared(toy.leaves, toy.head).readout, Scores)
    with pytest.raises(ValueError, match="take --onto scores"):
        feedback(onto="features").prepared(toy.leaves)
    lesson = lesson_of(toy, made(toy, "features"), Key(0, 0))
    defaults: tuple[tuple[Onto, float], ...] = (("features", 1.0), ("scores", 0.5))
    for onto, mu in defaults:
        states: list[State] = [{}, {}]
        for state, method in zip(states, (made(toy, onto), made(toy, onto, mu=mu)), strict=True):
            lesson = lesson_of(toy, method, Key(0, 0))
            method.apply(toy.leaves, lesson, Key(0, 0), 0.0, state)
        assert all(torch.equal(j, states[1][name]) for name, j in states[0].items())


@pytest.mark.parametrize("onto", READOUTS)
@pytest.mark.parametrize(("sides", "passes"), [(1, 3), (2, 5)])
def test_a_step_spends_what_it_says_and_a_replay_gives_the_same_bits(sides: int, passes: int, onto: Onto) -> None:
    """Two pushes and a clean forward; a replay takes one forward and the responses of scores, or asks all again."""
    live, again = scored(), scored()
    method = build("feedback", directions=2, sides=sides, onto=onto, push_every=1).prepared(live.leaves, live.head)
    states: tuple[State, State] = ({}, {})
    for number in range(3):
        losses = live.losses([3, 2])
        step = method.step(live.leaves, losses, Key(0, number), 0.1, 1e-2, states[0])
        assert losses.forward_passes == method.forward_passes() == passes
        assert (step.responses is None) == (onto == "features")
        recorded, oracle = Recorded(0.1, step.directions, responses=step.responses, eps=1e-2), again.losses([3, 2])
        method.replay(again.leaves, recorded, lambda oracle=oracle: oracle, Key(0, number), states[1])  # type: ignore[misc]
        assert oracle.forward_passes == method.replay_passes() == (1 if onto == "scores" else passes)
    for one, other in zip(live.leaves, again.leaves, strict=True):
        assert torch.equal(one.tensor, other.tensor)
    assert all(torch.equal(buffer, states[1][name]) for name, buffer in states[0].items())


@pytest.mark.parametrize("onto", READOUTS)
@pytest.mark.parametrize(("every", "pushing"), [(1, (1, 2, 3, 4, 5, 6, 7)), (3, (1, 4, 7)), (0, (1,))])
def test_steps_between_pushes_are_one_clean_pass(every: int, pushing: tuple[int, ...], onto: Onto) -> None:
    """They move the weights along J^T u as J stands, leave J alone and are counted, told and replayed as they were."""
    live, again = scored(), scored()
    method, states = made(live, onto, push_every=every, draws=2), ({}, {})
    passes = 0
    for number in range(1, 8):
        losses, key = live.losses(), Key(0, number)
        learned = {name: j.clone() for name, j in states[0].items()}
        expected = estimate_of(live, method, _silent(lesson_of(live, method, key)), states[0])
        before = {leaf.name: leaf.tensor.clone() for leaf in live.leaves}
        step = method.step(live.leaves, losses, key, 0.1, 1e-2, states[0])
        passes += losses.forward_passes
        assert losses.forward_passes == (5 if number in pushing else 1)
        assert (step.unexplained is not None) == bool(step.directions) == (number in pushing)
        assert passes == method.forward_passes(number) == method.forward_cost(1.0, number)
        for leaf in live.leaves:
            assert torch.allclose(leaf.tensor, before[leaf.name] - 0.1 * expected[leaf.name], atol=1e-6)
        if number not in pushing:
            assert all(torch.equal(j, states[0][name]) for name, j in learned.items())
        recorded, oracle = Recorded(0.1, step.directions, responses=step.responses, eps=1e-2), again.losses()
        method.replay(again.leaves, recorded, lambda oracle=oracle: oracle, key, states[1])  # type: ignore[misc]
    for one, other in zip(live.leaves, again.leaves, strict=True):
        assert torch.equal(one.tensor, other.tensor)
    with pytest.raises(ValueError, match="recorded without its pushes"):
        method.replay(again.leaves, Recorded(0.1, ()), again.losses, Key(0, 1), {})


def test_pushes_are_seldom_where_little_is_to_be_learned() -> None:
    """Every eighth step onto features; each onto scores, and where J is corrected."""
    toy = scored()
    for options, known, every in (
        ({}, True, 8),
        ({}, False, 1),
        ({"onto": "scores"}, True, 1),
        ({"alpha": 0.5}, True, 1),
        ({"push_every": 5}, True, 5),
        ({"push_every": 0}, True, 0),
    ):
        method = feedback(**options).prepared(toy.leaves, toy.head if known else None)  # type: ignore[arg-type]
        assert method.push_every == every, options


def test_a_skipped_first_step_pushes_again() -> None:
    """Nothing was learned, so the next step asks, whatever the interval."""
    toy, state = scored(), {}
    method, kept = made(toy, "features", push_every=0), toy.x[0].clone()
    toy.x[0] = torch.nan
    assert method.step(toy.leaves, toy.losses(), Key(0, 1), 0.1, 1e-2, state).skipped and not state
    toy.x[0] = kept
    assert method.step(toy.leaves, toy.losses(), Key(0, 2), 0.1, 1e-2, state).directions and state
    assert not method.step(toy.leaves, toy.losses(), Key(0, 3), 0.1, 1e-2, state).directions


def test_a_failure_leaves_weights_and_feedback_alone() -> None:
    """A forward that raises, and one that answers NaN, change nothing; the second is a skipped step."""
    toy = scored()
    method, state = build("feedback"), {}
    method.step(toy.leaves, toy.losses(), Key(0, 0), 0.1, 1e-2, state)
    before = [leaf.tensor.clone() for leaf in toy.leaves] + [buffer.clone() for buffer in state.values()]
    losses = toy.losses()
    scores = losses.parts[0].scores
    assert scores is not None
    answers = iter([scores(), scores() * torch.nan])
    broken = replace(losses, parts=[replace(losses.parts[0], scores=lambda: next(answers))])
    with pytest.raises(RuntimeError, match="never ran"):  # no layer runs: the inputs are missing
        method.step(toy.leaves, broken, Key(0, 1), 0.1, 1e-2, state)
    toy.x[0] = torch.nan
    assert method.step(toy.leaves, toy.losses(), Key(0, 1), 0.1, 1e-2, state).skipped
    after = [leaf.tensor for leaf in toy.leaves] + list(state.values())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_it_learns_faster_than_the_pushes_alone() -> None:
    """Forty steps at the same price: learned feedback ends below activity perturbation of the same sites."""
    ends = {}
    for name, rate, head in (("activity", 0.3, False), ("feedback", 0.05, False), ("feedback", 0.05, True)):
        toy, state = scored(labels=4, examples=12), {}
        method = build(name, directions=1, sides=1).prepared(toy.leaves, toy.head if head else None)
        for number in range(60):
            method.step(toy.leaves, toy.losses(), Key(0, number), rate, 1e-2, state)
        ends[name, head] = float(toy.losses()().mean())
    first = float(scored(labels=4, examples=12).losses()().mean())
    for head in (False, True):
        assert ends["feedback", head] < 0.5 * first
        assert ends["feedback", head] < ends["activity", False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directions": 0}, "at least 1 push"),
        ({"mu": 2.0}, "above 0 and below 2"),
        ({"alpha": 1.5}, "from 0 to 1"),
        ({"sides": 3}, "must be 1"),
        ({"push_every": -1}, "must be 0 .* or more"),
        ({"push_every": 4, "alpha": 0.5}, "take --push-every 1"),
    ],
)
def test_senseless_settings_are_refused(options: dict[str, float], message: str) -> None:
    """Each in one sentence."""
    with pytest.raises(ValueError, match=message):
        build("feedback", **options)
