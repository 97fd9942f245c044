"""An engine without a model, for tests of jobs: one event a step, in a moment."""

import json
import time
from collections.abc import Callable, Iterator

from tests.support.places import RECORDED
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.runs.events import EvalDone, Event, RunEnded, RunStarted, StepDone
from zocore.runs.recording import Recording

HEADER = json.loads(RECORDED.read_text().splitlines()[0])


def toy(config: RunConfig, stop: Callable[[], bool], recording: Recording | None = None) -> Iterator[Event]:
    """An engine without a model: one event a step, a failure when the seed is 13."""
    if config.seed == 14:
        raise InputError("the model is a file: give the folder that holds it")
    facts = {name: value for name, value in HEADER.items() if name not in ("event", "seal")}
    done = len(recording.steps) if recording else 0
    lost = config.seed == 15  # ends on its own, as a run does whose losses are no longer numbers
    yield RunStarted(**facts | {"config": config.to_json(), "resumed_at": done})
    if not done:
        yield EvalDone(0, "test", 0.9, 0.5, 8, 0.0)
    while done < config.steps and not stop():
        time.sleep(0.01)
        if config.seed == 13:
            raise RuntimeError("the loss fell off the table")
        done += 1
        yield StepDone(
            done, 1.0, [1.0], [1.0], [0.0], [0.0], [0], 1e-4, 1e-3, 2 * done, 2.0 * done, done / 100, 100.0, 1
        )
    status = "finished" if done == config.steps else "stopped"
    yield EvalDone(done, "test", 0.4, 0.8, 8, 0.0)
    status = "failed" if lost else status
    yield RunEnded(status, f"{status} after step {done}", done, 2 * done, 2.0 * done, 0.1, 100.0, 1, 0)
