"""A GPU that is lent by the call: slices in forked processes, killed at their deadline, that forget everything."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gradio.context import LocalContext

from app.form import cost, cost_card
from app.form.starting import Guest, begin
from app.jobs import lent
from app.jobs.job import Job, read_job
from app.jobs.lanes import WEIGHTS
from app.jobs.limits import HOSTED, Limits
from app.jobs.store import JobStore
from app.words import status
from tests.support.places import ROOT
from tests.support.thread_child import launcher
from tests.support.toy_engine import toy
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.runs.events import RunStarted, StepDone
from zocore.runs.recording import examine

CONFIG = RunConfig(method="mezo", steps=6, lr=1e-4, eps=1e-3)
calls: list[int] = []  # of this process: what a slice adds to it does not come back


class Death:
    """A file that, while it is there, has the process of the engine killed after three steps, as a deadline does."""

    path = Path()


def engine(config: RunConfig, stop: Callable[[], bool], recording: Any = None, weights: Any = None) -> Iterator[Any]:
    """The toy engine, which says when it was called and can be killed."""
    calls.append(1)
    assert weights is not None and weights.name == WEIGHTS
    for event in toy(config, stop, recording):
        yield event
        done = event.resumed_at if isinstance(event, RunStarted) else event.step if isinstance(event, StepDone) else 0
        if done == 3 and Death.path.exists():
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A server whose GPU is lent, by the stand-in for `spaces`; the file holds the quota."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "support" / "lent"))
    monkeypatch.delitem(sys.modules, "spaces", raising=False)
    monkeypatch.setenv(lent.DRIVER, "zerogpu")
    monkeypatch.setenv("STAND_IN_QUOTA", str(tmp_path / "quota"))
    monkeypatch.setattr(lent, "run", engine)
    monkeypatch.setattr(Death, "path", tmp_path / "death")
    calls.clear()
    token = LocalContext.request.set(object())  # type: ignore[arg-type]
    yield tmp_path / "quota"
    LocalContext.request.reset(token)
    sys.modules.pop("spaces", None)


@pytest.fixture
def store(stand_in: Path, tmp_path: Path) -> Iterator[JobStore]:
    made = JobStore(tmp_path / "runs", Limits(), launch=launcher(toy), lend=lent.lender())
    yield made
    made.close()


def started(store: JobStore, config: RunConfig = CONFIG) -> Job:
    return begin(store, Guest("ann", ""), [config])


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


def steps(job: Job) -> list[int]:
    return [event.step for _, event in job.log if isinstance(event, StepDone)]


def test_a_run_is_done_in_slices_and_every_event_comes_once(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a margin as long as a slice each does one step: the recording carries the run, no global does."""
    monkeypatch.setattr(lent, "MARGIN", 1e9)
    job = started(store)
    assert (job.phase, job.lent, status(job, 0)) == ("queued", True, "waiting for the GPU that is lent")
    said = list(store.drive(job.id, "ann"))
    assert job.phase == "finished", job.reason
    assert steps(job) == [1, 2, 3, 4, 5, 6]
    starts = [event for _, event in job.log if isinstance(event, RunStarted)]
    assert [event.resumed_at for event in starts] == [0, 1, 2, 3, 4, 5, 6]  # the last tests alone
    assert [event for _, event in job.log] == list(examine(job.lane.folder).events)
    assert calls == []
    assert said[0].startswith("slice 1: asking") and any(line.startswith("slice 6") for line in said)


def test_a_slice_that_is_killed_loses_no_step_and_a_run_that_gets_nowhere_is_paused(store: JobStore) -> None:
    """What was recorded is taken in; a shorter slice is tried; and the rest is done once nothing kills it."""
    Death.path.touch()
    job = started(store)
    list(store.drive(job.id, "ann"))
    assert (job.phase, steps(job)) == ("paused", [1, 2, 3])
    assert "GPU task aborted" in job.reason and "paused at step 3" in status(job, 0)
    Death.path.unlink()
    store.resume(job.id, "ann")
    list(store.drive(job.id, "ann"))
    assert (job.phase, steps(job)) == ("finished", [1, 2, 3, 4, 5, 6])


def test_the_stand_in_keeps_its_deadline_by_force(stand_in: Path) -> None:
    """What takes longer than it said is killed, as on ZeroGPU; what it had said by then has come."""
    import spaces

    def task(order: str, seconds: int) -> Iterator[str]:
        yield order
        time.sleep(600)

    said = spaces.GPU(task, duration=lambda order, seconds: seconds)("hello", 3)
    with pytest.raises(Exception, match="GPU task aborted"):
        assert list(said) == ["never"]


def test_a_run_whose_quota_is_gone_is_paused_and_goes_on_on_the_cpu(
    store: JobStore, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of the quota is used, by a shorter slice at the end; then the CPU does the rest."""
    monkeypatch.setattr(lent, "MARGIN", 1e9)
    monkeypatch.setattr(lent, "asked", lambda left: 40)
    stand_in.write_text("90")  # for a slice of 40 s, counted as 60, and one of 20, counted as 30
    job = started(store)
    list(store.drive(job.id, "ann"))
    assert (job.phase, steps(job)) == ("paused", [1, 2])
    assert "quota exceeded" in job.reason and "left" in job.reason
    again = read_job(job.folder)
    assert again is not None and (again.phase, again.lent) == ("paused", True)
    store.resume(job.id, "ann", cpu=True)
    until(lambda: job.over)
    assert (job.phase, steps(job)) == ("finished", [1, 2, 3, 4, 5, 6])


def test_a_page_that_is_closed_pauses_its_run(store: JobStore) -> None:
    """The slice is left at its next word, and nobody waits for it."""
    job = started(store, replace(CONFIG, steps=5000))
    driving = store.drive(job.id, "ann")
    while not steps(job):
        next(driving)
    driving.close()  # type: ignore[attr-defined]
    until(lambda: job.over)
    assert (job.phase, job.reason) == ("paused", lent.ELSEWHERE)
    assert 0 < len(steps(job)) < 5000
    assert [event for _, event in job.log] == list(examine(job.lane.folder).events)


def test_stop_ends_a_slice(store: JobStore) -> None:
    job = started(store, replace(CONFIG, steps=5000))
    driving = store.drive(job.id, "ann")
    while not steps(job):
        next(driving)
    store.stop(job.id, "ann")
    list(driving)
    assert (job.phase, job.stopped_by) == ("stopped", "you")
    waiting = started(store)
    store.stop(waiting.id, "ann")
    assert waiting.phase == "stopped"


def test_only_its_owner_drives_a_job_and_once(store: JobStore) -> None:
    job = started(store, replace(CONFIG, steps=5000))
    with pytest.raises(InputError, match="no such run"):
        next(store.drive(job.id, "bob"))
    driving = store.drive(job.id, "ann")
    next(driving)
    with pytest.raises(InputError, match="waits for no GPU"):
        next(store.drive(job.id, "ann"))
    store.stop(job.id, "ann")
    with suppress(StopIteration):
        while True:
            next(driving)


def test_a_call_without_a_request_is_refused(store: JobStore) -> None:
    """As on ZeroGPU, a thread of its own has no visitor: the run is paused, not lost."""
    job = started(store)
    token = LocalContext.request.set(None)
    list(store.drive(job.id, "ann"))
    LocalContext.request.reset(token)
    assert job.phase == "paused" and "no request" in job.reason


def test_what_cannot_be_cut_into_slices_runs_on_the_cpu(store: JobStore) -> None:
    """Backprop's state is in no recording, and a race has many runs."""
    backprop = started(store, replace(CONFIG, method="adamw", eps=None, device="cuda"))
    assert not backprop.lent and backprop.lane.config.device == "cpu"
    until(lambda: backprop.over)
    race = begin(store, Guest("bob", ""), [CONFIG, CONFIG], "race")
    assert not race.lent and {lane.config.device for lane in race.lanes} == {"cpu"}


def test_the_card_says_what_a_slice_takes_of_the_quota(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a GPU is lent, the page's process sees one that it cannot use."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    price = cost.cost(RunConfig(model="Qwen/Qwen2.5-0.5B", steps=1000, device="cuda"), store.speeds)
    assert price.blocker == "" and price.lent is not None
    assert price.lent.seconds <= lent.MOST and price.lent.counted == 1.5 * price.lent.seconds
    text = cost_card.card(price)
    assert "GPU quota" in text and f"{price.lent.counted} s of your daily quota" in text
    assert cost_card.facts(price)["quota_seconds"] == price.lent.slices * price.lent.counted
    assert cost.cost(RunConfig(device="cpu"), store.speeds).lent is None


def test_a_plan_covers_the_run() -> None:
    assert lent.Plan.of(1.0) == lent.Plan(1, lent.LEAST)
    for seconds in (10.0, 60.0, 600.0):
        plan = lent.Plan.of(seconds)
        assert plan.slices * (plan.seconds - lent.OPENING) >= min(seconds, plan.slices * plan.seconds) * 0.99
        assert lent.LEAST <= plan.seconds <= lent.MOST


def test_a_server_without_the_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lent.DRIVER, "zerogpu")
    monkeypatch.setitem(sys.modules, "spaces", None)
    with pytest.raises(InputError, match="pip install spaces"):
        lent.lender()
    monkeypatch.setenv(lent.DRIVER, "")
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert lent.offered()
    monkeypatch.setenv(lent.DRIVER, "own")
    assert not lent.offered() and lent.lender() is None
    assert HOSTED.hosted
