"""Running a job: a child does it, and what it says goes into the job."""

import threading
import time
from collections.abc import Callable
from typing import Any

from app.jobs.job import Job
from app.jobs.lanes import WEIGHTS
from app.jobs.process import Died, Leash, Spares, follow, in_words
from app.jobs.speeds import Timing
from app.jobs.view import View
from app.jobs.wire import Happened, Lost, Over, Work
from zocore.config import RunConfig
from zocore.diagnostics.broken_runs import FAULTS
from zocore.runs.recording import EVENTS

Learn = Callable[[RunConfig, float], None]  # takes the seconds per step of some settings


def work(job: Job, spares: Spares, leash: Leash, learn: Learn) -> None:
    """Have a job done to its end, whatever happens; the job says how it ended."""
    if job.kind in FAULTS and job.resumed:
        _start_over(job)
    job.turn("loading")
    child, limit = spares.take(), time.monotonic() + leash.seconds

    def stop() -> bool:
        if time.monotonic() > limit and not job.stop.is_set():
            job.stopped_by = f"the time limit of {in_words(leash.seconds)}"
            job.stop.set()
        return job.stop.is_set()

    configs = [lane.config.to_json() for lane in job.lanes]
    folders = [str(lane.folder) for lane in job.lanes]
    kept = any((lane.folder / WEIGHTS).is_file() for lane in job.lanes)
    child.order(Work(job.kind, configs, folders, job.resumed, leash.seconds, job.sentence, kept))
    timings = [Timing(lane.config.steps) for lane in job.lanes]
    try:
        for message in follow(child, leash, stop):
            if isinstance(message, Happened):
                take_in(job, message, timings[message.lane], learn)
            elif isinstance(message, Lost):
                job.lanes[message.lane].problem = message.problem
            elif isinstance(message, Over):
                job.turn(*outcome(job, message.problem))
                break
    except Died as death:
        job.turn(*_ended(job, str(death)))
    finally:
        child.end()


def _start_over(job: Job) -> None:
    """Drop what a run that is broken on purpose did before it was interrupted: it starts anew."""
    job.log = []
    for lane in job.lanes:
        lane.events, lane.view = [], View()
        (lane.folder / EVENTS).unlink(missing_ok=True)


def take_in(job: Job, message: Happened, timing: Timing, learn: Learn) -> None:
    """Add an event to its job, and what it says of the speed to what is known."""
    job.add(message.lane, message.event)
    lane = job.lanes[message.lane]
    if seconds := timing.add(message.event):
        learn(lane.config, seconds)
    if job.phase == "loading" and lane.view.steps:
        job.turn("running")


def _ended(job: Job, death: str) -> tuple[str, str]:
    """Last phase and reason of a job whose child is gone: what it recorded can go on."""
    if job.stop.is_set():
        return "stopped", death
    begun = any(lane.view.steps for lane in job.lanes)
    return ("interrupted" if begun else "failed"), death


def outcome(job: Job, problem: str) -> tuple[str, str]:
    """Return a job's last phase and the reason. A race of which a lane is left has not failed."""
    end = job.lane.view.end
    if problem and job.stop.is_set() and end is None:
        return "stopped", problem
    if problem:
        return "failed", end.reason if end and end.status == "failed" else problem
    lost = [f"{lane.config.method} dropped out: {lane.problem}" for lane in job.lanes if lane.problem]
    if len(lost) == len(job.lanes):
        return "failed", lost[0]
    ends = [lane.view.end for lane in job.lanes if lane.view.end is not None and not lane.problem]
    for status in ("failed", "stopped") if len(job.lanes) == 1 else ("stopped",):
        for end in ends:
            if end.status == status:
                return status, end.reason
    return ("finished", "; ".join([ends[0].reason, *lost])) if ends else ("stopped", "stopped before the first step")


class Worker(threading.Thread):
    """Takes jobs from a function until it is told to end."""

    def __init__(
        self, take: Callable[[], Job | None], done: Callable[[Job], Any], spares: Spares, leash: Leash, learn: Learn
    ) -> None:
        super().__init__(name="zocore worker", daemon=True)
        self.take, self.done, self.spares, self.leash, self.learn = take, done, spares, leash, learn

    def run(self) -> None:
        """Work job by job."""
        while (job := self.take()) is not None:
            work(job, self.spares, self.leash, self.learn)
            self.done(job)
