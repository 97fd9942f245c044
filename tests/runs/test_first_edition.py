"""Recordings made by the project's first version: rebuilt to the same bits, or said to be rebuilt to rounding."""

import shutil
from pathlib import Path

import pytest

from zocore.runs.recording import EVENTS
from zocore.runs.replay import OTHER_SUMS, UNSEALED, check_run, replay_run

KEPT = Path(__file__).parent / "first_edition"
TO_ROUNDING = ("adam", "grzorank", "lowrank")


def folder_of(path: Path, parent: Path) -> Path:
    """A run folder that holds a kept recording and nothing else."""
    folder = parent / path.stem
    folder.mkdir()
    shutil.copy(path, folder / EVENTS)
    return folder


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.jsonl")), ids=lambda path: path.stem)
def test_recordings_of_the_first_version_are_rebuilt(path: Path, tmp_path: Path) -> None:
    """Plain moves of full rank are proved by the fingerprint of the run; of others it is told what they are."""
    folder = folder_of(path, tmp_path)
    verdict = replay_run(folder, None, verify=True)
    caveat = path.stem in TO_ROUNDING
    assert verdict.proved is not caveat
    assert UNSEALED in verdict.lines
    assert (OTHER_SUMS in verdict.lines) is caveat is (OTHER_SUMS in check_run(folder).lines)
    assert ("verified: bitwise equal to the weights the run ended with" in verdict.lines) is not caveat
