"""How long a step takes on this machine: measured in each run's warm-up or on request, and remembered."""

import json
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from zocore.config import RunConfig
from zocore.defaults import before_loading
from zocore.runs.events import Event, StepDone
from zocore.runs.loop import run

COLD, WARM = 3, 8  # steps: up to the first, things are compiled and buffers made; from there to the second is timed
PATIENCE = 30.0  # seconds that a timing on request may take


@dataclass
class Speeds:
    """Seconds per step as measured on this machine, remembered between starts."""

    path: Path
    known: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        try:
            self.known = {str(k): float(v) for k, v in json.loads(self.path.read_text()).items()}
        except (OSError, ValueError, AttributeError):
            self.known = {}

    def learn(self, config: RunConfig, seconds: float) -> None:
        """Remember what a step took."""
        with self._lock:
            self.known[_key(config)] = seconds
            self.path.write_text(json.dumps(self.known, indent=1))

    def seconds(self, config: RunConfig) -> float | None:
        """Return the seconds per step of the same settings, None when they never ran here."""
        return self.known.get(_key(config))

    def near(self, config: RunConfig) -> float | None:
        """Return the seconds per step of the same model and method on other data, as an estimate."""
        start = _key(config).rsplit("|", 1)[0]
        return next((seconds for key, seconds in reversed(self.known.items()) if key.rsplit("|", 1)[0] == start), None)


@dataclass
class Timing:
    """Takes a run's events and tells the seconds per step, once after the warm-up and once after the last step."""

    steps: int  # planned
    cold: float = 0.0  # seconds spent when the steps stopped being cold

    def add(self, event: Event) -> float | None:
        """Return the seconds per step when there is something new to know."""
        if not isinstance(event, StepDone):
            return None
        if event.step == COLD:
            self.cold = event.seconds
        if event.step in (WARM, self.steps) and event.step > COLD and self.cold:
            return (event.seconds - self.cold) / (event.step - COLD)
        return None


def warm_up(config: RunConfig) -> float:
    """Return the seconds per step, found by a few steps whose result is thrown away; at most about half a minute.

    Raises ValueError when the settings cannot work.
    """
    short = replace(config, steps=WARM, eval_every=0, eval_examples=1, measure_every=0, auto_lr=False)
    limit, timing, seconds = time.monotonic() + PATIENCE, Timing(WARM), 0.0
    with closing(run(short, stop=lambda: time.monotonic() > limit)) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, StepDone):
                seconds = timing.add(event) or event.seconds / event.step
    if not seconds:
        raise ValueError(f"not one step was done within {PATIENCE:.0f} s: the model is too slow for this machine")
    return seconds


def _key(config: RunConfig) -> str:
    c = before_loading(config)
    parts = (c.model, c.method, c.subspace, c.rank, c.keep, c.device, c.dtype, c.quantise, c.batch_size, c.max_tokens)
    knobs = (c.directions, c.pool, c.noise, c.data or c.task)
    written = (c.objective, c.max_new_tokens) if c.objective != RunConfig.objective else ()
    return "|".join(map(str, (*parts, *written, *knobs)))
