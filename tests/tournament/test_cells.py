"""Real cells on tiny models: what they spend, what they see, and that a cut-off tournament goes on."""

import argparse
import json
from collections.abc import Callable
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import tiny
from tests.support.places import ROOT
from tests.support.short_runs import WORDS, home, model_folder
from zocore.cli import main
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.runs.opening import open_session
from zocore.tournament.cells import do
from zocore.tournament.features import features
from zocore.tournament.hold import hold
from zocore.tournament.ledger import CELLS, Cell, Kind, read_cells
from zocore.tournament.options import add_options, command, plan_of
from zocore.tournament.parts import part
from zocore.tournament.plan import Plan
from zocore.tournament.probe import fit

SPLITS = {"train": 60, "dev": 8, "test": 12}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one task of short sentences in three splits."""
    root = tmp_path_factory.mktemp("data")
    (root / "films").mkdir()
    for split, count in SPLITS.items():
        rows = [
            json.dumps(
                {"text": f"the film was {WORDS[i % 2][i // 2 % 3]} food {'a' * (i % 7)} {split}", "label": i % 2}
            )
            for i in range(count)
        ]
        (root / "films" / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return root


@cache
def encoder() -> str:
    """A tiny encoder, saved once."""
    return str(tiny.save(home() / "encoder", "bert", "encoder"))


def words(data: Path, out: Path, **changes: Any) -> list[str]:
    """The options of a tournament of seconds."""
    options: dict[str, Any] = {
        "methods": "feedback@writers:1,mezo@writers:1",
        "around": "feedback@writers:1:1e-2,mezo@writers:1:1e-3",
        "tasks": "films",
        "data_root": data,
        "model": encoder(),
        "seeds": "0",
        "forward_cost": 8,
        "tuning_cost": 4,
        "batch_size": 4,
        "out": out,
    }
    options |= changes
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def parsed(data: Path, out: Path, **changes: Any) -> argparse.Namespace:
    """The same, parsed."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(words(data, out, **changes))


def made(data: Path, out: Path, **changes: Any) -> Plan:
    """The plan of it."""
    return plan_of(parsed(data, out, **changes))


def test_a_tournament_runs_from_the_command_line_and_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cells, tables and plot are there; cut off, the same command does what is missing, to the same figures."""
    out = tmp_path / "out"
    assert main(["tournament", *words(data, out)]) == 0
    said = capsys.readouterr().out
    assert "ETA 0:00 h" in said
    assert "nothing is left" in said
    whole = read_cells(out)
    assert sum(cell.kind == "final" for cell in whole) == 2
    path, last = out / CELLS, list(whole)[-1]
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]) + "{torn")
    assert last not in read_cells(out)
    assert main(["tournament", *words(data, out)]) == 0
    assert capsys.readouterr().out.count("1 cells in") == 1
    again = read_cells(out)
    assert again.keys() == whole.keys()
    assert (again[last].loss, again[last].curve) == (whole[last].loss, whole[last].curve)
    for name in ("tournament.md", "tournament.json", "tournament.svg"):
        assert (out / name).stat().st_size > 500


def test_a_cell_spends_its_budget_and_sees_its_own_split(data: Path, tmp_path: Path) -> None:
    """The last step stays within the budget and one more would not; rates are judged on dev, runs on the test."""
    plan = made(data, tmp_path)
    asked: list[tuple[Kind, float, int]] = [("tune", 4.0, SPLITS["dev"]), ("final", 8.0, SPLITS["test"])]
    for kind, cost, seen in asked:
        found = do(plan, Cell(kind, "feedback@writers:1", "films", 0, 1e-3, cost))
        assert found
        assert found.finished
        assert found.examples == seen
        assert found.forward_cost <= cost + 1e-6 < found.forward_cost * (found.steps + 1) / found.steps
        assert found.commonest == 0.5
        assert bool(found.curve) == (kind == "final")
        if found.curve:
            assert found.curve[0][0] == 0
            assert found.curve[-1][0] == found.forward_cost


def test_rates_cannot_see_the_test_split(data: Path, tmp_path: Path) -> None:
    """With other test rows a run that tries a rate comes to the very same loss; a final one does not."""
    plan = made(data, tmp_path)
    cells = [
        Cell("tune", "mezo@writers:1", "films", 0, 1e-3, 4.0),
        Cell("final", "mezo@writers:1", "films", 0, 1e-3, 4),
    ]
    before = [do(plan, cell) for cell in cells]
    other = tmp_path / "other" / "films"
    other.mkdir(parents=True)
    for split in SPLITS:
        text = (data / "films" / f"{split}.jsonl").read_text()
        (other / f"{split}.jsonl").write_text(text.replace("film", "food") if split == "test" else text)
    after = [do(made(other.parent, tmp_path), cell) for cell in cells]
    same = [one and two and one.loss == two.loss for one, two in zip(before, after, strict=True)]
    assert same == [True, False]


def test_what_fails_is_written_down_with_its_reason(data: Path, tmp_path: Path) -> None:
    """A budget below one step and a run without finite losses are cells like others, and no exception."""
    plan = made(data, tmp_path)
    poor = do(plan, Cell("tune", "mezo@writers:1", "films", 0, 1e-3, 0.5))
    assert poor
    assert "does not buy one step of MeZO" in poor.reason
    wild = do(plan, Cell("tune", "mezo@writers:1", "films", 0, 1e38, 8.0))
    assert wild
    assert not wild.finished
    assert "finite" in wild.reason


def after_a_moment() -> Callable[[], bool]:
    """A stop that comes while the first cell runs."""
    asked = iter(range(1000))
    return lambda: next(asked) > 3


def test_a_stopped_tournament_writes_no_half_cell(data: Path, tmp_path: Path) -> None:
    """A stop in the middle of a run leaves it for the next sitting."""
    lines = list(hold(made(data, tmp_path, tuning_cost=400), tmp_path / "out", stop=after_a_moment()))
    assert not (tmp_path / "out" / CELLS).exists()
    assert lines[-1].startswith("0 cells")


def test_probe_and_zero_shot(data: Path, tmp_path: Path) -> None:
    """The untrained model costs nothing; the probe reads each training row once and beats it where words tell."""
    plan = made(data, tmp_path, methods="linear-probe,zero-shot", forward_cost=10)
    probe, start = (do(plan, Cell("final", name, "films", 0, None, 10.0)) for name in ("linear-probe", "zero-shot"))
    assert probe
    assert start
    assert (start.forward_cost, start.loss) == (0, start.loss_before)
    assert probe.forward_cost == 10
    assert probe.loss_before == start.loss
    assert probe.loss < start.loss


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_features_are_what_the_head_is_given(family: str, data: Path) -> None:
    """The model's own head on the features gives the objective's log-probabilities."""
    config = RunConfig(
        model=model_folder(family), data=str(data / "films"), template="{text} It was", label_words="terrible,great"
    )
    session = open_session(config)
    examples = session.task.dev
    found = features(session.objective, examples, 3)
    model: Any = session.loaded.model
    head = model.cls if family == "bert" else model.lm_head
    objective: Any = session.objective
    columns = objective.outputs
    with torch.no_grad():
        ours = head(found)[:, columns].log_softmax(dim=1)
        assert torch.allclose(ours, session.objective.log_probs(session.objective.batch(examples)), atol=1e-4)


def test_features_of_an_encoder_are_its_embedding(data: Path) -> None:
    """Pooled and of length 1, in the order of the examples."""
    session = open_session(RunConfig(model=encoder(), data=str(data / "films")))
    objective: Any = session.objective
    with torch.no_grad():
        expected = objective.embed(objective.batch(session.task.dev))
    assert torch.allclose(features(objective, session.task.dev, 3), expected, atol=1e-5)


def test_the_probe_finds_the_least_loss() -> None:
    """On blobs it separates what can be separated, and its gradient with the penalty is nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        labels = torch.arange(90) % 3
        rows = torch.nn.functional.one_hot(labels, 3).float() @ torch.randn(3, 5) * 3 + torch.randn(90, 5)
    probe = fit((rows, labels), (rows, labels), 3)
    loss, accuracy = probe.judge(rows, labels)
    assert accuracy > 0.95
    features_ = (rows - probe.mean) / probe.std
    error = probe.log_probs(rows).exp() - torch.nn.functional.one_hot(labels, 3)
    assert (error.T @ features_ / 90 + 1e-4 * probe.weight).abs().max() < 1e-3
    assert loss < 0.2


def test_parts_are_alike_for_all_seeds_and_not_the_first_rows(data: Path) -> None:
    """What is looked at does not depend on the run's seed, nor on how the file is sorted."""
    session = open_session(RunConfig(model=encoder(), data=str(data / "films")))
    rows = session.task.train
    assert part(rows, 20) == part(rows, 20)
    assert part(rows, 20) != rows[:20]
    assert len(part(rows, 20)) == 20
    assert sorted(map(str, part(rows, 1000))) == sorted(map(str, rows))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": "magic"}, "unknown method 'magic'"),
        ({"methods": "mezo+directions=2"}, "is no option of mezo"),
        ({"methods": "zero-shot@all"}, "write 'zero-shot' alone"),
        ({"tasks": "nowhere"}, "the task 'nowhere' is not bundled"),
        ({"seeds": "one"}, "--seeds must look like"),
        ({"around": "mezo"}, "unknown method"),
        ({"around": "mezo@all:fast"}, "--around must look like"),
        ({"forward_cost": inf}, "--forward-cost must be a number above 0"),
        ({"jobs": 0}, "--jobs must be at least 1"),
    ],
)
def test_bad_options_are_told_in_a_sentence(changes: dict[str, Any], said: str, data: Path, tmp_path: Path) -> None:
    """Before anything runs."""
    with pytest.raises(InputError, match=said):
        made(data, tmp_path / "out", **changes)


def test_the_command_it_tells_makes_the_same_plan(data: Path, tmp_path: Path) -> None:
    """Options that are read from the command of the report are those that were given."""
    options = parsed(data, tmp_path, methods="feedback@writers:1+alpha=1,adamw", around="adamw@all:2e-4", jobs=2)
    parser = argparse.ArgumentParser()
    add_options(parser)
    told = command(options).split()
    assert told[:4] == ["python", "-m", "zocore", "tournament"]
    assert plan_of(parser.parse_args(told[4:])) == plan_of(options)


def test_options_of_an_entry_reach_its_runs(data: Path, tmp_path: Path) -> None:
    """Numbers and words arrive as the settings that they name."""
    plan = made(data, tmp_path, methods="feedback+alpha=1+directions=2")
    config = plan.settings(plan.entries[0], plan.places[0], 3, 0.5)
    assert (config.alpha, config.directions, config.subspace, config.seed, config.lr) == (1, 2, "writers:2", 3, 0.5)


@pytest.mark.slow
def test_processes_come_to_the_same_figures(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes side by side write the cells that one writes, with the same losses."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for jobs in (1, 2):
        lines = list(hold(made(data, tmp_path), tmp_path / str(jobs), jobs))
        assert "nothing is left" in lines[-1]
    one, two = (read_cells(tmp_path / str(jobs)) for jobs in (1, 2))
    assert {cell: found.loss for cell, found in one.items()} == {cell: found.loss for cell, found in two.items()}
