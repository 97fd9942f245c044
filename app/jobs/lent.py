"""A GPU that is lent for one call at a time, as ZeroGPU does: a run is done in slices.

A slice is a call that gets the GPU for so many seconds, in a process forked for it, which is ended when they are over
and keeps nothing. It goes on where the recording ends, from weights kept in a file beside it, and stops in time. The
seconds it asks for have to be left of the visitor's daily quota before it begins. Where nothing more is lent, the run
is paused: it can go on later, or on the CPU.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from app.jobs import wire
from app.jobs.job import Job, light
from app.jobs.lanes import run_lanes, sentence
from app.jobs.speeds import Timing
from app.jobs.wire import Happened, Lost, Over, Slept, Work
from app.jobs.worker import Learn, outcome, take_in
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.methods import METHODS
from zocore.runs.events import StepDone
from zocore.runs.loop import run
from zocore.runs.recording import examine

Lend = Callable[[Work, int], Iterator[list[str]]]

DRIVER = "ZOCORE_DRIVER"
ROOM = 48_000_000_000  # bytes of the half card that a call gets
COUNTED = 1.5  # seconds of quota for a second asked for, on the cards now lent
LEAST, MOST = 20, max(20, int(os.environ.get("ZOCORE_SLICE", "40")))  # seconds of one slice
OPENING = 8  # seconds to open the model and to put the weights away
MARGIN = 4.0  # seconds of a slice that no step may use
BEAT = 0.4  # seconds between two batches of messages
ELSEWHERE = "the page was closed"


def offered() -> bool:
    """Whether this server's GPU is lent by the call."""
    driver = os.environ.get(DRIVER, "")
    return driver == "zerogpu" or (not driver and os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true"))


def lends(config: RunConfig) -> bool:
    """Whether a run of these settings is done in slices: others, such as backprop's, are done on the CPU."""
    # what is tried before the first step is in no recording, so that no second slice could go on from it
    return offered() and config.device != "cpu" and METHODS[config.method].zeroth_order and not config.searches


def lender() -> Lend | None:
    """Return the call that gets the GPU, None on a server with no such calls. Comes before anything that wants CUDA."""
    if not offered():
        return None
    try:
        import spaces
    except ImportError:
        raise InputError("a GPU lent by the call needs the package `spaces`: pip install spaces") from None
    return spaces.GPU(do_slice, duration=lambda order, seconds: seconds)


def asked(left: float) -> int:
    """Return the seconds to ask for when a run has about so many left."""
    return min(MOST, max(LEAST, math.ceil(1.2 * left) + OPENING))


@dataclass(frozen=True)
class Plan:
    """What a run will ask of a visitor's quota, before it starts."""

    slices: int
    seconds: int  # of each

    @classmethod
    def of(cls, left: float) -> "Plan":
        """Return the plan of a run of so many seconds."""
        return cls(max(1, math.ceil(1.2 * left / (MOST - OPENING))), asked(left))

    @property
    def counted(self) -> int:
        """Seconds of quota that one slice takes."""
        return math.ceil(COUNTED * self.seconds)


@dataclass
class _Clock:
    """Tells when a slice has to end: the longest wait between two events has to fit once more."""

    seconds: int
    began: float = field(default_factory=time.monotonic)
    last: float = 0.0
    longest: float = 0.0

    def late(self) -> bool:
        now = time.monotonic()
        self.longest = max(self.longest, now - self.last if self.last else 0.0)
        self.last = now
        return now + self.longest + MARGIN > self.began + self.seconds


def do_slice(order: Work, seconds: int) -> Iterator[list[str]]:
    """Do a part of a job, in the process that has the GPU: yields lines of `wire`, the last Over or Slept."""
    clock, sent = _Clock(seconds), time.monotonic()
    lines: list[str] = []
    last: Over | Slept = Over()
    try:
        with closing(run_lanes(order, lambda: False, run)) as messages:  # type: ignore[type-var]
            for message in messages:
                lines.append(wire.write(message))
                if clock.late() and isinstance(message, Happened) and isinstance(message.event, StepDone):
                    last = Slept()
                    break
                if time.monotonic() > sent + BEAT:
                    yield lines
                    lines, sent = [], time.monotonic()
    except Exception as error:
        last = Over(sentence(error))
    yield [*lines, wire.write(last)]


@dataclass
class Driver:
    """Does one job slice by slice, as long as somebody goes through `messages`."""

    job: Job
    lend: Lend
    learn: Learn
    timings: list[Timing] = field(default_factory=list)

    def messages(self) -> Iterator[str]:
        """Yield what is going on, in words, until the job is over or nothing more is lent.

        Left before, which is when the visitor closes the page, the job is paused.
        """
        self.timings = [Timing(lane.config.steps) for lane in self.job.lanes]
        self.job.turn("loading")
        number, again, tried = 0, 0, set[int]()
        slice_: Iterator[list[str]] = iter(())
        try:
            while not self.job.over:
                number, before = number + 1, self.job.lane.view.steps
                seconds, began = again or asked(self.job.left), time.monotonic()
                slice_ = self.lend(self._order(), seconds)
                yield f"slice {number}: asking for the GPU for {seconds} s"
                problem = ""
                try:
                    for lines in slice_:
                        self._take_in(lines)
                        if self.job.stop.is_set():
                            self._stop(slice_)
                        yield f"slice {number} of {seconds} s"
                except GeneratorExit:
                    raise
                except Exception as refusal:  # of the lender: no quota, no GPU, or the slice was ended
                    problem = sentence_of(refusal)
                catch_up(self.job)
                if self.job.lane.view.steps > before:
                    again, tried = 0, set()
                elif problem and not self.job.over:
                    # it was too short for what comes first, or more than is left of the quota
                    tried.add(seconds)
                    again = MOST if time.monotonic() > began + 0.8 * seconds else LEAST
                    if again in tried:
                        self.job.turn("paused", problem)
        except GeneratorExit:
            threading.Thread(target=self._let_go, args=(slice_,), daemon=True).start()  # nobody has to wait for it
            raise
        finally:
            self.job.driven = False

    def _order(self) -> Work:
        lanes = self.job.lanes
        configs, folders = [lane.config.to_json() for lane in lanes], [str(lane.folder) for lane in lanes]
        return Work(self.job.kind, configs, folders, resumed=True, weights=True)

    def _take_in(self, lines: list[str]) -> None:
        for message in map(wire.read, lines):
            if isinstance(message, Happened):
                take_in(self.job, message, self.timings[message.lane], self.learn)
            elif isinstance(message, Lost):
                self.job.lanes[message.lane].problem = message.problem
            elif isinstance(message, Over):
                self.job.turn(*outcome(self.job, message.problem))

    def _stop(self, slice_: Iterator[list[str]]) -> None:
        _close(slice_)
        catch_up(self.job)
        if not self.job.over:
            self.job.turn("stopped", f"stopped after step {self.job.lane.view.steps}")

    def _let_go(self, slice_: Iterator[list[str]]) -> None:
        _close(slice_)
        catch_up(self.job)
        if not self.job.over:
            self.job.turn("paused", ELSEWHERE)


def _close(slice_: Any) -> None:
    with suppress(Exception):
        slice_.close()


def catch_up(job: Job) -> None:
    """Take in what was recorded and did not come back: a slice that is ended loses its last words, not its steps."""
    for number, lane in enumerate(job.lanes):
        with suppress(InputError):
            for event in examine(lane.folder).events[len(lane.events) :]:
                job.add(number, light(event))


def sentence_of(refusal: Exception) -> str:
    """Return what a lender said, which comes with a title."""
    title, said = getattr(refusal, "title", ""), str(getattr(refusal, "message", refusal)).strip(" '\"")
    return f"{title}: {said}" if title and title != "Error" else said or type(refusal).__name__
