"""The kill test: does one entry beat the best published zeroth-order method on its own subspace, task by task?"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from zocore.methods import METHODS
from zocore.tournament.entries import Entry
from zocore.tournament.paired import Paired, paired
from zocore.tournament.plan import Plan
from zocore.tournament.standings import Standing, learned, of_task

NEEDED = 7  # tasks to be won
FALLBACK = "mezo"  # the default where they are not


@dataclass(frozen=True)
class Duel:
    """The judged entry against its best rival on one task."""

    task: str
    loss: float
    rival: str
    rival_loss: float
    paired: Paired
    missing: tuple[str, ...]  # rivals that have no run here yet
    learned: bool  # whether anything learned this task

    @property
    def ratio(self) -> float:
        """The judged entry's remaining loss over the rival's: below 1 is better."""
        return self.loss / self.rival_loss

    @property
    def won(self) -> bool:
        """Whether its mean loss is the lower one."""
        return self.ratio < 1


@dataclass(frozen=True)
class KillTest:
    """All duels of the judged entry, and what follows."""

    judged: Entry
    duels: tuple[Duel, ...]
    unknown: tuple[str, ...]  # tasks without a run of the judged entry or of any rival
    complete: bool  # whether all runs are done, on as many tasks as are needed

    @property
    def counted(self) -> list[Duel]:
        """The duels on tasks that anything learned."""
        return [duel for duel in self.duels if duel.learned]

    @property
    def wins(self) -> int:
        """On how many of them it has the lower mean loss."""
        return sum(duel.won for duel in self.counted)

    @property
    def clear(self) -> int:
        """On how many of them it is better with an interval over the seeds that leaves out 0."""
        return sum(duel.paired.says == "better" for duel in self.counted)

    @property
    def ratio(self) -> float | None:
        """Median ratio of remaining losses over the counted tasks."""
        return median(duel.ratio for duel in self.counted) if self.counted else None

    @property
    def default(self) -> str:
        """The method that should be the default by what is known; "not decided" while runs are missing."""
        if sum(duel.won and not duel.missing for duel in self.counted) >= NEEDED:
            return METHODS[self.judged.method].title
        return METHODS[FALLBACK].title if self.complete else "not decided"


def kill_test(plan: Plan, table: Sequence[Standing], judged: Entry) -> KillTest:
    """Return the judged entry's duels with the published zeroth-order methods on the same subspace."""
    rivals = [
        entry
        for entry in plan.entries
        if entry.zeroth_order
        and METHODS[entry.method].paper
        and entry.subspace == judged.subspace
        and entry.method != judged.method
    ]
    duels, unknown = [], []
    for place in plan.places:
        fought = duel(table, place.name, judged, rivals)
        if fought is None:
            unknown.append(place.name)
        else:
            duels.append(fought)
    complete = len(plan.places) >= NEEDED and not any(standing.missing for standing in table)
    return KillTest(judged, tuple(duels), tuple(unknown), complete)


def duel(table: Sequence[Standing], task: str, judged: Entry, rivals: Sequence[Entry]) -> Duel | None:
    """Return the judged entry against the rival of least mean loss; None where one of the two has no run."""
    here = {standing.entry: standing for standing in of_task(table, task)}
    own, others = here[judged], [here[rival] for rival in rivals if here[rival].runs]
    if not own.runs or not others:
        return None
    best = min(others, key=lambda standing: standing.mean("loss"))
    missing = tuple(rival.name for rival in rivals if not here[rival].runs and not here[rival].failures)
    return Duel(
        task,
        own.mean("loss"),
        best.entry.name,
        best.mean("loss"),
        paired(own.losses, best.losses),
        missing,
        learned(table, task),
    )
