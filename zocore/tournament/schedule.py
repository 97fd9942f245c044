"""Which cells come next: seed after seed, task after task, an entry's rates before the run they are for."""

from collections.abc import Iterator, Mapping
from functools import cache
from math import inf

from zocore.tournament.entries import Entry
from zocore.tournament.ledger import Cell, Done
from zocore.tournament.plan import Plan
from zocore.tournament.rates import asked, carried, chosen

TUNING_SEED = 0

Ledger = Mapping[Cell, Done]


class Schedule:
    """The cells of a plan, as far as what is done lets them be known."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.middle = cache(lambda entry, task: plan.middle(plan.entry(entry), plan.place(task)))

    def due(self, done: Ledger) -> Iterator[Cell]:
        """Yield the cells that can be run now and are not done, the most urgent first."""
        named: set[Cell] = set()
        for cell in self._in_order(done):
            if cell not in done and cell not in named:
                named.add(cell)
                yield cell

    def _in_order(self, done: Ledger) -> Iterator[Cell]:
        for seed in self.plan.seeds:
            for place in self.plan.places:
                for entry in self.plan.entries:
                    yield from self._of(entry, place.name, seed, done)

    def _of(self, entry: Entry, task: str, seed: int, done: Ledger) -> Iterator[Cell]:
        if entry.takes_rate:
            yield from self.searches(entry, task, done)
        tuned, lr = self.rate(entry, task, done)
        if tuned:
            yield self.final(entry, task, seed, lr)

    def final(self, entry: Entry, task: str, seed: int, lr: float | None) -> Cell:
        """Return the cell that is compared."""
        return Cell("final", entry.name, task, seed, lr, self.plan.cost)

    def searches(self, entry: Entry, task: str, done: Ledger) -> Iterator[Cell]:
        """Yield the cells that a task's rate still waits for; none where it is known or no rate works."""
        for other in self.plan.tuned_on(task):
            yield from self.tuning(entry, other, done)

    def tuning(self, entry: Entry, task: str, done: Ledger) -> list[Cell]:
        """Return the cells that the search for an entry's rate on a task still asks for."""
        losses = self.tried(entry, task, done)
        rates = asked(self.middle(entry.name, task), losses, self.plan.first_rates, self.plan.most_rates)
        return [Cell("tune", entry.name, task, TUNING_SEED, lr, self.plan.tuning_cost) for lr in rates]

    def tried(self, entry: Entry, task: str, done: Ledger) -> dict[float, float]:
        """Return the dev loss of each rate tried; infinite where the run failed."""
        trials = self._trials(entry, task, done)
        return {cell.lr: found.loss if found.finished else inf for cell, found in trials.items() if cell.lr is not None}

    def rate(self, entry: Entry, task: str, done: Ledger) -> tuple[bool, float | None]:
        """Return whether the rate for a task is known, and the rate: its own, or carried from where it was found."""
        if not entry.takes_rate:
            return True, None
        sources = self.plan.tuned_on(task)
        if any(self.searches(entry, task, done)):
            return False, None
        rates = [lr for other in sources if (lr := chosen(self.tried(entry, other, done))) is not None]
        return bool(rates), carried(rates) if rates else None

    def tuning_cost(self, entry: Entry, task: str, done: Ledger) -> float:
        """Return the forward cost that went into the rate of an entry on a task."""
        sources = self.plan.tuned_on(task)
        return sum(trial.forward_cost for other in sources for trial in self._trials(entry, other, done).values())

    def last_reason(self, entry: Entry, task: str, done: Ledger) -> str:
        """Return why the last rate that was tried failed."""
        sources = self.plan.tuned_on(task)
        trials = [trials for other in sources for trials in self._trials(entry, other, done).values()]
        return next(one.reason for one in reversed(trials) if not one.finished)

    def left(self, done: Ledger) -> dict[str, float]:
        """Return the forward cost still to be spent with each model, at the least: searches may ask for more."""
        left = dict.fromkeys((place.model for place in self.plan.places), 0.0)
        for cell in self.due(done):
            left[self.plan.place(cell.task).model] += cell.cost
        for place in self.plan.places:
            waiting = [e for e in self.plan.entries if not self.rate(e, place.name, done)[0]]
            hoped = [e for e in waiting if any(self.searches(e, place.name, done))]
            left[place.model] += len(hoped) * len(self.plan.seeds) * self.plan.cost
        return left

    def _trials(self, entry: Entry, task: str, done: Ledger) -> dict[Cell, Done]:
        """The runs that tried a rate of an entry on a task, in the order in which they were done."""
        cost = self.plan.tuning_cost
        return {
            cell: found
            for cell, found in done.items()
            if (cell.kind, cell.entry, cell.task, cell.cost) == ("tune", entry.name, task, cost)
        }
