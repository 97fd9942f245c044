"""What a frozen prefix saves, on a model and data of one's own: steps per second without it and with it.

Three ways to do the same steps, interleaved, one thread, medians of CPU time: every pass through the whole model;
the frozen blocks run once a step, as in the first pass over the data; their outputs kept, as in all later ones.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles

from zocore.bench.bench import one_thread
from zocore.config import RunConfig
from zocore.runs.opening import open_session
from zocore.runs.session import Session

BATCHES = 3  # different ones, in turns


@dataclass(frozen=True)
class Saving:
    """A method on some last blocks: seconds of each step by each way to do it, and its cost in plain forwards."""

    method: str
    subspace: str
    seconds: Mapping[str, Sequence[float]]
    cost: Mapping[str, float]


def saving(config: RunConfig, repeats: int = 15) -> Saving:
    """Time the steps of a run on last blocks. Raises ValueError when its subspace leaves no block frozen."""
    session = open_session(config)
    count, size = len(session.task.train), session.config.batch_size
    first = -(-count // size) + 1  # the first step whose examples were all drawn before
    long = replace(session.config, steps=first + BATCHES)
    ways = {
        "whole": replace(session, prefix=None),
        "once a step": replace(session, config=replace(long, prefix_gib=0.0)),
        "kept": replace(session, config=long),
    }
    kept = ways["kept"].kept
    if kept is None:
        raise ValueError(f"the subspace {config.subspace!r} leaves no block frozen: try top:1")
    if not kept.fits:
        raise ValueError("the outputs of the frozen blocks do not fit --prefix-gib: give more")
    with one_thread():
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for repeat in range(-BATCHES, repeats):
            for name, way in ways.items():
                seconds = _step(way, first + repeat % BATCHES)
                if repeat >= 0:  # the first rounds warm caches and keep what the first pass would have kept
                    taken[name].append(seconds)
    share, passes = kept.prefix.share, ways["kept"].cost_of(1) - kept.prefix.share
    cost = {"whole": ways["whole"].cost_of(1), "once a step": passes + share, "kept": passes}
    return Saving(config.method, config.subspace, taken, cost)


def render(savings: Sequence[Saving]) -> str:
    """Return the savings as a Markdown table of medians, the middle half of the rounds in brackets."""
    rows = ["| method | moves | steps/s, whole model | prefix once a step | prefix kept |", "|---|---|---|---|---|"]
    for one in savings:
        plain = median(one.seconds["whole"])
        cells = [f"{_pace(seconds)}, {plain / median(seconds):.2f} x" for seconds in one.seconds.values()]
        cells_with_cost = [f"{cell}, cost {cost:.2f}" for cell, cost in zip(cells, one.cost.values(), strict=True)]
        rows.append(" | ".join([f"| {one.method}", one.subspace, *cells_with_cost]) + " |")
    return "\n".join(rows)


def _pace(seconds: Sequence[float]) -> str:
    """Steps a second, median and middle half."""
    paces = [1 / one for one in seconds]
    low, middle, high = quantiles(paces, n=4, method="inclusive") if len(paces) > 1 else paces * 3
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _step(session: Session, number: int) -> float:
    assert session.config.eps is not None
    started = time.process_time()
    losses, key, lr = session.losses(number), session.key(number), session.lr(number)
    session.method.step(session.leaves, losses, key, lr, session.config.eps, session.state)
    return time.process_time() - started
