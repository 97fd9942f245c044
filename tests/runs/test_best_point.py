"""The best look at the dev split: it ends a run early, and its step can be taken from a recording."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.recordings import recorded
from tests.support.short_runs import settings
from zocore.cli import main
from zocore.runs.best_point import BestPoint
from zocore.runs.events import EvalDone, RunEnded, StepDone
from zocore.runs.loop import run
from zocore.runs.recording import claim, read_recording, record


def look(step: int, loss: float, split: str = "dev") -> EvalDone:
    """An evaluation of which only these matter."""
    return EvalDone(step, split, loss, 0.5, 10, 0.1)


def test_the_best_point_is_the_lowest_dev_loss_and_of_equals_the_first() -> None:
    """The test split never counts."""
    point = BestPoint.of([look(0, 0.1, "test"), look(2, 0.9), look(4, 0.5), look(6, 0.5), look(8, 0.7)])
    assert point.best is not None and (point.best.step, point.since) == (4, 2)
    assert BestPoint.of([look(0, 0.1, "test")]).best is None


def test_patience_ends_a_run_once_the_dev_loss_has_stopped_falling() -> None:
    """At an absurd rate the dev loss does not fall for long; with patience 1 the first rise is the end."""
    config = settings(method="mezo", lr=1.0, steps=40, eval_every=2, patience=1)
    events = list(run(config))
    looks = [event for event in events if isinstance(event, EvalDone) and event.split == "dev"]
    end = events[-1]
    assert isinstance(end, RunEnded) and end.status == "finished"
    assert end.steps == looks[-1].step < 40 and looks[-1].loss >= looks[-2].loss
    assert all(after.loss < before.loss for before, after in pairwise(looks[:-1]))
    assert f"it was lowest after step {looks[-2].step}" in end.reason


def test_a_resumed_run_keeps_what_it_knew_of_dev(tmp_path: Path) -> None:
    """Patience counts on over an interruption."""
    settled = {"method": "mezo", "lr": 1.0, "steps": 40, "eval_every": 2, "patience": 2}
    whole = [event for event in run(settings(**settled)) if isinstance(event, StepDone)]
    halt = iter([False] * (whole[-1].step - 1) + [True] * 99)
    claim(tmp_path / "run")
    list(record(run(settings(**settled), stop=lambda: next(halt)), tmp_path / "run"))
    rest = list(run(settings(**settled), recording=read_recording(tmp_path / "run")))
    end = rest[-1]
    assert isinstance(end, RunEnded) and end.steps == whole[-1].step and "has not fallen" in end.reason


def test_the_best_step_can_be_replayed_exported_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--step best` is the step of the lowest dev loss, which the summary names."""
    run_folder = tmp_path / "run"
    recorded(run_folder, method="mezo", steps=6, eval_every=2)
    best = BestPoint.of(read_recording(run_folder).events).best
    assert best is not None
    assert json.loads((run_folder / "summary.json").read_text())["best_step"] == best.step
    assert main(["replay", str(run_folder), "--step", "best"]) == 0
    assert f"after step {best.step} " in capsys.readouterr().out
    assert main(["export", str(run_folder), "--to", str(tmp_path / "out"), "--step", "best"]) == 0


def test_what_cannot_be_meant_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Patience without looks, and the best of a run that never looked."""
    with pytest.raises(ValueError, match="--eval-every"):
        settings(patience=2)
    recorded(tmp_path / "run", method="mezo", steps=2)
    assert main(["replay", str(tmp_path / "run"), "--step", "best"]) == 2
    assert "no evaluation on the dev split" in capsys.readouterr().err
