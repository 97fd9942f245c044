"""Runs that lower something other than the loss: what moves, what is told, and what is refused in one sentence."""

from pathlib import Path

import pytest

from tests.support.recordings import recorded
from tests.support.short_runs import settings
from zocore.config import RunConfig
from zocore.runs.events import EvalDone, RunStarted, StepDone, Warned
from zocore.runs.loop import run
from zocore.runs.opening import open_session
from zocore.runs.replay import replay_run

SHORT = {"steps": 4, "lr": 1e-2, "eps": 0.05, "eval_every": 2, "measure_every": 2}


@pytest.mark.parametrize("method", ["mezo", "grzo", "fzoo", "openai-es", "mezo-gv", "activity"])
def test_accuracy_is_lowered_in_steps_of_one_example(method: str, tmp_path: Path) -> None:
    """Each value measured is a share of wrong answers, and the run replays bit for bit."""
    subspace = "writers:1" if method == "activity" else "all"
    events = recorded(tmp_path, method=method, objective="accuracy", subspace=subspace, **SHORT)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert all((4 * value).is_integer() for step in steps for value in step.loss_plus + step.loss_minus)
    assert all(0 <= step.moved <= 1 for step in steps)
    assert replay_run(tmp_path, None, verify=True).proved


@pytest.mark.parametrize(
    ("objective", "method"), [("margin", "mezo"), ("margin", "feedback"), ("margin", "adamw"), ("f1", "fzoo")]
)
def test_margin_and_f1_are_told_in_evaluations(objective: str, method: str, tmp_path: Path) -> None:
    """An evaluation has loss and accuracy as ever, and the objective by its name."""
    subspace = "writers:1" if method == "feedback" else "all"
    events = recorded(tmp_path, objective=objective, method=method, subspace=subspace, **SHORT)
    evaluations = [event for event in events if isinstance(event, EvalDone)]
    assert all(event.scores and list(event.scores) == [objective] for event in evaluations)
    assert not any(event.skipped for event in events if isinstance(event, StepDone))


def test_f1_of_a_run_is_that_of_its_batches() -> None:
    """The measured value is 1 - F1 of the whole batch, not a mean over parts of it."""
    session = open_session(settings(objective="f1", batch_size=8))
    losses = session.losses(1)
    values = losses()
    answers = session.objective.log_probs(session.parts(1)[0])
    assert len(set(values.tolist())) == 1
    report = session.objective.criterion.report(answers, losses.labels)
    assert report and float(values[0]) == pytest.approx(1 - report["f1"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "adamw", "objective": "accuracy"}, "its gradient is zero.*--method fzoo"),
        ({"method": "sgd", "objective": "f1"}, "its gradient is zero.*--method fzoo"),
        ({"method": "feedback", "objective": "accuracy"}, "error of each label score.*--objective margin"),
        ({"method": "grzo", "objective": "f1"}, "one for the whole batch.*--objective accuracy"),
        ({"method": "activity", "objective": "f1"}, "one for the whole batch.*--objective accuracy"),
        ({"objective": "f1", "micro_batch": 2}, "leave --micro-batch out"),
        ({"objective": "rouge"}, "must be one of loss, margin, accuracy, f1"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(changes: dict, said: str) -> None:
    """Before any model is loaded, with what to use instead."""
    with pytest.raises(ValueError, match=said):
        next(run(settings(**changes)))


def test_flat_objectives_probe_farther_out() -> None:
    """Without --eps the probes of accuracy are ten times as far, and its rate is called an estimate."""
    near, far = (open_session(settings(objective=name, eps=None, lr=None)).config for name in ("loss", "accuracy"))
    assert far.eps == pytest.approx(10 * (near.eps or 0)) and far.lr == near.lr
    started = next(run(settings(objective="accuracy", lr=None)))
    assert isinstance(started, RunStarted) and any("not tuned for accuracy" in note for note in started.notes)


def test_a_flat_run_is_told_that_nothing_moves() -> None:
    """With probes far too near no answer changes, and one warning says so."""
    events = list(run(settings(objective="accuracy", eps=1e-7, steps=20)))
    assert all(event.moved == 0 for event in events if isinstance(event, StepDone))
    assert [event.message for event in events if isinstance(event, Warned) and "too small" in event.message]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (1, 2))])
def test_the_bundled_model_learns_from_accuracy_alone(seed: int) -> None:
    """Right or wrong is all it is told, and held-out accuracy rises by 10 points or more."""
    events = list(run(RunConfig(method="mezo", task="sentiment", objective="accuracy", steps=100, seed=seed)))
    before, after = [event.accuracy for event in events if isinstance(event, EvalDone)]
    assert after >= before + 0.1
