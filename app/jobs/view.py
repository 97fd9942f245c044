"""What the page knows of a run: a pure fold over its events, the same for live runs, files and tests."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from zocore.objectives import OBJECTIVES, Row
from zocore.runs.events import (
    CompletionsShown,
    EstimatorMeasured,
    EvalDone,
    Event,
    RunEnded,
    RunStarted,
    SampleShown,
    StepDone,
    Warned,
)

MOST_POINTS = 800  # drawn on one line
SMOOTHING = 0.9  # weight of the past in the smoothed loss
AXES = ("forwards", "steps", "seconds", "cost")


class Place(NamedTuple):
    """Where a run stood: the ways to count how far it was."""

    steps: int
    forwards: int
    seconds: float
    cost: float = 0.0  # in plain forwards' worth of arithmetic

    def on(self, axis: str) -> float:
        """Return the coordinate on one of `AXES`."""
        return float(getattr(self, axis))


class Point(NamedTuple):
    """One step as the charts need it."""

    place: Place
    loss: float
    gradient: float  # mean directional derivative over the step's directions
    memory: int
    unexplained: float | None = None  # share of the responses that learned feedback did not foresee
    moved: float = 1.0  # share of the examples whose value differed between the two points of a probe


class Mark(NamedTuple):
    """A measurement between steps, and where it was made."""

    place: Place
    event: EvalDone | EstimatorMeasured


@dataclass(frozen=True)
class Rows:
    """A growing sequence that shares storage with its earlier forms, so that adding is cheap and old ones stay."""

    store: list[Point]
    count: int = 0

    def add(self, point: Point) -> "Rows":
        """Return the rows with one more; a fork of an older form copies, the newest does not."""
        store = self.store if len(self.store) == self.count else self.store[: self.count]
        store.append(point)
        return Rows(store, self.count + 1)

    def since(self, first: int) -> list[Point]:
        """Return the rows from number `first` on."""
        return self.store[first : self.count]

    @property
    def last(self) -> Point | None:
        """The newest row."""
        return self.store[self.count - 1] if self.count else None


@dataclass(frozen=True)
class View:
    """A run as far as its events go."""

    header: RunStarted | None = None
    rows: Rows | None = None
    evaluations: tuple[Mark, ...] = ()
    estimator: tuple[Mark, ...] = ()
    samples: tuple[SampleShown, ...] = ()
    completions: tuple[CompletionsShown, ...] = ()
    warnings: tuple[Warned, ...] = ()
    end: RunEnded | None = None
    speed: float = 0.0  # steps per second
    peak: int = 0  # bytes

    @classmethod
    def of(cls, events: Iterable[Event]) -> "View":
        """Return the view after all these events."""
        view = cls()
        for event in events:
            view = view.apply(event)
        return view

    def apply(self, event: Event) -> "View":
        """Return the view after one more event; this one stays as it is."""
        match event:
            case RunStarted():
                return replace(self, header=self.header or event, end=None)
            case StepDone():
                return self._stepped(event)
            case EvalDone():
                return replace(self, evaluations=(*self.evaluations, Mark(self.place, event)))
            case EstimatorMeasured():
                return replace(self, estimator=(*self.estimator, Mark(self.place, event)))
            case SampleShown():
                return replace(self, samples=(*self.samples, event))
            case CompletionsShown():
                return replace(self, completions=(*self.completions, event))
            case Warned():
                return replace(self, warnings=(*self.warnings, event))
            case RunEnded():
                return replace(self, end=event)
        return self

    def _stepped(self, event: StepDone) -> "View":
        place = Place(event.step, event.forward_passes, event.seconds, event.forward_cost)
        slopes = event.projected_grads
        slope = sum(slopes) / len(slopes) if slopes else math.nan
        point = Point(place, event.loss, slope, event.memory_bytes, event.unexplained, event.moved)
        rows = (self.rows or Rows([])).add(point)
        peak = max(self.peak, event.memory_bytes)
        return replace(self, rows=rows, end=None, speed=event.steps_per_second, peak=peak)

    @property
    def points(self) -> list[Point]:
        """Every step so far."""
        return self.rows.since(0) if self.rows else []

    @property
    def place(self) -> Place:
        """Where the run stands."""
        last = self.rows.last if self.rows else None
        return last.place if last else Place(0, 0, 0.0)

    @property
    def steps(self) -> int:
        """Steps done."""
        return self.place.steps

    @property
    def planned(self) -> int:
        """Steps the run is to do; 0 before it started."""
        return int(self.header.config["steps"]) if self.header else 0

    @property
    def method(self) -> str:
        """Name of the method; MeZO's before the run started."""
        return str(self.header.config["method"]) if self.header else "mezo"

    @property
    def objective(self) -> Row:
        """What the run lowers; the loss before it started."""
        return OBJECTIVES[str(self.header.config.get("objective", "loss")) if self.header else "loss"]

    @property
    def score(self) -> str:
        """What held-out examples are judged by: the last score that evaluations name of the objective, or accuracy."""
        own = self.objective.flat or self.objective.text
        named = [m.event.scores for m in self.evaluations if own and isinstance(m.event, EvalDone) and m.event.scores]
        return list(named[0])[-1] if named else "accuracy"

    def scores(self, split: str) -> list[tuple[Place, float]]:
        """Return what `score` was on one split, in order."""
        return [
            (m.place, (m.event.scores or {}).get(self.score, m.event.accuracy))
            for m in self.evaluations
            if isinstance(m.event, EvalDone) and m.event.split == split
        ]


def smooth(values: Sequence[float], weight: float = SMOOTHING) -> list[float]:
    """Return the exponential moving average, debiased at the start; what is not finite gives NaN and is left out."""
    total, mass, smoothed = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            total, mass = weight * total + (1 - weight) * value, weight * mass + (1 - weight)
        smoothed.append(total / mass if math.isfinite(value) and mass else math.nan)
    return smoothed


def thinned(count: int, finite: Sequence[bool] | None = None, most: int = MOST_POINTS) -> list[int]:
    """Return the numbers of at most `most` of `count` points: evenly spaced, the last, and the non-finite first."""
    if count <= most:
        return list(range(count))
    marks = [i for i, good in enumerate(finite or ()) if not good][: most // 4]
    room = most - len(marks) - 1
    spaced = {i * count // room for i in range(room)}
    return sorted(spaced | set(marks) | {count - 1})
