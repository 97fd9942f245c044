"""A tournament whose figures are made up, to test schedules, standings and tables without a model."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from zocore.tournament.entries import entry
from zocore.tournament.ledger import Cell, Done
from zocore.tournament.plan import Place, Plan
from zocore.tournament.schedule import Schedule

Outcome = Callable[[Cell], float]  # the loss of a cell; NaN for one that fails


def plan(entries: str = "feedback,fzoo@writers:2,mezo@writers:2", tasks: str = "a,b", **changes: Any) -> Plan:
    """A plan of folders that do not exist, with rates that begin at 1e-3 everywhere."""
    found = tuple(entry(name) for name in entries.split(","))
    places = tuple(Place(name, f"data/{name}", "models/tiny") for name in tasks.split(","))
    around = {one.name: 1e-3 for one in found if one.takes_rate}
    values: dict[str, Any] = {"seeds": (0, 1), "cost": 60.0, "tuning_cost": 20.0, "tuned": ("a",), "around": around}
    return Plan(found, places, **(values | changes))


def done(cell: Cell, loss: float, **changes: Any) -> Done:
    """A finished cell of which the loss is known, or a failed one where that is NaN."""
    if loss != loss:
        return Done(cell, "failed", "the loss was not a finite number", "2026-11-21")
    known = Done(
        cell, "finished", "", "2026-11-21", loss, 0.9, 2.0, 0.5, 100, 0.5, 10, 20, cell.cost, 6.0, 12.0,
        ((0.0, 2.0, 0.5), (cell.cost, loss, 0.9)) if cell.kind == "final" and cell.lr else (),
    )  # fmt: skip
    return replace(known, **changes)


def held(plan: Plan, outcome: Outcome, most: int = 1000) -> dict[Cell, Done]:
    """What a tournament comes to after at most `most` cells."""
    schedule, ledger = Schedule(plan), dict[Cell, Done]()
    while len(ledger) < most and (cell := next(schedule.due(ledger), None)):
        ledger[cell] = done(cell, outcome(cell))
    return ledger
