"""zocore: zeroth-order fine-tuning of language models, from forward passes alone.

Read `methods.py` first, then the rooms in this order: step, noise, directions, carriers; then runs.
`run(RunConfig(...))` is the whole engine as one generator of events.
"""

from zocore.config import RunConfig
from zocore.methods import METHODS, build
from zocore.runs.events import Event
from zocore.runs.loop import replay, run
from zocore.runs.recording import claim, read_recording, record
from zocore.step.step import Method

__all__ = ["METHODS", "Event", "Method", "RunConfig", "build", "claim", "read_recording", "record", "replay", "run"]
