"""zocore: zeroth-order fine-tuning of language models, from forward passes alone.

Read in this order: methods, method, samplers, difference, shaping, update; then noise, directions, scratch and
flipout; then loop. `run(RunConfig(...))` is the whole engine as one generator of events.
"""

from zocore.config import RunConfig
from zocore.events import Event
from zocore.loop import replay, run
from zocore.method import Method
from zocore.methods import METHODS, build
from zocore.recorder import claim, read_recording, record

__all__ = ["METHODS", "Event", "Method", "RunConfig", "build", "claim", "read_recording", "record", "replay", "run"]
