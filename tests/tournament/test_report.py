"""Tables say what the cells show and no more; the kill test counts as it is defined."""

import json
from math import nan
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.made_up import held, plan
from zocore.tournament.kill_test import KillTest, kill_test
from zocore.tournament.ledger import Cell, append
from zocore.tournament.plan import Plan
from zocore.tournament.report import write_report
from zocore.tournament.standings import learned, standings

LOSSES = {"feedback@writers:2": 0.2, "fzoo@writers:2": 0.5, "mezo@writers:2": 0.8, "adamw@all": 0.1}


def loss(cell: Cell) -> float:
    """Feedback has 0.4 of FZOO's loss; a little more at other rates and for later seeds."""
    return LOSSES[cell.entry] * (1 + 0.01 * cell.seed) + (cell.lr != 1e-3)


def judged(made: Plan, most: int = 1000) -> KillTest:
    """The kill test after some cells."""
    return kill_test(made, standings(made, held(made, loss, most)), made.entries[0])


def test_the_kill_test_counts_wins_ratio_and_clear_wins() -> None:
    """Seven tasks won decide for the judged entry; the ratio is that of mean losses against the best rival."""
    made = plan(tasks="a,b,c,d,e,f,g", seeds=(0, 1, 2))
    test = judged(made)
    assert (test.wins, test.clear, test.default) == (7, 7, "Learned feedback")
    assert test.ratio == pytest.approx(0.4)
    assert {duel.rival for duel in test.duels} == {"fzoo@writers:2"}


def test_nothing_is_decided_while_runs_are_missing() -> None:
    """Few tasks, missing rivals or missing seeds decide nothing; with all runs done, too few wins fall back to MeZO."""
    assert judged(plan(tasks="a,b")).default == "not decided"
    seven = plan(tasks="a,b,c,d,e,f,g", seeds=(0,))
    halfway = judged(seven, most=12)
    assert (len(halfway.duels), halfway.default) == (1, "not decided")
    assert halfway.unknown == ("b", "c", "d", "e", "f", "g")
    losing = plan("mezo@writers:2,feedback,fzoo@writers:2", "a,b,c,d,e,f,g", seeds=(0,))
    found = judged(losing)
    assert (found.wins, found.default) == (0, "MeZO")


def test_a_rival_that_has_not_run_is_named() -> None:
    """A duel with one of two rivals is shown, but does not count as sure."""
    made = plan(tasks="a", seeds=(0,))
    (duel,) = judged(made, most=11).duels
    assert (duel.rival, duel.missing, duel.won) == ("fzoo@writers:2", ("mezo@writers:2",), True)


def test_rivals_are_the_published_methods_on_the_same_subspace() -> None:
    """Backprop and other subspaces are no rivals, however good."""
    made = plan("feedback,fzoo@writers:2,adamw,mezo@writers:1", "a", seeds=(0,))
    ledger = held(made, lambda cell: 0.01 if "fzoo" not in cell.entry and "feed" not in cell.entry else loss(cell))
    (duel,) = kill_test(made, standings(made, ledger), made.entries[0]).duels
    assert duel.rival == "fzoo@writers:2"


def test_a_task_that_nothing_learned_does_not_count() -> None:
    """Accuracy within three standard errors of guessing: no win, whatever the losses."""
    made = plan(tasks="a", seeds=(0,))
    ledger = {cell: found.__class__(**(vars(found) | {"accuracy": 0.64})) for cell, found in held(made, loss).items()}
    table = standings(made, ledger)
    assert not learned(table, "a")
    test = kill_test(made, table, made.entries[0])
    assert (test.wins, test.counted, test.ratio) == (0, [], None)
    better = {cell: found.__class__(**(vars(found) | {"accuracy": 0.66})) for cell, found in ledger.items()}
    assert learned(standings(made, better), "a")


def test_the_report_is_whole_with_any_number_of_cells(tmp_path: Path) -> None:
    """After 0 final runs, some, with failures, and all: tables, strict JSON and an SVG that parses."""
    made = plan("feedback,fzoo@writers:2,mezo@writers:2,adamw,linear-probe,zero-shot", "a,b", seeds=(0, 1))

    def outcome(cell: Cell) -> float:
        return nan if cell.entry.startswith("mezo") else loss(cell) if cell.lr else 0.3

    for most in (1, 8, 20, 1000):
        folder = tmp_path / str(most)
        folder.mkdir()
        for found in held(made, outcome, most).values():
            append(folder, found)
        text = write_report(made, folder, "python -m zocore tournament")
        stored = json.loads((folder / "tournament.json").read_text(), parse_constant=pytest.fail)
        count = sum(len(row["runs"]) for row in stored["standings"])
        assert f"**Finished: {count} of 24 final runs**" in text
        panels = ElementTree.parse(folder / "tournament.svg").findall("{*}g")
        assert len(panels) == len({row["task"] for row in stored["standings"] for run in row["runs"] if run["curve"]})
    assert "no rate worked: the loss was not a finite number" in text
    assert "| feedback@writers:2 | 0.201 (0.200–0.202) | 0.201 (0.200–0.202) |" in text
