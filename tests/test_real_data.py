"""Real sentences and real checkpoints, where the folder that holds them is present."""

import json
from pathlib import Path

import pytest

from tests.support.places import SHARED
from zocore.cli import main
from zocore.runs.recording import read_recording

DATA, MODEL = SHARED / "data" / "sst2", SHARED / "models" / "stories260K-hf"

pytestmark = pytest.mark.skipif(
    not (DATA.is_dir() and MODEL.is_dir()), reason=f"no SST-2 and stories260K under {SHARED}: set ZOCORE_SHARED"
)


@pytest.mark.parametrize("method", ["mezo", "grzo", "qzo"])
def test_sst2_runs_on_a_real_decoder(method: str, tmp_path: Path) -> None:
    """Three steps on film reviews with the stories model learn from real text and replay bitwise."""
    words = ["--model", str(MODEL), "--data", str(DATA), "--template", "{text} It was", "--device", "cpu"]
    words += ["--label-words", "0=bad,1=good", "--steps", "3", "--batch-size", "8", "--eval-examples", "32"]
    assert (
        main(["train", *words, "--method", method, "--lr", "1e-4", "--eps", "1e-3", "--out", str(tmp_path / "run")])
        == 0
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert 0.3 < summary["loss_before"] < 5
    assert summary["loss_after"] != summary["loss_before"]
    header = read_recording(tmp_path / "run").header
    assert header.labels == ["0", "1"]
    assert min(header.examples.values()) > 100
    assert main(["replay", str(tmp_path / "run"), "--verify"]) == 0
