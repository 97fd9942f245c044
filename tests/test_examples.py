"""The scripts in examples/ run as they stand, are short, and do what they say."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.support import tiny
from tests.support.places import ROOT

SCRIPTS = ROOT / "examples"


def _run(name: str, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(SCRIPTS / name), run_name="__main__")


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.name)
def test_they_are_at_most_thirty_lines(script: Path) -> None:
    """Each can be read at a glance, and says in its first line how to run it."""
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 30
    assert f"python examples/{script.name}" in text.splitlines()[0]


def test_an_optimizer_lowers_mistakes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Accuracy alone, which has no gradient, teaches the network most of the circle."""
    _run("optimizer.py", monkeypatch)
    before, after = capsys.readouterr().out.removeprefix("mistakes: ").split(" -> ")
    assert float(after) < float(before) - 0.1


def test_a_trainer_tunes_and_saves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Trainer's folder holds the tuned model."""
    model = tiny.save(tmp_path / "model", "roberta", "classifier")
    _run("trainer.py", monkeypatch, model, tmp_path / "tuned")
    assert json.loads((tmp_path / "tuned" / "config.json").read_text())["model_type"] == "roberta"


def test_a_run_is_tracked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The folder holds what TensorBoard reads."""
    pytest.importorskip("tensorboard")
    _run("tracking.py", monkeypatch, tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_an_adapter_is_tuned_and_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PEFT reads the folder that the run wrote, card and all."""
    _run("adapter.py", monkeypatch, tmp_path)
    assert "wrote the adapter" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "README.md"}
