"""Running the lanes of a job in its child process: the lane that has spent least goes next."""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from app.jobs.wire import Happened, Lost, Work
from zocore.config import RunConfig
from zocore.diagnostics.broken_runs import FAULTS, run_broken
from zocore.runs import loop
from zocore.runs.events import Event, RunEnded, StepDone
from zocore.runs.recording import begun, read_recording, record

Stop = Callable[[], bool]
Engine = Callable[..., Iterator[Event]]  # takes settings, a Stop and the recording so far, if there is one
WEIGHTS = "weights.safetensors"  # in a run's folder, where a job keeps them


@dataclass
class _Running:
    """One lane under way."""

    events: Iterator[Event]
    cost: float = 0.0  # spent so far, in plain forwards
    end: RunEnded | None = None


def run_lanes(work: Work, stop: Stop, engine: Engine) -> Iterator[Happened | Lost]:
    """Yield what happens in every lane. A lane of a race that fails leaves the others running.

    Raises what the run raises when there is one lane.
    """
    if work.kind in FAULTS:
        engine = broken(work.kind)

    def events(config: dict[str, Any], folder: Path) -> Iterator[Event]:
        doing = partial(engine, weights=folder / WEIGHTS) if work.weights else engine
        return _events(RunConfig.from_json(config), folder, stop, work.resumed, doing)

    running = {
        number: _Running(events(config, Path(folder)))
        for number, (config, folder) in enumerate(zip(work.configs, work.folders, strict=True))
    }
    alone = len(running) == 1
    try:
        while running:
            number = min(running, key=lambda n: (running[n].cost, n))
            message = _advance(number, running, alone)
            if message is not None:
                yield message
    finally:
        for lane in running.values():
            with suppress(Exception), closing(lane.events):  # type: ignore[type-var]
                pass


def _advance(number: int, running: dict[int, _Running], alone: bool) -> Happened | Lost | None:
    """The next thing that happens in a lane; one that has ended leaves `running`."""
    lane = running[number]
    try:
        event = next(lane.events, None)
    except Exception as error:
        if alone:
            raise
        del running[number]
        return Lost(number, sentence(error))
    if event is None:
        del running[number]
        failed = lane.end is not None and lane.end.status == "failed" and not alone
        return Lost(number, lane.end.reason) if failed and lane.end else None
    if isinstance(event, StepDone):
        lane.cost = event.forward_cost
        event = replace(event, touched=None, responses=None)  # large, and only a replay needs them
    if isinstance(event, RunEnded):
        lane.end = event
    return Happened(number, event)


def sentence(error: Exception) -> str:
    """Return what went wrong; messages about settings and data are for people as they are."""
    return str(error) if isinstance(error, ValueError) else loop.sentence(error)


def broken(name: str) -> Engine:
    """Return the engine of a run that is broken on purpose, which starts anew when it is resumed."""
    return lambda config, stop, recording: run_broken(name, config, stop)


def _events(config: RunConfig, folder: Path, stop: Stop, resumed: bool, engine: Engine) -> Iterator[Event]:
    """The events of a lane as they are recorded, from the start or from where its recording ends."""
    recording = read_recording(folder) if resumed and begun(folder) else None
    if recording is not None and recording.end is not None and recording.end.status == "finished":
        return
    folder.mkdir(parents=True, exist_ok=True)
    yield from record(engine(recording.config if recording else config, stop, recording), folder)
