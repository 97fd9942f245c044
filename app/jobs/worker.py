"""Running a job: each lane's generator is advanced in the one thread that owns its model."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

from app.jobs.job import Job, Lane
from app.jobs.speeds import Timing
from zocore.config import RunConfig
from zocore.diagnostics.broken_runs import FAULTS, run_broken
from zocore.errors import InputError
from zocore.runs.events import Event
from zocore.runs.recording import read_recording, record

Engine = Callable[..., Iterator[Event]]
Learn = Callable[[RunConfig, float], None]  # takes the seconds per step of some settings


def work(job: Job, seconds: float, engine: Engine, learn: Learn) -> None:
    """Run a job to its end, whatever happens; the job says how it ended."""
    try:
        _run(job, seconds, engine, learn)
    except ValueError as error:  # settings or data that cannot work: the message is for people
        job.turn("failed", str(error))
    except Exception as error:
        end = job.lane.view.end
        job.turn("failed", end.reason if end and end.status == "failed" else f"{type(error).__name__}: {error}")


def _run(job: Job, seconds: float, engine: Engine, learn: Learn) -> None:
    job.turn("loading")
    limit = time.monotonic() + seconds

    def stop() -> bool:
        if time.monotonic() > limit and not job.stop.is_set():
            job.stopped_by = f"the time limit of {seconds / 60:.0f} minutes"
            job.stop.set()
        return job.stop.is_set()

    if job.kind in FAULTS:
        engine = _broken(job.kind)
    lanes = {number: _events(lane, stop, job.resumed, engine) for number, lane in enumerate(job.lanes)}
    timings = [Timing(lane.config.steps) for lane in job.lanes]
    try:
        while lanes:
            number = min(lanes, key=lambda n: (job.lanes[n].view.place.forwards, n))
            event = _next(lanes[number], job, number)
            if event is None:
                del lanes[number]
                continue
            job.add(number, event)
            if found := timings[number].add(event):
                learn(job.lanes[number].config, found)
            if job.phase == "loading" and job.lanes[number].view.steps:
                job.turn("running")
    finally:
        for events in lanes.values():
            with suppress(Exception), closing(events):  # type: ignore[type-var]
                pass
    job.turn(*_outcome(job))


def _next(events: Iterator[Event], job: Job, number: int) -> Event | None:
    """The next event of a lane, None at its end. A lane of a race that fails leaves the others running."""
    lane = job.lanes[number]
    try:
        event = next(events, None)
    except Exception as error:
        if len(job.lanes) == 1:
            raise
        lane.problem = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return None
    end = lane.view.end
    if event is None and len(job.lanes) > 1 and end is not None and end.status == "failed":
        lane.problem = end.reason
    return event


def _broken(name: str) -> Engine:
    """The engine of an fault of the museum, which starts anew when it is resumed."""
    return lambda config, stop, recording: run_broken(name, config, stop)


def _events(lane: Lane, stop: Callable[[], bool], resumed: bool, engine: Engine) -> Iterator[Event]:
    """The recorded events of a lane, from the start or from where its recording ends."""
    recording = None
    if resumed:
        with suppress(InputError):
            recording = read_recording(lane.folder)
    if recording is not None and recording.end is not None and recording.end.status == "finished":
        return
    lane.folder.mkdir(parents=True, exist_ok=True)
    config = recording.config if recording else lane.config
    yield from record(engine(config, stop, recording), lane.folder)


def _outcome(job: Job) -> tuple[str, str]:
    """A job's last phase and the reason. A race of which a lane is left has not failed."""
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
        self, take: Callable[[], Job | None], done: Callable[[Job], Any], seconds: float, engine: Engine, learn: Learn
    ) -> None:
        super().__init__(name="zocore worker", daemon=True)
        self.take, self.done, self.seconds, self.engine, self.learn = take, done, seconds, engine, learn

    def run(self) -> None:
        """Work job by job."""
        while (job := self.take()) is not None:
            work(job, self.seconds, self.engine, self.learn)
            self.done(job)
