"""A race is fair: the same seeds and batches, the same budget in either unit, means with their spread."""

import json
import math
import shutil
from pathlib import Path
from statistics import fmean, stdev

import pytest

from tests.support.recordings import folder_with, lines_of
from tests.support.short_runs import settings
from zocore.compare import Lane, Unit, lanes, race, render, run_race, standings
from zocore.errors import InputError
from zocore.runs.events import EvalDone, StepDone
from zocore.runs.opening import open_session
from zocore.runs.recording import read_recording

METHODS = ("mezo", "grzo", "mezo-gv", "fzoo", "adamw")
# calls of the model per step, and the same in plain forwards' worth of arithmetic (GRZO's from its session)
PASSES = {"mezo": 2, "grzo": 2, "mezo-gv": 6, "fzoo": 9, "adamw": 1}


@pytest.mark.parametrize("unit", ["forward_passes", "forward_cost"])
def test_every_lane_gets_as_many_whole_steps_as_the_budget_buys(unit: Unit) -> None:
    """Each run spends at most the budget, and one more step would overspend it, in the unit that was chosen."""
    budget = 30.0
    entered = lanes(settings(), [*METHODS, "mezo"], [0, 1, 0], budget, unit)  # named twice, run once
    assert [(lane.method, lane.seed) for lane in entered] == [(m, seed) for m in METHODS for seed in (0, 1)]
    for lane in entered:
        session = open_session(lane.config)
        price = session.cost_per_step if unit == "forward_cost" else session.method.forward_passes()
        assert session.method.forward_passes() == PASSES[lane.method]
        assert lane.config.steps * price <= budget + 1e-9 < (lane.config.steps + 1) * price
        assert lane.config.seed == lane.seed
    of = {lane.method: lane.config.steps for lane in entered}
    assert of["mezo"] == 15
    if unit == "forward_passes":
        assert (of["grzo"], of["mezo-gv"], of["fzoo"], of["adamw"]) == (15, 5, 3, 30)
    else:  # a per-example forward costs more than a plain one, a backward pass two
        assert 7 <= of["grzo"] < 15
        assert of["adamw"] == 10


def test_what_a_lane_is_told_to_spend_is_what_its_run_spends() -> None:
    """The last step's counters of every lane are its price times its steps: the budgets are equal in truth."""
    for unit in ("forward_passes", "forward_cost"):
        for lane, event in race(lanes(settings(), ("mezo", "grzo", "adamw"), [0], 12.0, unit)):
            if isinstance(event, StepDone) and event.step == lane.config.steps:
                spent = getattr(event, unit)
                assert spent <= 12 + 1e-9
                assert spent + spent / event.step > 12


def test_all_methods_see_the_same_batches() -> None:
    """At every step the examples of a seed are the same for every method, and differ between seeds."""
    sessions = {
        (lane.method, lane.seed): open_session(lane.config) for lane in lanes(settings(), METHODS, [0, 1], 30.0)
    }
    for seed in (0, 1):
        for step in (1, 2, 7):
            batches = [sessions[method, seed].examples(step) for method in METHODS]
            assert all(batch == batches[0] for batch in batches)
    assert sessions["mezo", 0].examples(1) != sessions["mezo", 1].examples(1)


def test_learning_rates_are_each_methods_own() -> None:
    """A rate given for one method does not touch the others, which keep --lr or their default."""
    given = {lane.method: lane.config.lr for lane in lanes(settings(), ("mezo", "grzo"), [0], 8, lrs={"grzo": 0.5})}
    assert given == {"mezo": settings().lr, "grzo": 0.5}
    own = [open_session(lane.config).config.lr for lane in lanes(settings(lr=None), ("mezo", "adamw"), [0], 8)]
    assert own == [1e-6, 2e-5]


def test_the_table_is_the_mean_and_the_spread_of_its_runs(tmp_path: Path) -> None:
    """Accuracy and loss in the stored table are mean and standard deviation of the recorded runs over the seeds."""
    lines = list(run_race(lanes(settings(), ("mezo", "grzo"), [0, 1, 2], 8.0), tmp_path / "race"))
    stored = json.loads((tmp_path / "race" / "race.json").read_text())
    assert [row["method"] for row in stored] == ["mezo", "grzo"]
    for row in stored:
        runs = [read_recording(tmp_path / "race" / f"{row['method']}-seed{seed}") for seed in (0, 1, 2)]
        tests = [[e for e in run.events if isinstance(e, EvalDone) and e.split == "test"] for run in runs]
        losses, accuracies = [e[-1].loss for e in tests], [e[-1].accuracy for e in tests]
        assert row["loss"] == pytest.approx([fmean(losses), stdev(losses)])
        assert row["accuracy"] == pytest.approx([fmean(accuracies), stdev(accuracies)])
        assert row["accuracy_before"] == pytest.approx(fmean(e[0].accuracy for e in tests))
        assert row["forward_cost"] == pytest.approx(runs[0].steps[-1].forward_cost)
        assert row["failed"] == 0
        cell = f"{row['loss'][0]:.4f} ± {row['loss'][1]:.4f}"
        assert any(line.startswith(f"| {row['method']} ") and cell in line for line in "\n".join(lines).splitlines())
    assert (tmp_path / "race" / "table.md").read_text().strip() in "\n".join(lines)
    with pytest.raises(InputError, match="already holds a race"):
        next(run_race([], tmp_path / "race"))


def test_a_lane_that_fails_is_counted_and_the_race_goes_on(tmp_path: Path) -> None:
    """A run whose losses are no numbers is left out of the means and named in the table."""
    entered = lanes(settings(), ("mezo", "grzo"), [0], 16.0)
    broken = Lane("mezo", 1, settings(eps=1e38, steps=8, seed=1))
    lines = list(run_race([broken, *entered], tmp_path / "race"))
    assert lines[0].startswith("mezo, seed 1: failed")
    table = json.loads((tmp_path / "race" / "race.json").read_text())
    assert [(row["method"], row["failed"]) for row in table] == [("mezo", 1), ("grzo", 0)]
    assert all(math.isfinite(row["loss"][0]) for row in table)
    assert "| 1 of 2: 1 failed |" in "\n".join(lines)


def test_a_race_reports_the_seconds_beyond_forwards(tmp_path: Path) -> None:
    """Noise and updates are no forward: their seconds on this machine stand in a column of their own."""
    lines = list(run_race(lanes(settings(), ("mezo", "grzo"), [0, 1], 8.0), tmp_path / "race"))
    for row in json.loads((tmp_path / "race" / "race.json").read_text()):
        runs = [read_recording(tmp_path / "race" / f"{row['method']}-seed{seed}") for seed in (0, 1)]
        assert row["forward_seconds"] == pytest.approx(fmean(run.steps[-1].forward_seconds for run in runs))
        assert 0 < row["forward_seconds"] < row["seconds"]
        rest = f"| {row['seconds']:.1f} | {row['seconds'] - row['forward_seconds']:.1f} | 2 |"
        assert any(line.startswith(f"| {row['method']} ") and rest in line for line in lines[-3].splitlines())


def test_a_race_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    """Killed in a lane's header, in its middle or between lanes: the same command gives the same table."""
    entered = lanes(settings(), ("mezo", "adamw"), [0, 1], 12.0)
    list(run_race(entered, tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / "race.json").unlink()
    for name, keep in (("mezo-seed1", 5), ("adamw-seed0", 4), ("adamw-seed1", 0)):
        folder = tmp_path / "cut" / name
        folder_with(folder, [*lines_of(folder)[:keep], lines_of(folder)[keep][:100]])
    list(run_race(entered, tmp_path / "cut"))
    tables = [json.loads((tmp_path / name / "race.json").read_text()) for name in ("whole", "cut")]
    same = ("method", "steps", "forward_cost", "accuracy", "loss", "runs", "failed")
    assert [[row[name] for name in same] for row in tables[0]] == [[row[name] for name in same] for row in tables[1]]
    for lane in entered:
        ends = [read_recording(tmp_path / n / f"{lane.method}-seed{lane.seed}").end for n in ("whole", "cut")]
        assert ends[0] is not None and ends[1] is not None
        assert ends[0].weights_fingerprint == ends[1].weights_fingerprint
    (tmp_path / "cut" / "race.json").unlink()
    others = lanes(settings(lr=1e-2), ("mezo",), [0], 12.0)
    with pytest.raises(InputError, match="holds a run with --lr 0.001, not 0.01"):
        list(run_race(others, tmp_path / "cut"))


def test_a_stopped_race_tells_what_it_has(tmp_path: Path) -> None:
    """A stop ends the lane after its step, starts no other, and still writes the table of what finished."""
    told: list[str] = []
    stopping = run_race(lanes(settings(), ("mezo", "grzo"), [0, 1], 8.0), tmp_path / "race", lambda: len(told) >= 1)
    for line in stopping:
        told.append(line)
    assert told[0] == "mezo, seed 0: finished, all 4 steps done"
    assert told[1].startswith("mezo, seed 1") or told[1].startswith("stopped")
    assert not (tmp_path / "race" / "grzo-seed0").exists()
    assert [row["method"] for row in json.loads((tmp_path / "race" / "race.json").read_text())] == ["mezo"]


def test_a_race_that_cannot_be_run_is_refused() -> None:
    """Unknown methods, a budget below one step, and one without end are told in a sentence."""
    for methods, budget, said in (
        (["magic"], 8, "magic"),
        (["fzoo"], 8, "does not buy one step of FZOO"),
        (["mezo"], math.inf, "budget"),
    ):
        with pytest.raises(InputError, match=said):
            lanes(settings(), methods, [0], budget)


def test_a_table_without_a_finished_run_can_be_drawn() -> None:
    """A method of which every run failed has no figures, and the table says so."""
    entered = [Lane("mezo", 0, settings(eps=1e38, steps=8))]
    table = standings(list(race(entered)))
    assert (table[0].failed, table[0].steps) == (1, 0)
    assert math.isnan(table[0].accuracy[0])
    assert "1 failed" in render(table)
