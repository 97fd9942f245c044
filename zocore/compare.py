"""Methods side by side: the same seeds, batches and budget, so that a cheap step does not look like a good one."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from zocore.config import RunConfig, flag
from zocore.errors import InputError
from zocore.methods import METHODS
from zocore.runs.events import EvalDone, Event, RunEnded, StepDone
from zocore.runs.loop import run
from zocore.runs.opening import open_session
from zocore.runs.recording import EVENTS, Recording, begun, claim, read_recording, record
from zocore.runs.session import most_steps
from zocore.runs.summary import write_text
from zocore.step.step import Backprop
from zocore.tables import markdown

TABLE = "race.json"
Unit = Literal["forward_cost", "forward_passes"]


@dataclass(frozen=True)
class Lane:
    """One run of a race."""

    method: str
    seed: int
    config: RunConfig  # with the steps that the budget buys


@dataclass(frozen=True)
class Standing:
    """What a method reached with the budget: means over the seeds that finished, and how many did not."""

    method: str
    lr: float
    steps: int
    forward_passes: float
    forward_cost: float
    seconds: float  # of training on this machine
    forward_seconds: float  # of these, inside the model; the others are noise and updates
    accuracy: tuple[float, float]  # mean and standard deviation over the seeds (0 for one seed)
    loss: tuple[float, float]
    accuracy_before: float
    runs: int  # started
    failed: int  # of these, runs that did not finish: they are in no mean


def lanes(
    config: RunConfig,
    methods: Sequence[str],
    seeds: Sequence[int],
    budget: float,
    unit: Unit = "forward_cost",
    lrs: Mapping[str, float] | None = None,
) -> list[Lane]:
    """Return the runs of a race, each with as many steps as the budget buys.

    Methods take their own default learning rates but for those in `lrs`. Raises InputError for an unknown
    method or when the budget does not buy a step.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise InputError(f"unknown method {unknown[0]!r}: choose among {', '.join(METHODS)}")
    if config.auto_lr:
        raise InputError(
            "a race takes presets, or rates by --lrs: `zocore tournament` looks for them, by one rule for all"
        )
    idle = [name for name in lrs or {} if name not in methods]
    if idle:
        raise InputError(f"there is a learning rate for {idle[0]!r}, which is not in the race")
    if not isfinite(budget):
        raise InputError(f"the budget must be a number, not {budget}")
    runs: list[Lane] = []
    for method in dict.fromkeys(methods):
        lane = replace(config, method=method, lr=(lrs or {}).get(method, config.lr))
        session = open_session(lane)
        price = session.cost_of if unit == "forward_cost" else session.method.forward_passes
        runs += buy(lane, seeds, budget, most_steps(budget, price), price(1), unit)
    return runs


def buy(config: RunConfig, seeds: Sequence[int], budget: float, steps: int, price: float, unit: Unit) -> list[Lane]:
    """Return one run for each seed, of the steps that the budget buys; the first of them costs `price`.

    Raises InputError when it buys none.
    """
    if steps < 1:
        title, words = METHODS[config.method].title, unit.replace("_", " ")
        raise InputError(f"a budget of {budget:g} ({words}) does not buy one step of {title}, which takes {price:g}")
    return [Lane(config.method, seed, replace(config, steps=steps, seed=seed)) for seed in dict.fromkeys(seeds)]


def race(lanes: Sequence[Lane], stop: Callable[[], bool] = lambda: False) -> Iterator[tuple[Lane, Event]]:
    """Run the lanes one after the other and yield their events; a lane that fails does not end the race."""
    for lane in lanes:
        yield from ((lane, event) for event in _run(lane, stop))
        if stop():
            return


def _run(lane: Lane, stop: Callable[[], bool], recording: Recording | None = None) -> Iterator[Event]:
    """The events of a lane, or of the rest of it; a failure that was told is not raised."""
    failed = False
    try:
        for event in run(recording.config if recording else lane.config, stop, recording):
            failed = isinstance(event, RunEnded) and event.status == "failed"
            yield event
    except Exception:
        if not failed:
            raise


def standings(events: Sequence[tuple[Lane, Event]]) -> list[Standing]:
    """Return one standing per method, in the order of the race."""
    by_method: dict[str, dict[int, list[Event]]] = {}
    for lane, event in events:
        by_method.setdefault(lane.method, {}).setdefault(lane.seed, []).append(event)
    return [_standing(method, list(runs.values())) for method, runs in by_method.items()]


def _standing(method: str, runs: Sequence[Sequence[Event]]) -> Standing:
    finished = [events for events in runs if _ended(events)]
    tests = [[e for e in events if isinstance(e, EvalDone) and e.split == "test"] for events in finished]
    last = [[e for e in events if isinstance(e, StepDone)][-1] for events in finished]
    first_lr = next((e.lr for events in runs for e in events if isinstance(e, StepDone)), float("nan"))
    return Standing(
        method,
        first_lr,
        max((step.step for step in last), default=0),
        _mean([step.forward_passes for step in last]),
        _mean([step.forward_cost for step in last]),
        _mean([step.seconds for step in last]),
        _mean([step.forward_seconds for step in last]),
        _spread([evals[-1].accuracy for evals in tests]),
        _spread([evals[-1].loss for evals in tests]),
        _mean([evals[0].accuracy for evals in tests]),
        len(runs),
        len(runs) - len(finished),
    )


def _ended(events: Sequence[Event]) -> bool:
    return any(isinstance(event, RunEnded) and event.status == "finished" for event in events)


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else float("nan")


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return _mean(values), stdev(values) if len(values) > 1 else 0.0


def render(table: Sequence[Standing]) -> str:
    """Return the standings as a Markdown table."""
    head = ["method", "lr", "steps", "forward passes", "forward cost", "seconds", "of these noise and update", "runs"]
    return markdown([*head, "held-out accuracy", "loss"], [_row(standing) for standing in table])


def _row(s: Standing) -> list[str]:
    counts = [f"{s.lr:g}", f"{s.steps}", f"{s.forward_passes:.0f}", f"{s.forward_cost:.0f}"]
    seconds = [f"{s.seconds:.1f}", f"{s.seconds - s.forward_seconds:.1f}"]
    runs = f"{s.runs - s.failed} of {s.runs}: {s.failed} failed" if s.failed else f"{s.runs}"
    accuracy = f"{s.accuracy_before:.3f} -> {s.accuracy[0]:.3f} ± {s.accuracy[1]:.3f}"
    return [s.method, *counts, *seconds, runs, accuracy, f"{s.loss[0]:.4f} ± {s.loss[1]:.4f}"]


def run_race(lanes: Sequence[Lane], out: Path, stop: Callable[[], bool] = lambda: False) -> Iterator[str]:
    """Run a race, record each run under `out`, and yield a line per run, then the table, which is stored too.

    A race that was cut off goes on: runs that finished are kept, others go on where their recordings end.
    Raises InputError when `out` holds a whole race already, or runs with other settings.
    """
    recorded = {lane: _so_far(lane, _folder(out, lane)) for lane in lanes}
    if (out / TABLE).exists() and all(_finished(recording) for recording in recorded.values()):
        raise InputError(f"{out} already holds a race: choose another --out")
    events: list[tuple[Lane, Event]] = []
    for lane, recording in recorded.items():
        own = list(recording.events) if recording else []
        if not _finished(recording):
            if recording is not None and isinstance(METHODS[lane.method].build(), Backprop):
                (_folder(out, lane) / EVENTS).unlink()  # gradients are not recorded: it begins anew
                own, recording = [], None
            if recording is None:
                claim(_folder(out, lane), lane.config)
            own += record(_run(lane, stop, recording), _folder(out, lane))
        events += [(lane, event) for event in own]
        yield f"{lane.method}, seed {lane.seed}: {_outcome(own[-1])}"
        if stop():
            yield "stopped: the table below holds the runs that finished; the same command goes on with the others"
            break
    table = standings(events)
    write_text(out / TABLE, json.dumps([asdict(standing) for standing in table], indent=2) + "\n")
    write_text(out / "table.md", render(table) + "\n")
    yield from ["", render(table), "", f"race folder: {out}"]


def _folder(out: Path, lane: Lane) -> Path:
    return out / f"{lane.method}-seed{lane.seed}"


def _finished(recording: Recording | None) -> bool:
    return recording is not None and recording.end is not None and recording.end.status == "finished"


def _so_far(lane: Lane, folder: Path) -> Recording | None:
    """What is recorded of a lane. Raises InputError when it is another run than the lane's."""
    if not begun(folder):
        return None
    recording = read_recording(folder)
    settings = recording.header.config
    for name, value in lane.config.to_json().items():
        if value not in (None, "auto") and settings.get(name, value) != value:
            raise InputError(
                f"{folder} holds a run with {flag(name)} {settings[name]}, not {value}: choose another --out"
            )
    return recording


def _outcome(last: Event) -> str:
    return f"{last.status}, {last.reason}" if isinstance(last, RunEnded) else "no end"
