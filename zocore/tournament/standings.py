"""What an entry reached on a task: its finished runs over the seeds, and the reasons of those that failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from zocore.tournament.entries import ZERO_SHOT, Entry
from zocore.tournament.ledger import Done
from zocore.tournament.plan import Plan
from zocore.tournament.schedule import Ledger, Schedule

STANDARD_ERRORS = 3.0  # by which an accuracy must pass that of guessing for a task to count as learned


@dataclass(frozen=True)
class Standing:
    """The final runs of an entry on a task, at the rate that was found for it."""

    entry: Entry
    task: str
    lr: float | None  # None while it is not found, and for references
    tuning_cost: float  # forward cost of finding the rate
    runs: tuple[Done, ...]  # finished, in the order of the seeds
    failures: tuple[str, ...]
    missing: int  # seeds that were not run yet

    @property
    def losses(self) -> dict[int, float]:
        """Test loss by seed."""
        return {run.cell.seed: run.loss for run in self.runs}

    def mean(self, name: str) -> float:
        """Return the mean of a figure over the seeds."""
        return fmean(getattr(run, name) for run in self.runs)

    def range(self, name: str) -> tuple[float, float]:
        """Return the least and the largest of a figure over the seeds."""
        values = [getattr(run, name) for run in self.runs]
        return min(values), max(values)


def standings(plan: Plan, done: Ledger) -> list[Standing]:
    """Return the standing of every entry on every task, in the order of the plan."""
    schedule = Schedule(plan)
    return [_standing(schedule, entry, place.name, done) for place in plan.places for entry in plan.entries]


def _standing(schedule: Schedule, entry: Entry, task: str, done: Ledger) -> Standing:
    tuned, lr = schedule.rate(entry, task, done)
    cells = [schedule.final(entry, task, seed, lr) for seed in schedule.plan.seeds] if tuned else []
    runs = [done[cell] for cell in cells if cell in done]
    failures = [f"seed {run.cell.seed}: {run.reason}" for run in runs if not run.finished]
    hopeless = entry.takes_rate and not tuned and not any(schedule.searches(entry, task, done))
    if hopeless:
        failures = [f"no rate worked: {schedule.last_reason(entry, task, done)}"]
    tuning = schedule.tuning_cost(entry, task, done) if entry.takes_rate else 0.0
    missing = 0 if hopeless else len(schedule.plan.seeds) - len(runs)
    return Standing(entry, task, lr, tuning, tuple(run for run in runs if run.finished), tuple(failures), missing)


def of_task(table: Sequence[Standing], task: str) -> list[Standing]:
    """Return the standings on one task."""
    return [standing for standing in table if standing.task == task]


def learned(table: Sequence[Standing], task: str) -> bool:
    """Return whether anything learned a task: beat guessing the commonest label by `STANDARD_ERRORS`."""
    for standing in of_task(table, task):
        if standing.runs and standing.entry.method != ZERO_SHOT:
            run = standing.runs[0]
            error = (run.commonest * (1 - run.commonest) / run.examples) ** 0.5
            if standing.mean("accuracy") > run.commonest + STANDARD_ERRORS * error:
                return True
    return False
