"""Weights kept in a file: a run that goes on from them is the run that was never interrupted."""

from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.support.short_runs import settings
from zocore.config import RunConfig
from zocore.runs import loop, rebuilding
from zocore.runs.events import RunEnded, StepDone
from zocore.runs.kept_weights import put_away_at, seal_of
from zocore.runs.recording import read_recording, record

CASES: list[dict[str, Any]] = [
    {},
    {"update": "adam"},
    {"method": "feedback"},
    {"method": "mezo-gv", "pool": 2},
    {"method": "grzo"},
    {"quantise": "nf4", "method": "qzo"},
]


def go(config: RunConfig, folder: Path, steps: int, weights: Path) -> None:
    """Do so many steps of a run, from where its recording ends, and leave it."""
    before = read_recording(folder) if folder.exists() else None
    folder.mkdir(exist_ok=True)
    done = 0
    with closing(record(loop.run(config, recording=before, weights=weights), folder)) as events:  # type: ignore[type-var]
        for event in events:
            done += isinstance(event, StepDone)
            if done == steps:
                return


def fingerprint(config: RunConfig) -> str:
    """Of the weights that an undisturbed run ends with."""
    return next(event.weights_fingerprint for event in loop.run(config) if isinstance(event, RunEnded))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_in_slices_is_the_run(case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slices, each from the kept weights without a replay: every loss and the last weights bit for bit."""
    config, weights = settings(**({"lr": 1e-2} | case | {"steps": 6})), tmp_path / "weights.safetensors"
    whole = list(loop.run(config))
    replayed: list[int] = []
    monkeypatch.setattr(rebuilding, "replay_step", lambda session, event: replayed.append(event.step))
    for steps in (1, 3, 100):
        go(config, tmp_path / "run", steps, weights)
    found = read_recording(tmp_path / "run")
    assert replayed == []
    assert [step.loss for step in found.steps] == [event.loss for event in whole if isinstance(event, StepDone)]
    assert (
        isinstance(whole[-1], RunEnded)
        and found.end is not None
        and found.end.weights_fingerprint == whole[-1].weights_fingerprint
    )


def test_steps_after_the_kept_weights_are_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed before it kept its weights leaves older ones: only what came after them is done again."""
    config, weights = settings(steps=6), tmp_path / "weights.safetensors"
    go(config, tmp_path / "run", 2, weights)
    older = weights.read_bytes()
    go(config, tmp_path / "run", 2, weights)
    weights.write_bytes(older)
    replayed: list[int] = []
    replay = rebuilding.replay_step
    monkeypatch.setattr(rebuilding, "replay_step", lambda s, event: (replayed.append(event.step), replay(s, event)))
    go(config, tmp_path / "run", 100, weights)
    assert replayed == [3, 4]
    end = read_recording(tmp_path / "run").end
    assert end is not None and end.weights_fingerprint == fingerprint(config)


def test_weights_of_another_run_are_left_alone(tmp_path: Path) -> None:
    """The file says of which recording it is: another's is not taken up."""
    weights = tmp_path / "weights.safetensors"
    go(settings(steps=6, seed=1), tmp_path / "other", 2, weights)
    go(settings(steps=6), tmp_path / "run", 2, tmp_path / "none.safetensors")
    go(settings(steps=6), tmp_path / "run", 100, weights)
    end = read_recording(tmp_path / "run").end
    assert end is not None and end.weights_fingerprint == fingerprint(settings(steps=6))


def test_a_file_says_after_which_step_it_was_made(tmp_path: Path) -> None:
    """What is no such file says nothing."""
    weights = tmp_path / "weights.safetensors"
    assert put_away_at(weights) is None
    weights.write_bytes(b"nothing of the kind")
    assert put_away_at(weights) is None
    go(settings(), tmp_path / "run", 2, weights)
    (_, second) = islice(read_recording(tmp_path / "run").steps, 2)
    assert put_away_at(weights) == (2, seal_of(second))
