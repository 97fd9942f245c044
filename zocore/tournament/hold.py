"""A tournament is held: cells run as they become due, each is written down when it ends, and a line tells it."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from math import inf
from pathlib import Path

from zocore.tournament.ledger import CELLS, Cell, Done, append, read_cells
from zocore.tournament.plan import Plan, take_up
from zocore.tournament.schedule import Schedule
from zocore.tournament.workers import result, workers

PATIENCE = 0.5  # seconds between two questions whether to stop


def hold(plan: Plan, folder: Path, jobs: int = 1, stop: Callable[[], bool] = lambda: False) -> Iterator[str]:
    """Run what is left of a tournament and yield a line for each cell.

    Raises InputError when the folder holds another tournament, or when a process died.
    """
    take_up(plan, folder)
    done = read_cells(folder) if (folder / CELLS).exists() else {}
    schedule, running = Schedule(plan), dict[Future[Done | None], Cell]()
    before, count = time.monotonic(), len(done)
    yield f"{count} cells done; {_ahead(schedule, done, jobs)}"
    with workers(plan, jobs, stop) as (start, ask_to_stop):
        while True:
            free = (cell for cell in schedule.due(done) if cell not in running.values())
            while len(running) < jobs and not stop() and (cell := next(free, None)):
                running[start(cell)] = cell
            if not running:
                break
            if stop():
                ask_to_stop()
            for future in wait(running, PATIENCE, FIRST_COMPLETED).done:
                cell, outcome = running.pop(future), result(future)
                if outcome is not None:
                    append(folder, outcome)
                    done[cell] = outcome
                    yield f"{told(outcome)}; {_ahead(schedule, done, jobs)}"
    minutes = (time.monotonic() - before) / 60
    yield f"{len(done) - count} cells in {minutes:.1f} minutes; {_ahead(schedule, done, jobs)}"


def told(done: Done) -> str:
    """Return a finished cell as one line."""
    if not done.finished:
        return f"{done.cell}: failed, {done.reason}"
    split = "dev" if done.cell.kind == "tune" else "test"
    return (
        f"{done.cell}: {split} loss {done.loss_before:.3f} -> {done.loss:.3f}, accuracy {done.accuracy_before:.3f} -> "
        f"{done.accuracy:.3f} ({done.forward_cost:.0f} forwards, {done.wall_seconds:.0f} s)"
    )


def _ahead(schedule: Schedule, done: Mapping[Cell, Done], jobs: int) -> str:
    """What is left, and for how long at the pace so far."""
    left = schedule.left(done)
    if not sum(left.values()):
        return "nothing is left"
    seconds = sum(cost * _pace(schedule.plan, model, done) for model, cost in left.items() if cost) / jobs
    ahead = f"at least {sum(left.values()):.0f} forwards left"
    return ahead if seconds == inf else f"{ahead}, ETA {int(seconds // 3600)}:{int(seconds % 3600 // 60):02d} h"


def _pace(plan: Plan, model: str, done: Mapping[Cell, Done]) -> float:
    """Seconds for each plain forward's worth of budget with a model; infinite where nothing is known."""
    names = {place.name for place in plan.places if place.model == model}
    finished = [run for cell, run in done.items() if cell.task in names and run.finished]
    spent = sum(run.forward_cost for run in finished)
    return sum(run.wall_seconds for run in finished) / spent if spent else inf
