"""The standings of a race at equal cost, as a table in words and numbers."""

import math
from collections.abc import Sequence
from html import escape

from app.charts import plots
from app.jobs.job import Lane
from zocore import compare as engine

COLUMNS = (
    "Method",
    "lr",
    "Steps",
    "Forward passes",
    "Plain forwards' worth",
    "Seconds",
    "Test accuracy",
    "Test loss",
)
T = {2: 4.3, 3: 2.78, 4: 2.45, 5: 2.31}  # two-sided 95 % of Student's t for 2 (n - 1) degrees of freedom


def table(lanes: Sequence[Lane], guess: str | None) -> str:
    """Return the lanes at equal cost as a table, lowest loss first, with those that dropped out below."""
    events = [
        (engine.Lane(lane.config.method, lane.config.seed, lane.config), e) for lane in lanes for e in lane.events
    ]
    lanes_done = [one for one in engine.standings(events) if one.steps and math.isfinite(one.loss[0])]
    if not lanes_done:
        return f"{_lost(lanes)}<p class='zo-quiet'>No lane came to its end, so there is nothing to compare.</p>"
    ranked = sorted(lanes_done, key=lambda one: one.loss[0])
    seeds = min(sum(lane.config.method == one.method and not lane.problem for lane in lanes) for one in ranked)
    rows = "".join(_row(one, one is ranked[0]) for one in ranked)
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    place = '<div class="zo-table zo-standings" tabindex="0" role="region" aria-label="Standings">'
    return f"{_verdict(ranked, seeds, guess)}{place}{body}</div>{_lost(lanes)}"


def _lost(lanes: Sequence[Lane]) -> str:
    """The lanes that dropped out, and why."""
    notes = (f"{plots.title(one.config.method)}: {one.problem}" for one in lanes if one.problem)
    return "".join(f'<p class="zo-warning">Dropped out: {escape(note)}</p>' for note in notes)


def _row(one: engine.Standing, best: bool) -> str:
    hue = plots.colour(one.method)
    chip = f'<i class="zo-key" style="background:{"currentColor" if hue == plots.INK else hue}"></i>'
    spread = [f" ± {value[1]:.3f}" if value[1] else "" for value in (one.accuracy, one.loss)]
    cells = [
        f"{chip}{escape(plots.title(one.method))}{' · lowest loss' if best else ''}",
        f"{one.lr:.2g}",
        f"{one.steps:,}",
        f"{one.forward_passes:,.0f}",
        f"{one.forward_cost:,.0f}",
        f"{one.seconds:.1f}",
        f"{one.accuracy_before:.3f} → {one.accuracy[0]:.3f}{spread[0]}",
        f"{one.loss[0]:.4f}{spread[1]}",
    ]
    named = zip(COLUMNS, cells, strict=True)  # on a narrow screen each cell says its own name
    return "<tr>" + "".join(f'<td data-name="{escape(name)}">{cell}</td>' for name, cell in named) + "</tr>"


def _verdict(ranked: Sequence[engine.Standing], seeds: int, guess: str | None) -> str:
    """Who won, as far as the seeds can tell, and what was guessed."""
    names = [f"<b>{plots.title(one.method)}</b>" for one in ranked]
    tied = [name for name, one in zip(names, ranked, strict=True) if not _clear(ranked[0], one, seeds)]
    if len(ranked) == 1:
        verdict = f"{names[0]} alone came to its end."
    elif seeds < 2:
        verdict = f"{names[0]} has the lowest loss of this one seed, which can be luck: take three seeds to know."
    elif len(tied) > 1:
        verdict = f"No clear winner: {' and '.join(tied)} are closer than the seeds are to each other."
    else:
        verdict = f"{names[0]} has the lowest loss, by more than the seeds can explain."
    mine = f"You said {plots.title(guess)}. " if guess else ""
    return f"<p>{mine}{verdict}</p>"


def _clear(best: engine.Standing, other: engine.Standing, seeds: int) -> bool:
    """Whether the losses differ by more than the seeds explain: Welch's test at 95 %, with as many seeds a side."""
    if seeds < 2:
        return other is not best
    error = math.sqrt((best.loss[1] ** 2 + other.loss[1] ** 2) / seeds)
    return other.loss[0] - best.loss[0] > T[min(seeds, max(T))] * error
