"""zocore: zeroth-order fine-tuning of language models, from forward passes alone.

Read `methods.py` first, then the rooms in this order: step, noise, directions, carriers; then runs.
`run(RunConfig(...))` is the whole engine as one generator of events.

    from zocore import RunConfig, run
    for event in run(RunConfig(method="grzo", steps=100)):
        print(event)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zocore.config import RunConfig
    from zocore.errors import InputError
    from zocore.memory.bill import bill, bills
    from zocore.memory.shapes import shape_of
    from zocore.methods import METHODS, build
    from zocore.optimizer import ZeroOrder
    from zocore.runs.delta import open_delta
    from zocore.runs.events import EvalDone, Event, RunEnded, RunStarted, StepDone
    from zocore.runs.loop import run
    from zocore.runs.opening import open_session
    from zocore.runs.predict import predictions
    from zocore.runs.rebuilding import replay
    from zocore.runs.recording import claim, read_recording, record
    from zocore.runs.replay import export_run, rebuild
    from zocore.runs.session import Session
    from zocore.runs.timeline import open_timeline
    from zocore.step.step import Method

# imported when first asked for: torch and transformers take seconds, and few programs need all of this
_HOMES = {
    "config": ("RunConfig",),
    "errors": ("InputError",),
    "memory.bill": ("bill", "bills"),
    "memory.shapes": ("shape_of",),
    "methods": ("METHODS", "build"),
    "optimizer": ("ZeroOrder",),
    "runs.delta": ("open_delta",),
    "runs.events": ("EvalDone", "Event", "RunEnded", "RunStarted", "StepDone"),
    "runs.loop": ("run",),
    "runs.opening": ("open_session",),
    "runs.predict": ("predictions",),
    "runs.rebuilding": ("replay",),
    "runs.recording": ("claim", "read_recording", "record"),
    "runs.replay": ("export_run", "rebuild"),
    "runs.session": ("Session",),
    "runs.timeline": ("open_timeline",),
    "step.step": ("Method",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "METHODS",
    "EvalDone",
    "Event",
    "InputError",
    "Method",
    "RunConfig",
    "RunEnded",
    "RunStarted",
    "Session",
    "StepDone",
    "ZeroOrder",
    "bill",
    "bills",
    "build",
    "claim",
    "export_run",
    "open_delta",
    "open_session",
    "open_timeline",
    "predictions",
    "read_recording",
    "rebuild",
    "record",
    "replay",
    "run",
    "shape_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'zocore' has no attribute {name!r}")
    return getattr(import_module(f"zocore.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
