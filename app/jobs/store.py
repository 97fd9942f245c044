"""The job store: a queue, the workers, the limits, and who may see or stop what."""

import shutil
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.jobs.job import Job, new_job, read_job
from app.jobs.speeds import Speeds
from app.jobs.worker import Engine, Worker
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.runs.events import Event
from zocore.runs.loop import run

DAY = 86_400.0


@dataclass(frozen=True)
class Limits:
    """How much visitors may ask for. The defaults are for one's own machine."""

    workers: int = 1  # jobs at a time
    waiting: int = 20  # jobs in the queue
    seconds: float = 12 * 3600.0  # wall-clock time of one job
    abandoned: float = DAY  # seconds without a look after which a job is stopped
    steps: int = 1_000_000
    lanes: int = 15  # of a race
    upload_bytes: int = 100_000_000
    keep: float = 0.0  # seconds a finished job stays on disk; 0 for ever
    folders: bool = True  # whether a visitor may name folders and files of the server
    resident: float = 120.0  # seconds without a look after which a finished job leaves memory


HOSTED = Limits(
    seconds=900.0, abandoned=120.0, steps=5_000, lanes=9, upload_bytes=20_000_000, keep=DAY, folders=False, waiting=16
)
"""For a server that strangers use."""


class JobStore:
    """Owns every job. Methods are safe to call from any thread; none of them waits for a step."""

    def __init__(self, root: Path, limits: Limits = Limits(), engine: Engine = run) -> None:
        self.root, self.limits = root, limits
        root.mkdir(parents=True, exist_ok=True)
        self.speeds = Speeds(root / "speeds.json")
        self.jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._ready = threading.Condition()
        self._closed = False
        for folder in sorted(root.iterdir()):
            if (folder / "job.json").is_file() and (job := read_job(folder)) is not None:
                self.jobs[job.id] = job
        learn = self.speeds.learn
        self._workers = [Worker(self._take, self._done, limits.seconds, engine, learn) for _ in range(limits.workers)]
        for worker in self._workers:
            worker.start()
        threading.Thread(target=self._reap_for_ever, name="zocore reaper", daemon=True).start()

    def start(self, visitor: str, configs: Sequence[RunConfig], kind: str = "run") -> Job:
        """Queue a job. Raises InputError when the visitor has one under way or a limit is met."""
        self._check(configs)
        job = new_job(self.root, visitor, configs, kind)
        with self._ready:
            self._room_for(visitor)
            job.save()
            self.jobs[job.id] = job
            self._queue.append(job)
            self._ready.notify()
        return job

    def resume(self, job_id: str, visitor: str) -> Job:
        """Queue an interrupted or stopped job again, to go on where its recording ends."""
        job = self.mine(job_id, visitor)
        with self._ready:
            if not job.over or job.phase == "finished":
                raise InputError("this run cannot go on: it is finished or still under way")
            self._room_for(visitor)
            job.recall()
            job.stop.clear()
            job.resumed, job.stopped_by = True, ""
            for lane in job.lanes:
                lane.problem = ""
            job.turn("queued")
            self._queue.append(job)
            self._ready.notify()
        return job

    def stop(self, job_id: str, visitor: str, by: str = "you") -> Job:
        """Stop a job after its current step; one that waits leaves the queue."""
        job = self.mine(job_id, visitor)
        with self._ready:
            self._stop(job, by)
        return job

    def get(self, job_id: str) -> Job:
        """Return a job by its id and note that somebody looked. Raises InputError when there is none."""
        job = self.jobs.get(job_id)
        if job is None:
            raise InputError("there is no such run here: it may have been removed")
        job.seen = time.monotonic()
        with self._ready:
            job.recall()
        return job

    def mine(self, job_id: str, visitor: str) -> Job:
        """Return the visitor's own job. Raises InputError for anybody else's, as if it did not exist."""
        job = self.get(job_id)
        if not job.owned_by(visitor):
            raise InputError("there is no such run here: it may have been removed")
        return job

    def of(self, visitor: str) -> list[Job]:
        """Return the visitor's jobs, newest first."""
        return sorted((job for job in list(self.jobs.values()) if job.owned_by(visitor)), key=lambda job: -job.created)

    def position(self, job: Job) -> int:
        """Return how many jobs come first, counting those under way; 0 when the job is not waiting."""
        with self._ready:
            waiting = list(self._queue)
        busy = sum(other.phase in ("loading", "running") for other in list(self.jobs.values()))
        return busy + waiting.index(job) if job in waiting else 0

    def events(self, job_id: str, since: int = 0) -> tuple[list[tuple[int, Event]], int]:
        """Return the events from a cursor on, each with the number of its lane, and the next cursor."""
        log = self.get(job_id).log
        found = log[max(0, since) :]
        return found, max(0, since) + len(found)

    def close(self) -> None:
        """Stop everything: running jobs end after their step and can be resumed."""
        with self._ready:
            self._closed = True
            for job in self.jobs.values():
                if not job.over:
                    self._stop(job, "the server, which was shut down")
            self._ready.notify_all()
        for worker in self._workers:
            worker.join(timeout=10)

    def reap(self) -> None:
        """Stop what nobody looks at, forget what is over, delete what is old."""
        now = time.monotonic()
        with self._ready:
            for job in list(self.jobs.values()):
                unseen = now - job.seen
                if not job.over and unseen > self.limits.abandoned:
                    self._stop(job, "the server: nobody was looking")
                if job.over and unseen > self.limits.resident:
                    job.forget()
                if job.over and self.limits.keep and time.time() - job.created > self.limits.keep:
                    del self.jobs[job.id]
                    shutil.rmtree(job.folder, ignore_errors=True)
        if self.limits.keep:
            for name in ("uploads", "exports"):
                self._delete_old(self.root / name)

    def _delete_old(self, folder: Path) -> None:
        for path in folder.iterdir() if folder.is_dir() else ():
            if time.time() - path.stat().st_mtime > self.limits.keep:
                shutil.rmtree(path, ignore_errors=True)

    def _check(self, configs: Sequence[RunConfig]) -> None:
        if not 1 <= len(configs) <= self.limits.lanes:
            raise InputError(f"a race has from 1 to {self.limits.lanes} lanes here, not {len(configs)}")
        longest = max(config.steps for config in configs)
        if longest > self.limits.steps:
            raise InputError(f"{longest} steps are over this server's limit of {self.limits.steps}: take fewer")

    def _room_for(self, visitor: str) -> None:
        if any(not job.over for job in self.of(visitor)):
            raise InputError("you have a run under way: stop it first, or wait until it is done")
        if len(self._queue) >= self.limits.waiting:
            raise InputError(f"{len(self._queue)} runs are waiting already: try again in a few minutes")

    def _stop(self, job: Job, by: str) -> None:
        if not job.over and not job.stop.is_set():
            job.stopped_by = by
            job.stop.set()
            job.version += 1
            if job in self._queue:
                self._queue.remove(job)
                job.turn("stopped", "stopped before the first step")

    def _take(self) -> Job | None:
        with self._ready:
            while not self._queue and not self._closed:
                self._ready.wait()
            return None if self._closed else self._queue.popleft()

    def _done(self, job: Job) -> None:
        job.seen = max(job.seen, time.monotonic() - self.limits.resident / 2)

    def _reap_for_ever(self) -> None:
        while not self._closed:
            time.sleep(min(5.0, self.limits.abandoned / 2))
            self.reap()
