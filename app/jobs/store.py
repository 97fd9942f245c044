"""The job store: a queue, the workers, the limits, and who may see or stop what."""

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from app.jobs.job import Job, new_job, read_job
from app.jobs.lab import Lab
from app.jobs.lanes import WEIGHTS
from app.jobs.lent import Driver, Lend
from app.jobs.lessons import Lessons
from app.jobs.limits import HOUR, Limits
from app.jobs.process import Child, Leash, Spares, spawn
from app.jobs.speeds import Speeds
from app.jobs.visitors import Rate, Visitors, check_rate, server_key
from app.jobs.worker import Worker
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.runs.events import Event

MISSING = "there is no such run here: it may have been removed"
SHARED = 3  # times what one visitor may ask, for an address that several share


class JobStore:
    """Owns every job and every child. Methods are safe to call from any thread; none of them waits for a step."""

    def __init__(
        self,
        root: Path,
        limits: Limits = Limits(),
        launch: Callable[[], Child] | None = None,
        lend: Lend | None = None,
    ) -> None:
        self.root, self.limits, self.lend = root, limits, lend
        root.mkdir(parents=True, exist_ok=True)
        self.visitors = Visitors(server_key(root))
        self.lessons = Lessons(root / "lessons", self.visitors.key)
        self.speeds = Speeds(root / "speeds.json")
        self.jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._ready = threading.Condition()
        self._closed = False
        self._starts, self._questions = Rate(limits.starts), Rate(limits.questions)
        self._shared_starts, self._shared_questions = Rate(SHARED * limits.starts), Rate(SHARED * limits.questions)
        self._work = Rate(limits.work_an_hour, HOUR)
        self.spares = Spares(launch or (lambda: spawn(limits.memory, limits.polite)))
        self.models = Lab(self.spares, Leash(limits.question_seconds, limits.memory))
        self.files = Lab(self.spares, Leash(limits.file_seconds, limits.memory))
        for folder in sorted(root.iterdir()):
            if (folder / "job.json").is_file() and (job := read_job(folder)) is not None:
                self.jobs[job.id] = job
        leash, learn = Leash(limits.seconds, limits.memory, limits.grace), self.speeds.learn
        self._workers = [Worker(self._take, self._done, self.spares, leash, learn) for _ in range(limits.workers)]
        for worker in self._workers:
            worker.start()
        threading.Thread(target=self._reap_for_ever, name="zocore reaper", daemon=True).start()

    def start(
        self,
        visitor: str,
        configs: Sequence[RunConfig],
        kind: str = "run",
        address: str = "",
        work: float = 0.0,
        expected: float = 0.0,
        sentence: str = "",
        lent: bool = False,
    ) -> Job:
        """Queue a job of so much work, expected to take so many seconds; a sentence is asked as it goes.

        One that is `lent` waits for its driver.

        Raises InputError when the visitor has one under way or a limit is met.
        """
        if not 1 <= len(configs) <= self.limits.lanes:
            raise InputError(f"a race has from 1 to {self.limits.lanes} runs here, not {len(configs)}")
        check_rate([(self._starts, visitor), (self._shared_starts, address)], "starts")
        job = new_job(self.root, visitor, configs, kind, address, work, expected, sentence)
        with self._ready:
            self._room_for(visitor, address)
            self._afford(address, work)
            job.lent = lent
            job.save()
            self.jobs[job.id] = job
            self._line_up(job)
        return job

    def drive(self, job_id: str, visitor: str) -> Iterator[str]:
        """Have the slices of one's own job done that waits for the lent GPU; yields where it is, in words.

        Raises InputError when the job waits for nobody.
        """
        job = self.mine(job_id, visitor)
        with self._ready:
            if self.lend is None or not job.lent or job.driven or job.phase != "queued":
                raise InputError("this run waits for no GPU that is lent")
            job.driven = True
        try:
            with closing(Driver(job, self.lend, self.speeds.learn).messages()) as messages:  # type: ignore[type-var]
                for message in messages:
                    job.seen = time.monotonic()
                    yield message
        finally:
            self._done(job)

    def prepare(self, config: RunConfig) -> None:
        """Have the first children started and a configuration timed before anybody asks."""
        self.spares.prepare()
        config = replace(config, device="cpu") if self.lend else config  # what is lent is not lent for this
        with suppress(InputError):  # what is wrong here is told where somebody presses Start
            self.speeds.learn(config, self.models.ask("seconds", config=config.to_json()))

    def may_ask(self, visitor: str, address: str) -> None:
        """Count a question to a model or a file. Raises InputError when there were too many."""
        check_rate([(self._questions, visitor), (self._shared_questions, address)], "questions")

    def resume(self, job_id: str, visitor: str, address: str = "", cpu: bool = False) -> Job:
        """Queue an interrupted, paused or stopped job again, to go on where its recording ends.

        On the `cpu` goes on what would wait for a GPU that is lent.
        """
        job = self.mine(job_id, visitor)
        check_rate([(self._starts, visitor), (self._shared_starts, address)], "starts")
        with self._ready:
            if not job.over or job.phase == "finished":
                raise InputError("this run cannot go on: it is finished or still under way")
            self._room_for(visitor, address)
            self._afford(address, job.work)
            job.address = address
            job.recall()
            job.stop.clear()
            job.resumed, job.stopped_by = True, ""
            for lane in job.lanes:
                lane.problem = ""
            if cpu and job.lent:
                job.lent = False
                for lane in job.lanes:
                    lane.config = replace(lane.config, device="cpu")
            job.turn("queued")
            self._line_up(job)
        return job

    def stop(self, job_id: str, visitor: str, by: str = "you") -> Job:
        """Stop a job after its current step; one that waits leaves the queue."""
        job = self.mine(job_id, visitor)
        with self._ready:
            self._stop(job, by)
        return job

    def find(self, job_id: object) -> Job | None:
        """Return a job by its id and note that somebody looked; None when there is none."""
        job = self.jobs.get(job_id) if isinstance(job_id, str) else None
        if job is not None:
            job.seen = time.monotonic()
            with self._ready:
                job.recall()
        return job

    def get(self, job_id: str) -> Job:
        """Return a job as `find` does. Raises InputError when there is none."""
        job = self.find(job_id)
        if job is None:
            raise InputError(MISSING)
        return job

    def mine(self, job_id: str, visitor: str) -> Job:
        """Return the visitor's own job. Raises InputError for anybody else's, as if it did not exist."""
        job = self.get(job_id)
        if not job.owned_by(visitor):
            raise InputError(MISSING)
        return job

    def of(self, visitor: str) -> list[Job]:
        """Return the visitor's jobs, newest first."""
        return sorted((job for job in list(self.jobs.values()) if job.owned_by(visitor)), key=lambda job: -job.created)

    def position(self, job: Job) -> int:
        """Return how many jobs come first, counting those under way; 0 when the job is not waiting."""
        return len(self._ahead(job))

    def wait(self, job: Job) -> float:
        """Return about how many seconds a waiting job has to wait for those before it."""
        return sum(min(other.left, self.limits.seconds) for other in self._ahead(job)) / self.limits.workers

    def _ahead(self, job: Job) -> list[Job]:
        """The jobs under way, one that a worker has just taken among them, and those that wait before this one."""
        with self._ready:
            waiting, jobs = list(self._queue), list(self.jobs.values())
        if job not in waiting:
            return []
        under_way = [other for other in jobs if not (other.over or other.lent or other in waiting)]
        return under_way + waiting[: waiting.index(job)]

    def events(self, job_id: str, since: int = 0) -> tuple[list[tuple[int, Event]], int]:
        """Return the events from a cursor on, each with the number of its lane, and the next cursor."""
        log = self.get(job_id).log
        news = log[max(0, since) :]
        return news, max(0, since) + len(news)

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
        self.spares.close()
        self.models.close()
        self.files.close()

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
        self._crowd_out()
        if self.limits.keep:
            for name in ("uploads", "exports"):
                self._delete_old(self.root / name)

    def _crowd_out(self) -> None:
        """Forget the events of finished jobs beyond a number, those first that nobody looked at for longest."""
        with self._ready:
            kept = [job for job in self.jobs.values() if job.over and not job.forgotten]
            for job in sorted(kept, key=lambda job: job.seen)[: -self.limits.resident_jobs or None]:
                job.forget()

    def _delete_old(self, folder: Path) -> None:
        for path in folder.iterdir() if folder.is_dir() else ():
            if time.time() - path.stat().st_mtime > self.limits.keep:
                shutil.rmtree(path, ignore_errors=True)

    def _room_for(self, visitor: str, address: str) -> None:
        if any(not job.over for job in self.of(visitor)):
            raise InputError("you have a run under way: stop it first, or wait until it is done")
        if len(self._queue) >= self.limits.waiting:
            raise InputError(f"{len(self._queue)} runs are waiting already: try again in a few minutes")
        shared = sum(not job.over and job.address == address for job in self.jobs.values())
        if self.limits.places and shared >= self.limits.places:
            raise InputError(f"{shared} runs from your address wait or run already: try again when one is done")

    def _afford(self, address: str, work: float) -> None:
        """Count work. Raises InputError when it is more than one run or one address may have."""
        if self.limits.work and work > self.limits.work:
            times = work / self.limits.work
            raise InputError(
                f"this needs {times:.2g} times the work that a run may take on this server: take fewer steps or "
                "evaluations, a smaller batch, fewer directions or a smaller model"
            )
        if wait := self._work.spend(address, work):
            raise InputError(
                "your address has used up its work for this hour: "
                f"try a smaller run, or again in {min(wait, HOUR) / 60:.0f} minutes"
            )

    def _line_up(self, job: Job) -> None:
        if not job.lent:
            self._queue.append(job)
            self._ready.notify()

    def _stop(self, job: Job, by: str) -> None:
        if not job.over and not job.stop.is_set():
            job.stopped_by = by
            job.stop.set()
            job.version += 1
            if job in self._queue:
                self._queue.remove(job)
                job.turn("stopped", "stopped before the first step")
            elif job.lent and not job.driven:
                job.turn("stopped", "stopped before it had the GPU")

    def _take(self) -> Job | None:
        with self._ready:
            while not self._queue and not self._closed:
                self._ready.wait()
            return None if self._closed else self._queue.popleft()

    def _done(self, job: Job) -> None:
        """Give back the work that was not done, and let the job's events leave memory soon."""
        planned = sum(lane.config.steps for lane in job.lanes)
        left = 1 - sum(lane.view.steps for lane in job.lanes) / planned
        self._work.give_back(job.address, left * job.work)
        if job.phase in ("finished", "failed"):
            for lane in job.lanes:
                (lane.folder / WEIGHTS).unlink(missing_ok=True)
        job.seen = max(job.seen, time.monotonic() - self.limits.resident / 2)

    def _reap_for_ever(self) -> None:
        while not self._closed:
            time.sleep(min(5.0, self.limits.abandoned / 2))
            self.reap()
