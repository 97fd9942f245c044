"""`--report-to`: trackers hear of a run what its recording holds, and cannot harm it."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from zocore.cli import main
from zocore.errors import InputError
from zocore.runs.events import EvalDone, StepDone
from zocore.runs.recording import read_recording
from zocore.runs.report import TRACKERS, Report, figures

TRAIN = ["train", "--steps", "3", "--eval-examples", "4", "--eval-every", "2", "--batch-size", "4", "--method", "mezo"]


class Stand(ModuleType):
    """A stand-in for a tracker's module, which writes down how it is called."""

    def __init__(self, name: str, fails: str = "") -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.fails = fails

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **named: Any) -> "Stand":
            self.calls.append((name, arguments, named))
            if name == self.fails:
                raise ConnectionError("no network")
            return self

        return call


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a stand-in in the place of a tracker's module."""

    def put(name: str, fails: str = "") -> Stand:
        module = Stand(name, fails)
        found = {TRACKERS[name].module: module}
        monkeypatch.setattr("zocore.runs.report.import_module", found.__getitem__)
        return module

    return put


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_tracker_hears_what_the_recording_holds(name: str, stand: Any, tmp_path: Path) -> None:
    """Begun once with the run's name and settings, every figure of every event at its step, then finished."""
    module, folder = stand(name), tmp_path / "mine"
    assert main([*TRAIN, "--out", str(folder), "--report-to", name]) == 0
    (begin, *logs, end), recording = module.calls, read_recording(folder)
    assert begin[0] == "init" and begin[2]["project"] == "zocore" and begin[2]["name"] == "mine"
    assert begin[2]["config"] == recording.header.config
    assert end[0] == "finish"
    told = [(named["step"], arguments[0]) for _, arguments, named in logs]
    assert told == [found for found in map(figures, recording.events) if found[1]]
    by_name = {key: (step, value) for step, values in told for key, value in values.items()}
    last = recording.steps[-1]
    assert by_name["train/loss"] == (3, last.loss) and by_name["train/learning_rate"] == (3, last.lr)
    assert by_name["train/projected_grad"] == (3, abs(last.projected_grads[0]))
    dev = [event for event in recording.events if isinstance(event, EvalDone) and event.split == "dev"]
    assert by_name["eval/accuracy"] == (2, dev[-1].accuracy)


def test_tensorboard_is_written_into_the_run_folder(stand: Any, tmp_path: Path) -> None:
    """One scalar for each figure, and a resumed run goes on in the same folder."""
    module, folder = stand("tensorboard"), tmp_path / "mine"
    assert main([*TRAIN, "--out", str(folder), "--report-to", "tensorboard"]) == 0
    opened = [arguments for name, arguments, _ in module.calls if name == "SummaryWriter"]
    assert opened == [(str(folder / "tensorboard"),)]
    scalars = [arguments for name, arguments, _ in module.calls if name == "add_scalar"]
    assert [(step, value) for name, value, step in scalars if name == "train/loss"] == [
        (event.step, event.loss) for event in read_recording(folder).steps
    ]
    assert module.calls[-1][0] == "close"


def test_real_tensorboard_reads_back(tmp_path: Path) -> None:
    """Where the package is installed, its own reader finds the losses of the recording."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main([*TRAIN, "--out", str(tmp_path / "run"), "--report-to", "tensorboard"]) == 0
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    read.Reload()
    losses = [(scalar.step, scalar.value) for scalar in read.Scalars("train/loss")]
    assert losses == [(event.step, pytest.approx(event.loss)) for event in read_recording(tmp_path / "run").steps]


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_a_tracker_that_fails_harms_nothing(
    fails: str, stand: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run ends as it would have, one sentence says which tracker was left out, and it is not asked again."""
    module = stand("wandb", fails)
    assert main([*TRAIN, "--out", str(tmp_path / "run"), "--report-to", "wandb"]) == 0
    assert len(read_recording(tmp_path / "run").steps) == 3
    said = [line for line in capsys.readouterr().err.splitlines() if "wandb" in line]
    assert said == ["zocore: wandb failed and is left out from here (ConnectionError: no network); the run and its "
                    "recording go on"]  # fmt: skip
    assert [name for name, _, _ in module.calls].count(fails) == 1


def test_a_missing_package_is_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one sentence with what to install; no folder is left."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main([*TRAIN, "--out", str(tmp_path / "run"), "--report-to", "wandb"]) == 2
    assert capsys.readouterr().err == "zocore: --report-to wandb needs its package: pip install wandb\n"
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="knows tensorboard, trackio, wandb, not 'mlflow'"):
        Report(["mlflow"], tmp_path)


def test_text_has_scores_and_no_accuracy() -> None:
    """What an objective is judged by besides comes by its name; what is no number is left out."""
    event = EvalDone(4, "dev", 0.5, float("nan"), 10, 1.0, {"f1": 0.25})
    assert figures(event) == (4, {"eval/loss": 0.5, "eval/f1": 0.25})


def test_several_slopes_are_one_figure() -> None:
    """The root mean square of a step's projected gradients; a step of backprop has none."""
    step = StepDone(1, 0.5, [], [], [3.0, -4.0], [], [], 0.1, 1e-3, 2, 2.0, 1.0, 1.0, 0)
    assert figures(step)[1]["train/projected_grad"] == pytest.approx(12.5**0.5)
    assert "train/projected_grad" not in figures(StepDone(1, 0.5, [], [], [], [], [], 0.1, 1e-3, 1, 3, 1, 1, 0))[1]
