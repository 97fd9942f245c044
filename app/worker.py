"""Running a job: each lane's generator is advanced in the one thread that owns its model."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import torch

from app.jobs import Job, Lane
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.events import Event
from zocore.loop import run
from zocore.meter import Meter
from zocore.museum import EXHIBITS, run_broken
from zocore.recorder import read_recording, record

Engine = Callable[..., Iterator[Event]]


def work(job: Job, seconds: float, engine: Engine = run) -> None:
    """Run a job to its end, whatever happens; the job says how it ended."""
    try:
        _run(job, seconds, engine)
    except ValueError as error:  # settings or data that cannot work: the message is for people
        job.turn("failed", str(error))
    except Exception as error:
        end = job.lane.view.end
        job.turn("failed", end.reason if end and end.status == "failed" else f"{type(error).__name__}: {error}")


def _run(job: Job, seconds: float, engine: Engine) -> None:
    job.base_memory = Meter(torch.device("cpu")).peak()
    job.turn("loading")
    limit = time.monotonic() + seconds

    def stop() -> bool:
        if time.monotonic() > limit and not job.stop.is_set():
            job.stopped_by = f"the time limit of {seconds / 60:.0f} minutes"
            job.stop.set()
        return job.stop.is_set()

    if job.kind in EXHIBITS:
        engine = _broken(job.kind)
    lanes = {number: _events(lane, stop, job.resumed, engine) for number, lane in enumerate(job.lanes)}
    try:
        while lanes:
            number = min(lanes, key=lambda n: (job.lanes[n].view.place.forwards, n))
            event = next(lanes[number], None)
            if event is None:
                del lanes[number]
                continue
            job.add(number, event)
            if job.phase == "loading" and job.lanes[number].view.steps:
                job.turn("running")
    finally:
        for events in lanes.values():
            with suppress(Exception), closing(events):  # type: ignore[type-var]
                pass
    job.turn(*_outcome(job))


def _broken(name: str) -> Engine:
    """The engine of an exhibit of the museum, which starts anew when it is resumed."""
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
    config = RunConfig.from_json(recording.header.config) if recording else lane.config
    yield from record(engine(config, stop, recording), lane.folder)


def _outcome(job: Job) -> tuple[str, str]:
    ends = [lane.view.end for lane in job.lanes if lane.view.end is not None]
    for status in ("failed", "stopped"):
        for end in ends:
            if end.status == status:
                return status, end.reason
    return ("finished", ends[0].reason) if ends else ("stopped", "stopped before the first step")


class Worker(threading.Thread):
    """Takes jobs from a function until it is told to end."""

    def __init__(
        self, take: Callable[[], Job | None], done: Callable[[Job], Any], seconds: float, engine: Engine = run
    ) -> None:
        super().__init__(name="zocore worker", daemon=True)
        self.take, self.done, self.seconds, self.engine = take, done, seconds, engine

    def run(self) -> None:
        """Work job by job."""
        while (job := self.take()) is not None:
            work(job, self.seconds, self.engine)
            self.done(job)


def folder_bytes(folder: Path) -> int:
    """Return the size of what a folder holds."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
