"""The README is true: its commands run, its Python runs, and its test command is the one CI calls."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.places import ROOT
from zocore.cli import main

README = (ROOT / "README.md").read_text(encoding="utf-8")
PREFIX = ".venv/bin/python -m zocore "
QUICK = {"train": ["--steps", "2", "--eval-examples", "20"], "compare": ["--eval-examples", "20"]}
ROWS = [("the soup was lovely", "good"), ("the waiter was rude", "poor")] * 8


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def _commands() -> list[list[str]]:
    lines = [line for block in _blocks("sh") for line in block.splitlines() if line.startswith(PREFIX)]
    return [shlex.split(line.removeprefix(PREFIX)) for line in lines]


def _shortened(command: list[str]) -> list[str]:
    """The same command, with few steps and examples."""
    given = {"--step": "2", "--forward-cost": "12", "--seeds": "0,1", "--measure-every": "1", "--eval-every": "1"}
    words = [given.get(before, word) for before, word in zip(["", *command], command, strict=False)]
    if "--steps" in words:
        words[words.index("--steps") + 1] = "2"
        return [*words, "--eval-examples", "20"]
    return [*words, *QUICK.get(words[0], [])]


def test_commands_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every zocore line of the README ends with status 0, in the order it is given."""
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(["text,stars", *(f"{text} {number},{stars}" for number, (text, stars) in enumerate(ROWS))])
    Path("reviews.csv").write_text(rows, encoding="utf-8")
    assert len(_commands()) > 8
    for command in _commands():
        assert main(_shortened(command)) == 0, command


def test_python_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The example of a run prints one line per step."""
    example = next(block for block in _blocks("python") if "import" in block)
    exec(compile(example, "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_step_is_the_step_of_the_code() -> None:
    """The five lines name the same parts in the same order as Method.step and apply."""
    code = (ROOT / "zocore" / "step" / "step.py").read_text(encoding="utf-8")
    parts = ["self.sampler(key, losses, eps)", "self.difference(losses, directions, eps)", "self.shaping(measured)",
             "estimate(directions, coefficients", "self.update(leaf, g, lr, key, state)"]  # fmt: skip
    places = [code.index(part) for part in parts]
    assert places == sorted(places)
    step = _blocks("python")[0]
    assert all(part.replace("self.", "method.").rstrip(")") in step.replace("(g,", "(g,") for part in parts)


def test_ci_calls_the_readme_command() -> None:
    """.ci/run is the README's test command, with the slow tests added."""
    command = next(line for block in _blocks("sh") for line in block.splitlines() if line.endswith("-m tests"))
    assert f"{command} --all" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
