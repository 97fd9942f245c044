"""The order of cells: the most telling first, a rate before what needs it, and nothing twice."""

from math import nan

from tests.support.made_up import done, held, plan
from zocore.tournament.ledger import Cell
from zocore.tournament.schedule import Schedule
from zocore.tournament.standings import standings


def flat(cell: Cell) -> float:
    """Every middle rate is best."""
    return 0.5 if cell.lr == 1e-3 else 1.0


def test_seeds_come_last_and_rates_before_their_runs() -> None:
    """Seed 0 of all tasks and entries before seed 1; each final run after the search that it needs."""
    cells = list(held(plan(), flat))
    finals = [cell for cell in cells if cell.kind == "final"]
    assert [cell.seed for cell in finals] == [0] * 6 + [1] * 6
    assert [cell.task for cell in finals[:6]] == ["a"] * 3 + ["b"] * 3
    for number, cell in enumerate(cells):
        if cell.kind == "final":
            tried = [c.lr for c in cells[:number] if c.kind == "tune" and c.entry == cell.entry]
            assert sorted(rate or 0.0 for rate in tried) == [0.000333, 1e-3, 3e-3]
    assert len(set(cells)) == len(cells) == 9 + 12


def test_rates_are_found_on_the_tuned_tasks_alone_and_carried() -> None:
    """Two tuned tasks with rates a factor 9 apart give the others the one between."""
    two = plan("feedback", "a,b,c", tuned=("a", "b"), seeds=(0,))
    best = {"a": 1e-3, "b": 9e-3}
    ledger = held(two, lambda cell: 0.5 if cell.lr == best.get(cell.task) else 1 - (cell.lr or 0))
    assert {cell.task for cell in ledger if cell.kind == "tune"} == {"a", "b"}
    assert {cell.task: cell.lr for cell in ledger if cell.kind == "final"} == {"a": 1e-3, "b": 9e-3, "c": 3e-3}


def test_a_task_whose_model_is_tuned_nowhere_is_tuned_itself() -> None:
    """No rate is carried from another model."""
    alone = plan("feedback", "a,b", tuned=("elsewhere",), seeds=(0,))
    assert {cell.task for cell in held(alone, flat) if cell.kind == "tune"} == {"a", "b"}


def test_references_without_a_rate_run_once_for_each_seed() -> None:
    """The probe and the untrained model have no search."""
    cells = list(held(plan("linear-probe,zero-shot"), flat))
    assert all(cell.kind == "final" and cell.lr is None for cell in cells)
    assert len(cells) == 2 * 2 * 2


def test_an_entry_that_always_fails_ends_with_its_reason() -> None:
    """The search stops, no final run is asked for, and the standing tells why; others are not kept from theirs."""
    made = plan("feedback,mezo@writers:2", "a", seeds=(0,), most_rates=5)
    ledger = held(made, lambda cell: nan if cell.entry.startswith("mezo") else flat(cell))
    assert sum(cell.entry.startswith("mezo") for cell in ledger) == 5
    ours, theirs = standings(made, ledger)
    assert (len(ours.runs), ours.failures, ours.missing) == (1, (), 0)
    assert (theirs.runs, theirs.missing) == ((), 0)
    assert theirs.failures == ("no rate worked: the loss was not a finite number",)
    assert not sum(Schedule(made).left(ledger).values())


def test_cells_that_can_run_side_by_side_are_all_due() -> None:
    """With nothing done, the first rates of every entry can be tried; what depends on them is not due."""
    due = list(Schedule(plan()).due({}))
    assert len(due) == 9
    assert all(cell.kind == "tune" for cell in due)


def test_what_is_left_falls_to_nothing() -> None:
    """It counts whole searches' beginnings and all final runs, and is exact where the middle rate is best."""
    made = plan()
    schedule, ledger = Schedule(made), held(made, flat)
    whole = 9 * 20 + 12 * 60
    assert schedule.left({}) == {"models/tiny": whole}
    first = next(iter(ledger))
    assert schedule.left({first: ledger[first]}) == {"models/tiny": whole - 20}
    assert schedule.left(ledger) == {"models/tiny": 0}


def test_final_runs_at_another_rate_do_not_count() -> None:
    """A run at a rate that the search has left behind is no part of the standings."""
    made = plan("feedback", "a", seeds=(0,))
    ledger = held(made, flat)
    old = Schedule(made).final(made.entries[0], "a", 0, 9e-3)
    assert [run.cell.lr for run in standings(made, ledger | {old: done(old, 0.1)})[0].runs] == [1e-3]
