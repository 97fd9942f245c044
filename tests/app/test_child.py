"""Child processes: what passes over the pipe, and how one that goes too far is ended."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.jobs import wire
from app.jobs.job import Job, read_job
from app.jobs.lab import Lab
from app.jobs.lanes import Engine
from app.jobs.limits import Limits
from app.jobs.process import Died, Leash, Spares, follow, spawn
from app.jobs.store import JobStore
from app.jobs.wire import Answer, Ask, Happened, Lost, Over, Ready, Stop, Work
from tests.support.places import RECORDED
from tests.support.thread_child import launcher
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.runs.events import Event, RunStarted, StepDone
from zocore.runs.loop import run
from zocore.runs.recording import Recording

EVENTS = [Event.from_json(line) for line in RECORDED.read_text().splitlines()[:8]]
MESSAGES = [
    Work("run", [RunConfig().to_json()], ["/a/folder"], True, 3.0), Ask("look", {"a": [1]}, 2.0), Stop(), Ready(),
    Lost(2, "a \"reason\"\nof two lines"), Over("gone"), Answer({"x": float("inf")}), *(Happened(1, e) for e in EVENTS),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_survive_the_pipe(message: Any) -> None:
    line = wire.write(message)
    assert line.count("\n") == 1
    assert wire.read(line) == message


@pytest.mark.parametrize("line", ["", "0", "0 {", "Nothing {}", "Over [1]", 'Over {"a":1}', "Over {", "1 {}"])
def test_a_line_that_is_no_message_is_said_to_be_none(line: str) -> None:
    with pytest.raises(ValueError):
        wire.read(line)


def slow(config: RunConfig, stop: Callable[[], bool], recording: Recording | None = None) -> Iterator[Event]:
    """An engine that does two steps and then hears nothing for a while, as a step that takes long."""
    yield next(event for event in EVENTS if isinstance(event, RunStarted))
    steps = [event for event in EVENTS if isinstance(event, StepDone)]
    yield from steps[:2]
    time.sleep(2)
    yield steps[2]


def until_over(job: Job, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not job.over:
        assert time.monotonic() < end, job.phase
        time.sleep(0.01)


def started(root: Path, engine: Engine, limits: Limits) -> tuple[JobStore, Job]:
    store = JobStore(root, limits, launch=launcher(engine))
    job = store.start("ann", [RunConfig(steps=300)])
    end = time.monotonic() + 10
    while job.lane.view.steps < 2 and not job.over:
        assert time.monotonic() < end
        time.sleep(0.01)
    return store, job


def test_a_run_that_does_not_stop_is_ended_and_can_go_on(tmp_path: Path) -> None:
    store, job = started(tmp_path, slow, Limits(grace=0.1))
    store.stop(job.id, "ann")
    until_over(job)
    assert job.phase == "stopped" and job.stopped_by == "you" and "did not stop within" in job.reason
    assert [point.place.steps for point in job.lane.view.points] == [1, 2]
    again = JobStore(tmp_path, Limits(grace=0.1), launch=launcher(slow))  # as after a restart
    assert again.mine(job.id, "ann").lane.view.steps == 2
    for one in (store, again):
        one.close()


def test_a_run_over_its_time_is_ended_too(tmp_path: Path) -> None:
    store, job = started(tmp_path, slow, Limits(seconds=0.2, grace=0.1))
    until_over(job)
    assert job.phase == "stopped" and "time limit" in job.stopped_by
    store.close()


def dying(config: RunConfig, stop: Callable[[], bool], recording: Recording | None = None) -> Iterator[Event]:
    """An engine whose process ends in the middle of a run."""
    yield next(event for event in EVENTS if isinstance(event, RunStarted))
    yield from [event for event in EVENTS if isinstance(event, StepDone)][:2]
    raise SystemExit


def test_a_child_that_dies_leaves_a_sentence_and_what_it_recorded(tmp_path: Path) -> None:
    """The pipe ends in the middle of a run: the run is interrupted, not lost."""
    store, job = started(tmp_path, dying, Limits())
    until_over(job)
    assert job.phase == "interrupted" and "its process ended before it did" in job.reason
    job.lane.load()  # from disk
    assert job.lane.view.steps == 2
    store.close()


def test_a_question_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    spares = Spares(launcher(slow), delay=100)
    lab = Lab(spares, Leash(-1.0, grace=0.0))
    with pytest.raises(InputError, match="took longer than"):
        lab.ask("seconds", config=RunConfig().to_json())
    lab = Lab(spares, Leash(60.0))
    with pytest.raises(InputError, match="there is no file"):
        lab.ask("table", path=str(tmp_path / "nothing.csv"), most=100)
    lab.close()


@pytest.mark.slow
def test_a_real_child_runs_and_is_held_to_its_memory() -> None:
    """Allocations over the limit end in a sentence; what the parent's watch sees ends in another."""
    child = spawn(memory=1_500_000_000, polite=7)
    if hasattr(os, "getpriority"):  # behind the page from its first import on
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 7)
    assert child.ready.wait(120) and not child.gone.is_set()
    config = RunConfig(batch_size=60_000, max_tokens=512, steps=2, eval_examples=1, device="cpu").to_json()
    child.order(Work("run", [config], ["/tmp/zocore-test-child"], False, 60.0))
    over = next(message for message in follow(child, Leash(120.0)) if isinstance(message, Over))
    assert "memory" in over.problem, over
    child.order(Ask("seconds", {"config": RunConfig(device="cpu").to_json()}))
    if sys.platform == "linux":
        with pytest.raises(Died, match="limit of 0.1 GB of memory"):
            list(follow(child, Leash(60.0, memory=100_000_000)))
    child.end()


def test_a_sentence_of_ones_own_is_asked_wherever_the_run_looks(tmp_path: Path) -> None:
    """It comes first, without a truth, before, between and after, and is kept for a run that goes on."""
    store = JobStore(tmp_path, Limits(), launch=launcher(run))
    config = RunConfig(device="cpu", method="mezo", steps=2, batch_size=2, eval_every=1, eval_examples=2)
    job = store.start("ann", [config], sentence="What a lovely day")
    until_over(job, 120)
    assert job.phase == "finished", job.reason
    assert [shown.step for shown in job.lane.view.samples] == [0, 1, 2]
    for shown in job.lane.view.samples:
        assert (shown.texts[0], shown.labels[0]) == ("What a lovely day", "") and len(shown.texts) == 6
        assert sum(shown.probabilities[0]) == pytest.approx(1, abs=1e-4)
    kept = read_job(job.folder)
    assert kept is not None and kept.sentence == "What a lovely day"
    store.close()
