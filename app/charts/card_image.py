"""The picture of a run that goes with a link to it: its loss, and what it came to. Drawn here, without a browser."""

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from app.charts import plots
from app.jobs.view import View, smooth

SIZE = (1200, 630)  # what link previews expect
BOX = (80, 210, 1120, 520)  # of the curve
PAPER, INK, SOFT, GRID = "#f5f7fa", "#1f2933", "#52606d", "#d9e0e7"


def image(view: View, name: str, title: str, result: str) -> bytes:
    """Return a PNG of a run: the name of the page, a title, the smoothed loss, and a line on its result."""
    drawn = Image.new("RGB", SIZE, PAPER)
    pen = ImageDraw.Draw(drawn)
    _text(pen, (80, 50), name, 30, SOFT)
    _text(pen, (80, 95), title, 48, INK)
    for height in (BOX[1], (BOX[1] + BOX[3]) // 2, BOX[3]):
        pen.line([(BOX[0], height), (BOX[2], height)], fill=GRID, width=2)
    hue = plots.colour(view.method)
    for line in _lines(smooth([point.loss for point in view.points])):
        pen.line(line, fill=INK if hue == plots.INK else hue, width=6, joint="curve")
    _text(pen, (80, 550), result, 34, INK)
    out = io.BytesIO()
    drawn.save(out, "PNG", optimize=True)
    return out.getvalue()


def _text(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, fill: str) -> None:
    font = ImageFont.load_default(size)
    while size > 14 and pen.textlength(text, font=font) > SIZE[0] - 160:
        size -= 2
        font = ImageFont.load_default(size)
    pen.text(place, text, font=font, fill=fill)


def _lines(losses: Sequence[float]) -> list[list[tuple[float, float]]]:
    """The loss as lines in the box, broken where it is not finite."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    if len(finite) < 2:
        return []
    low, high, last = min(finite), max(finite), max(1, len(losses) - 1)
    found: list[list[tuple[float, float]]] = [[]]
    for number, loss in enumerate(losses):
        if not math.isfinite(loss):
            found.append([])
            continue
        x = BOX[0] + (BOX[2] - BOX[0]) * number / last
        found[-1].append((x, BOX[3] - (BOX[3] - BOX[1]) * (loss - low) / ((high - low) or 1)))
    return [line for line in found if len(line) > 1]
