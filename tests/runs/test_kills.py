"""Killed again and again at random instants, header writes among them, everything ends as if nothing had happened."""

import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from app.jobs.store import JobStore
from tests.support.kills import Blow, survives
from tests.support.recordings import lines_of, recorded
from tests.support.short_runs import settings
from zocore.cli import main
from zocore.compare import lanes, run_race
from zocore.runs.events import StepDone
from zocore.runs.loop import run
from zocore.runs.recording import EVENTS, asked, begun, claim, examine, record
from zocore.runs.replay import export_run

pytestmark = pytest.mark.slow
CONFIG = settings(method="grzo", update="adam", steps=12, eval_every=4)
MOST = 5  # kills of one run, so that each comes to its end
# kills in all: of runs, exports, races and the page's jobs
COUNTS = [
    pytest.param((4, 2, 2, 2), id="10"),
    pytest.param((110, 30, 30, 30), id="200", marks=pytest.mark.soak),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody killed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    claim(folder, CONFIG)
    list(record(run(CONFIG), folder))
    return folder


def seconds_of(work: Callable[[], object], log: Path) -> float:
    """How long work takes when nobody kills it."""
    started = time.monotonic()
    assert survives(work, None, log)
    return time.monotonic() - started


def start(folder: Path) -> int:
    """What a person does to bring a run to its end: `resume` where anything was noted, `train` otherwise."""
    if begun(folder) or asked(folder):
        end = examine(folder).end if begun(folder) else None
        return 0 if end and end.status == "finished" else main(["resume", str(folder)])
    claim(folder, CONFIG)
    list(record(run(CONFIG), folder))
    return 0


def kill_runs(whole: Path, tmp_path: Path, kills: int, rng: Random) -> None:
    """Runs are killed up to five times each; every recording between is good, every end bitwise the same."""
    size, log = (whole / EVENTS).stat().st_size, tmp_path / "log"
    seconds = seconds_of(lambda: start(tmp_path / "timed"), log)
    steps = [event.loss for event in examine(whole).steps]
    end, number = examine(whole).end, 0
    assert end is not None
    while kills:
        number += 1
        folder = tmp_path / f"run-{number}"
        for _ in range(min(MOST, kills)):
            if survives(lambda folder=folder: start(folder), Blow.random(rng, seconds, size), log):  # type: ignore[misc]
                break
            kills -= 1
            if begun(folder):
                found = examine(folder)
                assert found.damage is None, found.damage
                assert [event.loss for event in found.steps] == steps[: found.last]
        assert survives(lambda folder=folder: start(folder), None, log)  # type: ignore[misc]
        again = examine(folder)
        assert again.sealed and again.end is not None
        assert again.end.weights_fingerprint == end.weights_fingerprint
        assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
        shutil.rmtree(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def kill_exports(whole: Path, tmp_path: Path, kills: int, rng: Random) -> None:
    """The target of an export is there whole or not at all, and the next export writes the same files."""
    log, to = tmp_path / "log", tmp_path / "to"
    seconds = seconds_of(lambda: bool(export_run(whole, tmp_path / "first", None, False)) - 1, log)
    first = contents(tmp_path / "first")
    size = max(map(len, first.values()))
    while kills:
        blow = Blow.random(rng, seconds, size)
        done = survives(lambda: bool(export_run(whole, to, None, False)) - 1, blow, log)
        kills -= not done
        assert not to.exists() or contents(to) == first
        if rng.random() < 0.5 and not to.exists():
            assert survives(lambda: bool(export_run(whole, to, None, False)) - 1, None, log)
            assert contents(to) == first
        shutil.rmtree(to, ignore_errors=True)


def race(out: Path) -> int:
    """A race of three runs, one of them of a method that cannot be replayed."""
    entered = lanes(settings(), ("mezo", "grzo", "sgd"), [0], 12.0)
    if not (out / "race.json").exists():
        list(run_race(entered, out))
    return 0


def kill_races(tmp_path: Path, kills: int, rng: Random) -> None:
    """The same command again and again: the table at the end is that of a race nobody killed."""
    log = tmp_path / "log"
    seconds = seconds_of(lambda: race(tmp_path / "first"), log)
    same = ("method", "steps", "forward_cost", "accuracy", "loss", "runs", "failed")
    table = [[row[name] for name in same] for row in json.loads((tmp_path / "first" / "race.json").read_text())]
    size, number = 8000, 0
    while kills:
        number += 1
        out = tmp_path / f"race-{number}"
        for _ in range(min(MOST, kills)):
            if survives(lambda out=out: race(out), Blow.random(rng, seconds, size), log):  # type: ignore[misc]
                break
            kills -= 1
        assert survives(lambda out=out: race(out), None, log)  # type: ignore[misc]
        found = json.loads((out / "race.json").read_text())
        assert [[row[name] for name in same] for row in found] == table
        shutil.rmtree(out)


def serve(root: Path) -> int:
    """The page's job: begun, or found again after a restart and resumed, until it is over.

    Where the blow struck the child that does the run, this process goes the same way: that is a kill too.
    """
    store = JobStore(root)
    jobs = store.of("ann")
    job = jobs[0] if jobs else store.start("ann", [CONFIG])
    if job.over and job.phase != "finished":
        store.resume(job.id, "ann")
    while not job.over:
        time.sleep(0.005)
    store.close()
    if job.phase != "finished":
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


def kill_jobs(whole: Path, tmp_path: Path, kills: int, rng: Random) -> None:
    """A server that is killed finds its job again, and the job ends with the same weights."""
    log, end = tmp_path / "log", examine(whole).end
    seconds = seconds_of(lambda: serve(tmp_path / "first"), log)
    size, number = (whole / EVENTS).stat().st_size, 0
    while kills:
        number += 1
        root = tmp_path / f"jobs-{number}"
        for _ in range(min(MOST, kills)):
            if survives(lambda root=root: serve(root), Blow.random(rng, seconds, size), log):  # type: ignore[misc]
                break
            kills -= 1
        assert survives(lambda root=root: serve(root), None, log)  # type: ignore[misc]
        (lane,) = root.glob("*/lane-0")
        again = examine(lane)
        assert again.end is not None and end is not None and again.sealed
        assert again.end.weights_fingerprint == end.weights_fingerprint
        shutil.rmtree(root)


@pytest.mark.parametrize("counts", COUNTS)
def test_killed_at_any_instant_everything_goes_on(
    counts: tuple[int, int, int, int], whole: Path, tmp_path: Path
) -> None:
    """At random seconds and random bytes: runs, exports, races and jobs end bitwise as without a kill."""
    runs, exports, races, jobs = counts
    kill_runs(whole, tmp_path, runs, Random(0))
    kill_exports(whole, tmp_path, exports, Random(1))
    kill_races(tmp_path, races, Random(2))
    kill_jobs(whole, tmp_path, jobs, Random(3))


def test_a_full_disk_under_the_recording_is_one_sentence_and_the_run_goes_on(whole: Path, tmp_path: Path) -> None:
    """Where no more can be written the command says so; with room again, `resume` ends as if nothing had happened."""
    log, end = tmp_path / "log", examine(whole).end
    for byte in (300, 2500, 5000):
        folder = tmp_path / f"full-{byte}"

        def train(folder: Path = folder, byte: int = byte) -> int:
            claim(folder, CONFIG)
            sys.stderr = log.open("w", buffering=1)  # the tests' own is no file of this process
            resource.setrlimit(resource.RLIMIT_FSIZE, (byte, resource.RLIM_INFINITY))  # a write beyond it fails
            return main(["resume", str(folder)]) - 2

        assert survives(train, None, log)
        assert log.read_text().startswith("zocore: ")
        assert survives(lambda folder=folder: start(folder), None, log)  # type: ignore[misc]
        again = examine(folder).end
        assert again is not None and end is not None and again.weights_fingerprint == end.weights_fingerprint


def test_a_kill_within_every_byte_of_the_header(tmp_path: Path) -> None:
    """Each twentieth byte of the first line, the first and the last among them: the run goes on from all of them."""
    recorded(tmp_path / "whole")
    header = len(lines_of(tmp_path / "whole")[0])
    config, log = settings(), tmp_path / "log"
    steps = [event.loss for event in examine(tmp_path / "whole").steps]

    def train(folder: Path) -> int:
        claim(folder, config)
        list(record(run(config), folder))
        return 0

    for byte in sorted({1, 2, *range(3, header, header // 12), header - 1, header}):
        folder = tmp_path / f"killed-{byte}"
        assert not survives(lambda folder=folder: train(folder), Blow(byte=byte), log)  # type: ignore[misc]
        if asked(folder) is None:
            claim(folder, config)
        assert survives(lambda folder=folder: main(["resume", str(folder)]), None, log)  # type: ignore[misc]
        again = examine(folder)
        assert [event.loss for event in again.events if isinstance(event, StepDone)] == steps
