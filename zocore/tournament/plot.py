"""A plot as SVG: dev loss against forward cost, one panel a task, median and range over the seeds."""

from collections.abc import Iterable, Sequence
from html import escape
from statistics import median

from zocore.methods import METHODS
from zocore.tournament.ledger import Done
from zocore.tournament.plan import Plan
from zocore.tournament.standings import Standing, of_task

WIDTH, HEIGHT, COLUMNS, MARGIN, LINE = 300, 210, 3, 44, 16
DASHES = ("", "6 3", "2 3", "8 3 2 3")  # of an entry's subspaces, in order
INK = "#333333"
Band = list[tuple[float, float, float, float]]  # cost, median, least and largest loss


def plot(plan: Plan, table: Sequence[Standing]) -> str:
    """Return the SVG of all tasks that have a curve."""
    tasks = [place.name for place in plan.places if any(bands(of_task(table, place.name)))]
    subspaces = list(dict.fromkeys(entry.subspace for entry in plan.entries if entry.takes_rate))
    shown = {standing.entry for task in tasks for standing, _ in bands(of_task(table, task))}
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
        inner = _panel(task, bands(of_task(table, task)), plan.cost, styles)
        parts += [f'<g transform="translate({across} {down:.0f})">', *inner, "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def bands(table: Iterable[Standing]) -> list[tuple[Standing, Band]]:
    """Return for each standing with curves the median and the range of the loss at each look."""
    return [(standing, _band(standing.runs)) for standing in table if any(run.curve for run in standing.runs)]


def _band(runs: Sequence[Done]) -> Band:
    points = zip(*(run.curve for run in runs if run.curve), strict=False)
    found = [([cost for cost, _, _ in looks], [loss for _, loss, _ in looks]) for looks in points]
    return [(median(costs), median(losses), min(losses), max(losses)) for costs, losses in found]


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


def _panel(task: str, found: Sequence[tuple[Standing, Band]], cost: float, styles: dict[str, str]) -> list[str]:
    highest = max(1.1 * band[0][1] for _, band in found)  # runs that get worse than their start leave the panel
    wide, high = WIDTH - 1.4 * MARGIN, HEIGHT - 1.6 * MARGIN

    def at(x: float, y: float) -> str:
        return f"{MARGIN + wide * x / cost:.1f},{0.7 * MARGIN + high * (1 - min(y, highest) / highest):.1f}"

    parts = [f'<text x="{MARGIN}" y="18" font-weight="bold">{escape(task)}</text>', *_axes(highest, cost, wide, high)]
    for standing, band in found:
        style = styles[standing.entry.name]
        edge = [at(x, low) for x, _, low, _ in band] + [at(x, top) for x, _, _, top in reversed(band)]
        colour = style.split('"')[1]
        parts.append(f'<polygon points="{" ".join(edge)}" fill="{colour}" fill-opacity="0.15"/>')
        line = " ".join(at(x, middle) for x, middle, _, _ in band)
        parts.append(f'<polyline points="{line}" fill="none" {style} stroke-width="1.8"/>')
    return parts


def _axes(highest: float, cost: float, wide: float, high: float) -> list[str]:
    left, upper, lower = MARGIN, 0.7 * MARGIN, 0.7 * MARGIN + high
    parts = [f'<path d="M{left} {upper:.1f}V{lower:.1f}H{left + wide:.1f}" fill="none" stroke="{INK}"/>']
    for share in (0.0, 0.5, 1.0):
        x, y = left + wide * share, lower - high * share
        parts.append(f'<text x="{x:.1f}" y="{lower + 14:.1f}" text-anchor="middle">{cost * share:.0f}</text>')
        parts.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{highest * share:.2f}</text>')
    parts.append(f'<text x="{left + wide / 2:.1f}" y="{lower + 28:.1f}" text-anchor="middle">forward cost</text>')
    return parts
