"""A cell is run: a session with as many steps as its budget buys, judged on dev or, once, on the test split."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from math import isfinite
from typing import Any

from zocore.config import RunConfig
from zocore.data.tasks import Task
from zocore.errors import InputError
from zocore.methods import METHODS
from zocore.models.objectives.evaluation import evaluate
from zocore.runs.events import EvalDone, Event, RunEnded, StepDone
from zocore.runs.loop import run_session
from zocore.runs.opening import open_session
from zocore.runs.session import Session
from zocore.runs.task import read
from zocore.tournament.ledger import Cell, Done, Point
from zocore.tournament.parts import commonest, part
from zocore.tournament.plan import Plan
from zocore.tournament.references import reference

LOOKS = 5  # points of a final run's curve after its start
CURVE_EXAMPLES = 200  # of dev, at each point

Stop = Callable[[], bool]


def do(plan: Plan, cell: Cell, stop: Stop = lambda: False) -> Done | None:
    """Run a cell and return what it came to, None where it was stopped; what fails is told with its reason."""
    started = time.perf_counter()
    today = date.today().isoformat()
    try:
        entry, place = plan.entry(cell.entry), plan.place(cell.task)
        config = plan.settings(entry, place, cell.seed, cell.lr)
        task = _task(config, cell)
        session = open_session(config, task=task)
        outcome = _trained(session, cell, stop) if entry.takes_rate else reference(session, cell, entry.method)
    except Exception as error:  # of the settings, the data, the model or the arithmetic: the table tells which
        outcome = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    if outcome is None:
        return None
    return Done(cell, **{"reason": "", **outcome}, date=today, wall_seconds=round(time.perf_counter() - started, 2))


def _task(config: RunConfig, cell: Cell) -> Task:
    """The task with the parts that are looked at; a run that finds a rate never sees the test split."""
    task = read(config)
    held_out = task.dev if cell.kind == "tune" else task.test
    dev = part(task.dev, min(CURVE_EXAMPLES, config.eval_examples))
    return replace(task, test=part(held_out, config.eval_examples), dev=dev)


def _trained(session: Session, cell: Cell, stop: Stop) -> dict[str, Any] | None:
    steps = session.steps_within(cell.cost)
    if steps < 1:
        title, price = METHODS[session.config.method].title, session.cost_of(1)
        raise InputError(f"a forward cost of {cell.cost:g} does not buy one step of {title}, which takes {price:g}")
    every = max(1, steps // LOOKS) if cell.kind == "final" else 0
    session = replace(session, config=replace(session.config, steps=steps, eval_every=every))
    course = _Course(session)
    course.follow(run_session(session, stop), with_ends=cell.kind == "final")
    return course.told()


@dataclass
class _Course:
    """What is kept of a run's events."""

    session: Session

    def __post_init__(self) -> None:
        self.curve: list[Point] = []
        self.cost = 0.0
        self.looks: list[EvalDone] = []
        self.end: RunEnded | None = None

    def follow(self, events: Iterator[Event], with_ends: bool) -> None:
        """Go through a run's events; `with_ends` adds looks at dev before and after it."""
        if with_ends:
            self._look()
        try:
            for event in events:
                self._take(event)
        except Exception:
            if self.end is None:  # not a failure of a step, which the run's end has told
                raise
        if with_ends:
            self._look()

    def told(self) -> dict[str, Any] | None:
        """Return the figures of the run, None where it was stopped."""
        if self.end is None or self.end.status == "stopped":
            return None
        before, after = self.looks[0], self.looks[-1]
        status, reason = self.end.status, self.end.reason
        if status == "finished" and not isfinite(after.loss):
            status, reason = "failed", "the loss at the end is not a finite number"
        return {
            "status": status,
            "reason": reason if status == "failed" else "",
            "loss": after.loss,
            "accuracy": after.accuracy,
            "loss_before": before.loss,
            "accuracy_before": before.accuracy,
            "examples": after.examples,
            "commonest": commonest(self.session.task.test),
            "steps": self.end.steps,
            "forward_passes": self.end.forward_passes,
            "forward_cost": round(self.end.forward_cost, 2),
            "seconds": round(self.end.seconds, 2),
            "curve": tuple(self.curve),
            "fingerprint": self.session.loaded.fingerprint,
        }

    def _take(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.cost = event.forward_cost
        elif isinstance(event, EvalDone) and event.split == "dev":
            self._point(event.loss, event.accuracy)
        elif isinstance(event, EvalDone):
            self.looks.append(event)
        elif isinstance(event, RunEnded):
            self.end = event

    def _look(self) -> None:
        judged = evaluate(self.session.objective, self.session.task.dev, 4 * self.session.config.batch_size)
        self._point(judged.loss, judged.accuracy)

    def _point(self, loss: float, accuracy: float) -> None:
        self.curve.append((round(self.cost, 2), round(loss, 5), round(accuracy, 4)))
