"""The standings of a race at equal cost, as a table in words and numbers."""

import math
from collections.abc import Sequence
from html import escape

from app.charts import plots
from app.jobs.job import Lane
from zocore import compare as engine


def table(lanes: Sequence[Lane], guess: str | None) -> str:
    """Return the lanes at equal cost as a table, lowest loss first, with those that dropped out below."""
    events = [
        (engine.Lane(lane.config.method, lane.config.seed, lane.config), e) for lane in lanes for e in lane.events
    ]
    found = [one for one in engine.standings(events) if one.steps and math.isfinite(one.loss[0])]
    if not found:
        return f"{_lost(lanes)}<p class='zo-quiet'>No lane came to its end, so there is nothing to compare.</p>"
    best = min(found, key=lambda one: one.loss[0])
    rows = "".join(_row(one, one is best) for one in sorted(found, key=lambda one: one.loss[0]))
    names = (
        "Method",
        "lr",
        "Steps",
        "Forward passes",
        "Plain forwards' worth",
        "Seconds",
        "Test accuracy",
        "Test loss",
    )
    head = "".join(f"<th>{name}</th>" for name in names)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    place = '<div class="zo-table zo-standings" tabindex="0" role="region" aria-label="Standings">'
    return f"{_verdict(best.method, guess)}{place}{body}</div>{_lost(lanes)}"


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
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _verdict(best: str, guess: str | None) -> str:
    if not guess:
        return f"<p><b>{plots.title(best)}</b> has the lowest loss.</p>"
    right = "You were right" if guess == best else f"You said {plots.title(guess)}"
    return f"<p>{right}: <b>{plots.title(best)}</b> has the lowest loss.</p>"
