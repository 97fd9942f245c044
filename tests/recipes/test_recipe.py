"""Recipes: files of a paper's settings that begin a run, and a prediction of what it costs."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from zocore.cli import main
from zocore.config import RunConfig
from zocore.data.named import named_tasks
from zocore.errors import InputError
from zocore.memory.bill import CARDS
from zocore.recipes.recipe import PEAK, Recipe, recipe, recipes
from zocore.runs.recording import read_recording


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_is_a_run_that_fits_its_card(name: str) -> None:
    """Settings that a run takes, a task of the papers, a card that holds the step, hours that may be."""
    one = recipe(name)
    assert one.config.task in named_tasks() and one.card in PEAK and one.card in CARDS
    assert one.memory.total <= CARDS[one.card]
    assert 0.1 < one.hours < 100
    assert one.paper.startswith("arXiv ") and one.config.lr and one.config.eps
    assert RunConfig.from_json(one.config.to_json()) == one.config


def test_a_recipe_begins_a_run_and_options_change_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its settings are the run's, but for those given, wherever they stand; the prediction is said, as one."""
    rows = [{"premise": f"it rains {n}", "hypothesis": "it is wet", "label": n % 2} for n in range(40)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = tiny.save(tmp_path / "model", "opt")
    words = ["train", "--steps", "2", "--recipe", "mezo-opt-13b", "--data", str(tmp_path), "--model", str(model)]
    words += ["--train-examples", "12", "--dtype", "fp32", "--max-tokens", "64", "--batch-size", "4", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    config, settings = read_recording(tmp_path / "run").config, recipe("mezo-opt-13b").settings
    changed = {
        "steps": 2,
        "train_examples": 12,
        "dtype": "fp32",
        "max_tokens": 64,
        "batch_size": 4,
        "model": str(model),
    }
    for name, value in {**settings, **changed}.items():
        assert getattr(config, name) == value, name
    assert "mezo-opt-13b: predicted, not measured: " in capsys.readouterr().out


def test_the_list_and_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Each recipe has its line with hours, memory and card; a name that is none is one sentence."""
    assert main(["recipes"]) == 0
    told = capsys.readouterr().out
    assert all(one.said in told for one in recipes().values())
    assert main(["train", "--recipe", "gpt-5"]) == 2
    assert "there is no recipe 'gpt-5': choose one of grzo-llama-3-8b" in capsys.readouterr().err
    with pytest.raises(InputError, match="there is no recipe"):
        recipe("nothing")


def _run(shape: str, card: str, tokens: int, **changes: Any) -> Recipe:
    settings = {"method": "mezo", "subspace": "all", "batch_size": 16, "dtype": "fp16", "lr": 1e-6, "eps": 1e-3}
    return Recipe("one", "", "", "", card, shape, tokens, settings | changes)


def test_the_prediction_is_near_published_steps_of_mezo() -> None:
    """OPT-13B on MultiRC, A100 (arXiv 2305.17333): 2.70 s; OPT-6.7B on SST-2, RTX 4090 (2505.13430): 0.80 s.

    The lengths of their prompts are ours to guess: 400 and 40 tokens.
    """
    long, short = _run("opt-13b", "A100 80 GB", 400), _run("opt-6.7b", "RTX 4090 24 GB", 40)
    assert long.step_seconds == pytest.approx(2.70, rel=0.2)
    assert 0.3 < short.step_seconds / 0.80 < 1.2


def test_the_prediction_counts_forwards_and_noise() -> None:
    """Twice the batch takes twice the arithmetic; LoRA draws next to no noise; GRZO's forwards count double."""
    one, two, lora = (_run("opt-13b", "A100 80 GB", 100, **c) for c in ({}, {"batch_size": 32}, {"subspace": "lora"}))
    assert two.step_seconds - one.step_seconds == pytest.approx(lora.step_seconds)
    grzo = _run("opt-13b", "A100 80 GB", 100, method="grzo", subspace="lora")
    assert grzo.step_seconds == pytest.approx(2 * lora.step_seconds)
