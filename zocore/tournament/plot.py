"""A plot as SVG: dev loss against forward cost or seconds, one panel a task, median and range over the seeds."""

from collections.abc import Iterable, Sequence
from html import escape
from statistics import median
from typing import Literal

from zocore.methods import METHODS
from zocore.tournament.ledger import Done
from zocore.tournament.plan import Plan
from zocore.tournament.standings import Standing, of_task

WIDTH, HEIGHT, COLUMNS, MARGIN, LINE = 300, 210, 3, 44, 16
DASHES = ("", "6 3", "2 3", "8 3 2 3")  # of an entry's subspaces, in order
INK = "#333333"
WIDE, HIGH = WIDTH - 1.4 * MARGIN, HEIGHT - 1.6 * MARGIN  # of the part of a panel that holds lines
Band = list[tuple[float, float, float, float]]  # cost or seconds; median, least and largest loss
Unit = Literal["forward cost", "seconds"]


def plot(plan: Plan, table: Sequence[Standing], unit: Unit = "forward cost") -> str:
    """Return the SVG of all tasks that have a curve."""
    bands_of = {place.name: bands(of_task(table, place.name), unit) for place in plan.places}
    tasks = [task for task in bands_of if bands_of[task]]
    subspaces = list(dict.fromkeys(entry.subspace for entry in plan.entries if entry.takes_rate))
    shown = {standing.entry for task in tasks for standing, _ in bands_of[task]}
    styles = {e.name: _style(e.method, subspaces.index(e.subspace)) for e in plan.entries if e in shown}
    top = MARGIN / 2 + LINE * len(styles)
    rows = -(-len(tasks) // COLUMNS)
    width, height = WIDTH * min(COLUMNS, max(1, len(tasks))), top + HEIGHT * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" font-family="sans-serif" '
        f'font-size="11" fill="{INK}">',
        f'<rect width="{width}" height="{height:.0f}" fill="white"/>',
        *_legend(styles),
    ]
    for number, task in enumerate(tasks):
        across, down = number % COLUMNS * WIDTH, top + number // COLUMNS * HEIGHT
        inner = _panel(task, bands_of[task], unit, styles)
        parts += [f'<g transform="translate({across} {down:.0f})">', *inner, "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def bands(table: Iterable[Standing], unit: Unit) -> list[tuple[Standing, Band]]:
    """Return for each standing with curves the median and the range of the loss at each look."""
    return [(standing, _band(standing.runs, unit)) for standing in table if any(run.curve for run in standing.runs)]


def _band(runs: Sequence[Done], unit: Unit) -> Band:
    points = zip(*(_points(run, unit) for run in runs if run.curve), strict=False)
    spread = [(median(x for x, _ in looks), [loss for _, loss in looks]) for looks in points]
    return [(x, median(losses), min(losses), max(losses)) for x, losses in spread]


def _points(run: Done, unit: Unit) -> list[tuple[float, float]]:
    """The looks of a run; all its steps took equally long, as far as seconds go."""
    factor = run.seconds / max(run.forward_cost, 1e-9) if unit == "seconds" else 1.0
    return [(cost * factor, loss) for cost, loss, _ in run.curve]


def _style(method: str, dash: int) -> str:
    colour = METHODS[method].colour
    return f'stroke="{INK if colour == "ink" else colour}" stroke-dasharray="{DASHES[dash % len(DASHES)]}"'


def _legend(styles: dict[str, str]) -> list[str]:
    parts = []
    for number, (name, style) in enumerate(styles.items()):
        y = LINE * (number + 1)
        parts.append(f'<line x1="{MARGIN}" y1="{y - 4}" x2="{MARGIN + 30}" y2="{y - 4}" {style} stroke-width="2"/>')
        parts.append(f'<text x="{MARGIN + 36}" y="{y}">{escape(name)}</text>')
    return parts


def _panel(task: str, found: Sequence[tuple[Standing, Band]], unit: Unit, styles: dict[str, str]) -> list[str]:
    highest = max(1.1 * band[0][1] for _, band in found)  # runs that get worse than their start leave the panel
    longest = max(band[-1][0] for _, band in found) or 1.0

    def at(x: float, y: float) -> str:
        return f"{MARGIN + WIDE * x / longest:.1f},{0.7 * MARGIN + HIGH * (1 - min(y, highest) / highest):.1f}"

    parts = [f'<text x="{MARGIN}" y="18" font-weight="bold">{escape(task)}</text>', *_axes(highest, longest, unit)]
    for standing, band in found:
        style = styles[standing.entry.name]
        edge = [at(x, low) for x, _, low, _ in band] + [at(x, top) for x, _, _, top in reversed(band)]
        colour = style.split('"')[1]
        parts.append(f'<polygon points="{" ".join(edge)}" fill="{colour}" fill-opacity="0.15"/>')
        line = " ".join(at(x, middle) for x, middle, _, _ in band)
        parts.append(f'<polyline points="{line}" fill="none" {style} stroke-width="1.8"/>')
    return parts


def _axes(highest: float, longest: float, unit: Unit) -> list[str]:
    left, upper, lower = MARGIN, 0.7 * MARGIN, 0.7 * MARGIN + HIGH
    parts = [f'<path d="M{left} {upper:.1f}V{lower:.1f}H{left + WIDE:.1f}" fill="none" stroke="{INK}"/>']
    for share in (0.0, 0.5, 1.0):
        x, y = left + WIDE * share, lower - HIGH * share
        parts.append(f'<text x="{x:.1f}" y="{lower + 14:.1f}" text-anchor="middle">{longest * share:.0f}</text>')
        parts.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{highest * share:.2f}</text>')
    parts.append(f'<text x="{left + WIDE / 2:.1f}" y="{lower + 28:.1f}" text-anchor="middle">{unit}</text>')
    return parts
