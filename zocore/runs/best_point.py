"""The best look at the dev split: where a run may end early, and which step of a recording to take."""

from collections.abc import Iterable
from dataclasses import dataclass

from zocore.runs.events import EvalDone, Event


@dataclass
class BestPoint:
    """The dev evaluation of lowest loss so far, and how many came after it."""

    best: EvalDone | None = None
    since: int = 0

    @classmethod
    def of(cls, events: Iterable[Event]) -> "BestPoint":
        """The best point of the events so far."""
        point = cls()
        for event in events:
            point.add(event)
        return point

    def add(self, event: Event) -> None:
        """Take in one event; of equal losses the first counts."""
        if isinstance(event, EvalDone) and event.split == "dev":
            lower = self.best is None or event.loss < self.best.loss
            self.best, self.since = (event, 0) if lower else (self.best, self.since + 1)
