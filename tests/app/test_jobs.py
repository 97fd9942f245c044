"""Jobs without a browser: owners, queue, stop, limits, restart and resume, and that no thread's mode leaks."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from app.jobs.job import Job, read_job
from app.jobs.limits import Limits
from app.jobs.store import JobStore
from app.jobs.view import View
from app.tabs import standings
from tests.support import tiny
from tests.support.thread_child import launcher
from tests.support.toy_engine import toy
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.runs.events import StepDone
from zocore.runs.recording import examine

CONFIG = RunConfig(method="mezo", steps=6, lr=1e-4, eps=1e-3)


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


@pytest.fixture
def store(tmp_path) -> Iterator[JobStore]:
    made = JobStore(tmp_path / "runs", Limits(waiting=3), launch=launcher(toy))
    yield made
    made.close()


def over(job: Job) -> Callable[[], bool]:
    return lambda: job.over


def test_a_job_runs_to_its_end_and_a_cursor_gives_each_event_once(store):
    job = store.start("ann", [CONFIG])
    seen, cursor = [], 0
    while not job.over or cursor < len(job.log):
        found, cursor = store.events(job.id, cursor)
        seen += found
    assert job.phase == "finished", job.reason
    assert [e.step for _, e in seen if isinstance(e, StepDone)] == [1, 2, 3, 4, 5, 6]
    assert store.events(job.id, cursor) == ([], cursor)


def test_stop_ends_after_the_step_and_keeps_the_result(store):
    job = store.start("ann", [replace(CONFIG, steps=5000)])
    until(lambda: job.lane.view.steps > 3)
    store.stop(job.id, "ann")
    until(over(job))
    assert (job.phase, job.stopped_by) == ("stopped", "you")
    assert 3 < job.lane.view.steps < 5000
    assert (job.lane.folder / "summary.json").is_file()


def test_nobody_sees_or_stops_what_is_not_theirs(store):
    job = store.start("ann", [replace(CONFIG, steps=5000)])
    for act in (store.stop, store.mine, store.resume):
        with pytest.raises(InputError, match="no such run"):
            act(job.id, "bob")
    with pytest.raises(InputError, match="no such run"):
        store.get("0" * 22)
    assert store.of("bob") == []
    assert len(job.id) >= 20 and "ann" not in (job.folder / "job.json").read_text()


def test_the_queue_tells_positions_and_a_waiting_job_can_leave_it(store):
    first = store.start("ann", [replace(CONFIG, steps=5000)])
    second, third = store.start("bob", [CONFIG]), store.start("cy", [CONFIG])
    until(lambda: first.phase == "running")
    assert (store.position(first), store.position(second), store.position(third)) == (0, 1, 2)
    store.stop(second.id, "bob")
    assert second.phase == "stopped"
    assert store.position(third) == 1
    store.stop(first.id, "ann")
    until(over(third))
    assert third.phase == "finished"


def test_limits(store):
    store.start("ann", [replace(CONFIG, steps=5000)])
    until(lambda: not store._queue)
    with pytest.raises(InputError, match="under way"):
        store.start("ann", [CONFIG])
    for name in ("b", "c", "d"):
        store.start(name, [CONFIG])
    with pytest.raises(InputError, match="3 runs are waiting"):
        store.start("e", [CONFIG])
    with pytest.raises(InputError, match="runs here"):
        store.start("f", [CONFIG] * 16)


def test_a_failure_is_one_sentence_and_the_worker_goes_on(store):
    bad = store.start("ann", [replace(CONFIG, seed=14)])
    worse = store.start("bob", [replace(CONFIG, seed=13)])
    good = store.start("cy", [CONFIG])
    until(over(good))
    assert (bad.phase, bad.reason) == ("failed", "the model is a file: give the folder that holds it")
    assert (worse.phase, worse.reason) == ("failed", "RuntimeError: the loss fell off the table")
    assert good.phase == "finished"


def test_a_race_takes_the_lanes_in_turn(store):
    job = store.start("ann", [CONFIG, replace(CONFIG, method="grzo")], "race")
    until(over(job))
    order = [number for number, event in job.log if isinstance(event, StepDone)]
    assert order[:6] == [0, 1, 0, 1, 0, 1]
    assert [lane.view.steps for lane in job.lanes] == [6, 6]


def test_a_lane_that_fails_leaves_the_others_running(store):
    """A race goes on without it and says why; only a race that lost every lane has failed."""
    good, bad, worse = replace(CONFIG, method="grzo"), replace(CONFIG, seed=13), replace(CONFIG, seed=14)
    job = store.start("ann", [bad, good, worse], "race")
    until(over(job))
    assert (job.phase, [lane.view.steps for lane in job.lanes]) == ("finished", [0, 6, 0])
    assert f"{bad.method} dropped out: RuntimeError: the loss fell off the table" in job.reason
    again = read_job(job.folder)
    assert again is not None
    assert [lane.problem for lane in again.lanes] == [lane.problem for lane in job.lanes]
    shown = standings.table(job.lanes, "grzo")
    assert shown.count("Dropped out") == 2 and "alone came to its end" in shown
    gone = store.start("bob", [replace(CONFIG, seed=15), good], "race")
    until(over(gone))
    assert gone.phase == "finished" and gone.lanes[0].problem == "failed after step 6"
    lost = store.start("bob", [bad, worse], "race")
    until(over(lost))
    assert lost.phase == "failed" and "fell off the table" in lost.reason


def test_who_sees_that_a_race_is_over_finds_its_reasons_on_disk(store, monkeypatch):
    """Phase and reasons are written together before the phase is shown."""
    seen = []
    write = Job._write

    def watched(job, phase, reason):
        write(job, phase, reason)
        seen.append((phase, job.phase, [lane.problem for lane in read_job(job.folder).lanes]))

    monkeypatch.setattr(Job, "_write", watched)
    job = store.start("ann", [replace(CONFIG, seed=13), replace(CONFIG, seed=14)], "race")
    until(over(job))
    phase, shown, problems = seen[-1]
    assert (phase, shown) == ("failed", "loading")
    assert all(problems)


def test_a_resumed_exhibit_starts_over(store, monkeypatch):
    """An exhibit cannot go on: what it did before is dropped, and its recording is whole again."""
    monkeypatch.setattr("app.jobs.lanes.broken", lambda name: lambda config, stop, recording: toy(config, stop))
    job = store.start("ann", [replace(CONFIG, steps=5000)], "lr")
    until(lambda: job.lane.view.steps > 3)
    store.stop(job.id, "ann")
    until(over(job))
    store.resume(job.id, "ann")
    until(lambda: job.phase == "running")
    store.stop(job.id, "ann")
    until(over(job))
    found = examine(job.lane.folder)
    assert found.damage is None and found.steps[0].step == 1
    assert [point.place.steps for point in job.lane.view.points] == [event.step for event in found.steps]


def test_a_run_tells_the_seconds_of_its_steps_without_a_page(store):
    """What a step took is remembered whether or not somebody watches."""
    config = replace(CONFIG, steps=12)
    assert store.speeds.seconds(config) is None
    job = store.start("ann", [config])
    until(over(job))
    assert store.speeds.seconds(config) == pytest.approx(0.01)


def test_a_restart_marks_what_was_under_way_and_offers_to_resume(tmp_path):
    root = tmp_path / "runs"
    first = JobStore(root, launch=launcher(toy))
    job = first.start("ann", [replace(CONFIG, steps=300)])
    done = first.start("bob", [CONFIG])
    until(lambda: job.lane.view.steps > 5)
    cut = tmp_path / "after the crash"
    shutil.copytree(root, cut)  # what a killed server leaves behind
    first.close()
    second = JobStore(cut, launch=launcher(toy))
    again = second.mine(job.id, "ann")
    assert (again.phase, again.reason) == ("interrupted", "the server was restarted")
    assert again.lane.view.steps > 5
    assert second.mine(done.id, "bob").phase == "interrupted"
    second.resume(job.id, "ann")
    until(over(again), 20)
    assert again.phase == "finished"
    assert [point.place.steps for point in again.lane.view.points] == list(range(1, 301))
    second.close()


def test_abandoned_jobs_are_reaped_and_finished_ones_leave_memory_but_not_the_disk(tmp_path):
    store = JobStore(tmp_path, Limits(abandoned=0.2, resident=0.0), launch=launcher(toy))
    job = store.start("ann", [replace(CONFIG, steps=5000)])
    until(over(job))
    assert job.stopped_by.startswith("the server")
    time.sleep(0.02)
    store.reap()
    assert job.log == [] and job.lane.events == []
    assert store.get(job.id).lane.view.steps > 0
    store.close()


def test_a_time_limit_ends_a_job(tmp_path):
    store = JobStore(tmp_path, Limits(seconds=0.1), launch=launcher(toy))
    job = store.start("ann", [replace(CONFIG, steps=5000)])
    until(over(job))
    assert job.phase == "stopped" and "time limit" in job.stopped_by
    store.close()


def test_a_view_from_disk_equals_the_live_one(store):
    job = store.start("ann", [CONFIG])
    until(over(job))
    live = job.lane.view
    job.lane.load()
    assert job.lane.view.points == live.points
    assert View.of(job.lane.events).end == live.end


def test_a_real_run_leaves_no_mode_behind_in_any_thread(tmp_path):
    store = JobStore(tmp_path / "runs")
    state = torch.get_rng_state()
    job = store.start(
        "ann", [RunConfig(model=str(tiny.save(tmp_path / "model", "llama")), steps=3, eval_examples=4, lr=1e-4)]
    )
    modes: set[bool] = set()
    while not job.over:
        thread = threading.Thread(target=lambda: modes.add(torch.is_grad_enabled()))
        thread.start()
        thread.join()
        modes.add(torch.is_grad_enabled())
        time.sleep(0.01)
    store.close()
    assert job.phase == "finished", job.reason
    assert modes == {True}
    assert torch.equal(state, torch.get_rng_state())


def test_a_search_that_is_stopped_is_a_stop_and_one_that_finds_nothing_a_failure(tmp_path):
    """Neither has a header; the sentence tells them apart."""

    def searching(config, stop, recording):
        while not stop() and config.steps > 1:
            time.sleep(0.005)
        raise InputError("stopped before a learning rate was found" if stop() else "--lr auto found no rate")
        yield

    store = JobStore(tmp_path / "runs", Limits(), launch=launcher(searching))
    job = store.start("ann", [replace(CONFIG, lr=None, auto_lr=True)])
    until(lambda: job.phase == "loading")
    store.stop(job.id, "ann")
    until(over(job))
    assert job.phase == "stopped"
    job = store.start("ann", [replace(CONFIG, lr=None, auto_lr=True, steps=1)])
    until(over(job))
    assert (job.phase, job.reason) == ("failed", "--lr auto found no rate")
    store.close()
