"""Long runs: snapshots change no bit, the newest good one is gone on from, and hours end a sitting."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.short_runs import settings
from zocore.runs import rebuilding
from zocore.runs.events import RunEnded, SnapshotKept, StepDone, Warned
from zocore.runs.kept_weights import FOLDER
from zocore.runs.loop import run
from zocore.runs.recording import claim, read_recording, record
from zocore.runs.replay import export_run, rebuild, replay_run

WAYS: dict[str, dict[str, Any]] = {
    "mezo": {},
    "adam": {"update": "adam"},
    "feedback": {"method": "feedback", "subspace": "writers:1"},
    "scales": {"method": "qzo"},
    "masters": {"dtype": "bf16", "master": True},
    "lora": {"subspace": "lora", "update": "momentum"},
}


def sit(folder: Path, until: int, **changes: Any) -> list[Any]:
    """Begin a run of eight steps or go on with it, and stop before step `until` + 1."""
    recording = read_recording(folder) if (folder / "events.jsonl").exists() else None
    config = settings(steps=8, snapshot_every=2, **changes)
    if recording is None:
        claim(folder, config)
    done = [recording.last if recording else 0]
    events = []
    for event in record(run(config, lambda: done[0] >= until, recording, folder=folder), folder):
        done[0] = event.step if isinstance(event, StepDone) else done[0]
        events.append(event)
    return events


def ended(events: list[Any]) -> RunEnded:
    """The last event."""
    assert isinstance(events[-1], RunEnded)
    return events[-1]


def replayed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that are done again from the recording, as they come."""
    steps: list[int] = []
    real = rebuilding.replay_step

    def noted(session: Any, event: StepDone) -> None:
        steps.append(event.step)
        real(session, event)

    monkeypatch.setattr(rebuilding, "replay_step", noted)
    return steps


@pytest.mark.parametrize("way", WAYS)
def test_going_on_from_a_snapshot_is_going_on(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights as a run that was never stopped and kept nothing; only the steps since are done again."""
    whole = list(run(settings(steps=8, **WAYS[way])))
    first = sit(tmp_path / "run", 5, **WAYS[way])
    assert [event.step for event in first if isinstance(event, SnapshotKept)] == [2, 4]
    again = replayed(monkeypatch)
    assert ended(sit(tmp_path / "run", 8, **WAYS[way])).weights_fingerprint == ended(whole).weights_fingerprint
    assert again == [5]
    assert sorted(path.name for path in (tmp_path / "run" / FOLDER).iterdir()) == [
        "step-00000006.safetensors",
        "step-00000008.safetensors",
    ]
    assert (
        replay_run(tmp_path / "run", 7, verify=True).proved and replay_run(tmp_path / "run", None, verify=True).proved
    )


def test_a_damaged_snapshot_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte, or half of the file: the one before it is taken, then the start, each time with a sentence."""
    whole = ended(list(run(settings(steps=8)))).weights_fingerprint
    sit(tmp_path, 5)
    newest, older = (tmp_path / FOLDER / f"step-0000000{step}.safetensors" for step in (4, 2))
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    again = replayed(monkeypatch)
    said = [event.message for event in sit(tmp_path, 6) if isinstance(event, Warned)]
    assert again == [3, 4, 5] and len(said) == 1 and said[0].startswith("the snapshot of step 4 (")
    assert "is damaged" in said[0]
    for path in (tmp_path / FOLDER).iterdir():
        path.write_bytes(path.read_bytes()[:100])
    again.clear()
    events = sit(tmp_path, 8)
    assert again == [1, 2, 3, 4, 5, 6] and sum(isinstance(event, Warned) for event in events) == 2
    assert ended(events).weights_fingerprint == whole and not older.exists()


def test_a_killed_write_leaves_nothing_that_counts(tmp_path: Path) -> None:
    """A partial file, and a file whose event was never written, change nothing."""
    whole = ended(list(run(settings(steps=8)))).weights_fingerprint
    sit(tmp_path, 5)
    (tmp_path / FOLDER / "step-00000006.partial").write_bytes(b"half")
    (tmp_path / FOLDER / "step-00000099.safetensors").write_bytes(b"of nobody")
    assert ended(sit(tmp_path, 8)).weights_fingerprint == whole


def test_a_snapshot_is_what_is_left_of_backprop(tmp_path: Path) -> None:
    """Gradients are not recorded, but the weights of a kept step can be taken away."""
    sit(tmp_path / "run", 5, method="adamw")
    assert "tuned model" in export_run(tmp_path / "run", tmp_path / "out", 4, delta=False)
    with pytest.raises(ValueError, match="replay do not go together"):
        rebuild(tmp_path / "run", 5)


def test_hours_end_a_sitting_after_its_step(tmp_path: Path) -> None:
    """However short they are a sitting does one step, says why it stopped, and the next goes on to the same end."""
    whole = ended(list(run(settings(steps=3)))).weights_fingerprint
    config = settings(steps=3, hours=1e-9)
    claim(tmp_path, config)
    first = ended(list(record(run(config), tmp_path)))
    assert (first.status, first.steps) == ("stopped", 1)
    assert "hours are over; `zocore resume` goes on" in first.reason
    for steps in (2, 3):
        recording = read_recording(tmp_path)
        last = ended(list(record(run(recording.config, recording=recording), tmp_path)))
        assert last.steps == steps
    assert last.status == "finished" and last.weights_fingerprint == whole


@pytest.mark.parametrize("changes", [{"hours": -1.0}, {"hours": float("nan")}, {"snapshot_every": -1}])
def test_wrong_settings_are_refused(changes: dict) -> None:
    """One sentence."""
    with pytest.raises(ValueError, match="must be 0 or more"):
        settings(**changes)
