"""What looks into a run from outside: the traced step, the timeline, slices and alignment; nothing moves unasked."""

from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import tiny
from zocore.config import RunConfig
from zocore.diagnostics.alignment import BatchLaw, alignment, batch_law
from zocore.diagnostics.loss_slices import direction, probe, secants, slice_along
from zocore.diagnostics.step_trace import trace
from zocore.directions.pushes import Pushes
from zocore.runs.loop import run
from zocore.runs.opening import open_session
from zocore.runs.recording import claim, record
from zocore.runs.session import Session
from zocore.runs.timeline import open_timeline
from zocore.step.step import Method


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("models") / "llama", "llama")


def config(model: Path, **more: Any) -> RunConfig:
    few: dict[str, Any] = {"method": "mezo", "lr": 1e-3, "batch_size": 4, "eval_examples": 4, "steps": 6}
    return RunConfig(**{"model": str(model)} | few | more)


def weights(session: Session) -> list[torch.Tensor]:
    return [leaf.tensor.detach().clone() for leaf in session.leaves]


@pytest.mark.parametrize("method", ["mezo", "n-spsa", "grzo", "mezo-gv", "mezo-greedy", "fzoo"])
def test_a_traced_step_is_the_step(model, method):
    """Tracing a step leaves bitwise the weights that the plain step leaves."""
    opened, plain = (open_session(config(model, method=method)) for _ in range(2))
    phases = list(trace(opened, 1))
    plain.method.step(plain.leaves, plain.losses(1), plain.key(1), plain.lr(1), 1e-3, plain.state)
    assert all(torch.equal(a, b) for a, b in zip(weights(opened), weights(plain), strict=True))
    assert [phase.title for phase in phases][-3:] == ["Difference", "Restore", "Update"]
    assert phases[-2].moved == 0.0 and phases[-1].moved > 0
    assert all(phase.code for phase in phases)


def test_a_look_along_pushes_is_what_the_method_s_own_probe_sees(model):
    """The mean over the examples of its measured slopes, at its own eps; there is no direction in the weights."""
    session = open_session(config(model, method="activity", subspace="writers"))
    eps = session.config.eps or 0.0
    push = probe(session, 3)
    assert isinstance(push, Pushes) and slice_along(session, push, [0.0]).slope is None
    found = secants(session, push, [eps])[0]
    assert isinstance(session.method, Method)
    measured = session.method.difference(session.losses(1), [push], eps)
    assert found.slope == pytest.approx(float(measured.projected_grad.double().mean()), rel=1e-4)
    assert probe(open_session(config(model)), 3) == direction(open_session(config(model)), 3)


def test_backprop_cannot_be_traced(model):
    with pytest.raises(ValueError, match="takes a gradient"):
        next(trace(open_session(config(model, method="sgd")), 1))


@pytest.mark.parametrize("method", ["mezo", "grzo"])
@pytest.mark.parametrize("update", ["auto", "momentum"])
def test_a_timeline_goes_back_and_forth_to_the_same_weights(model, tmp_path, monkeypatch, method, update):
    monkeypatch.setattr("zocore.runs.timeline.STRIDE", 4)
    claim(tmp_path / "run")
    events: list[Any] = list(record(run(config(model, method=method, update=update)), tmp_path / "run"))
    timeline = open_timeline(tmp_path / "run")
    base = weights(timeline.session)
    timeline.go(6)
    assert timeline.session.fingerprint() == events[-1].weights_fingerprint
    answers = timeline.answers(["It was good"])
    timeline.go(3)
    timeline.go(5)
    timeline.go(0)
    assert all(torch.equal(a, b) for a, b in zip(weights(timeline.session), base, strict=True))
    timeline.go(6)
    assert timeline.session.fingerprint() == events[-1].weights_fingerprint
    assert timeline.answers(["It was good"]) == answers
    with pytest.raises(ValueError, match="no step 7"):
        timeline.go(7)


def test_looking_moves_nothing_and_agrees_with_the_derivative(model):
    session = open_session(config(model))
    before = weights(session)
    along = direction(session)
    found = slice_along(session, along, [-1e-2, 0.0, 1e-2])
    near = secants(session, along, [1e-3])[0]
    assert found.slope == pytest.approx(near.slope, rel=0.02, abs=1e-3)
    assert found.losses[1] == pytest.approx((near.plus + near.minus) / 2, abs=1e-3)
    aligned = alignment(session, [1, 4], repeats=4)
    assert aligned.variance[0] > aligned.variance[1] > 0
    assert 0 < aligned.cosine[0] < 6 * aligned.theory()[0]
    assert all(torch.equal(a, b) for a, b in zip(weights(session), before, strict=True))


def test_the_batch_law_is_measured_for_grzo_alone(model):
    law = batch_law(open_session(config(model, method="grzo")), [2, 4], repeats=3)
    assert -1 <= law.similarity <= 1
    assert all(0 <= e <= b for e, b in zip(law.effective, law.sizes, strict=True))
    assert all(0 < value < 1 for value in law.cosine)
    with pytest.raises(ValueError, match="choose GRZO"):
        batch_law(open_session(config(model)), [2])


@pytest.mark.parametrize("agreement", [0.0, 0.3, 1.0])
def test_the_batch_law_holds_for_gradients_of_equal_norm(agreement):
    """The rms cosine of sum (z_i . g_i) z_i to the mean gradient, simulated, within 6 % (three standard errors)."""
    d, sizes, trials = 1500, [1, 2, 4, 16], 1500
    rng = np.random.default_rng(7)
    shared, own = np.eye(max(sizes) + 1, d)[0], np.eye(max(sizes) + 1, d)[1:]
    gradients = sqrt(agreement) * shared + sqrt(1 - agreement) * own  # unit norm, cosine `agreement` to each other
    found = []
    for size in sizes:
        mean = gradients[:size].mean(0)
        squares = []
        for _ in range(trials):
            z = rng.standard_normal((size, d))
            g = ((z * gradients[:size]).sum(1)[:, None] * z).sum(0)
            squares.append((g @ mean) ** 2 / (g @ g) / (mean @ mean))
        found.append(sqrt(np.mean(squares)))
    law = BatchLaw(sizes, found, [agreement * b + 1 - agreement for b in sizes], d)
    assert law.theory()[0] == pytest.approx(sqrt(1 / d))
    np.testing.assert_allclose(found, law.theory(), rtol=0.06)


def test_a_batch_of_like_examples_counts_in_full(model):
    """The same example over and over has B_eff = B, and different ones less."""
    session = open_session(config(model, method="grzo"))
    same = [session.task.train[0]] * 4
    session.examples = lambda step: same  # type: ignore[method-assign]
    assert batch_law(session, [2, 4], repeats=1).effective == pytest.approx([2, 4], rel=1e-4)
    assert batch_law(open_session(config(model, method="grzo")), [4], repeats=1).effective[0] < 3.99
