"""Numbers as coloured cells: a small matrix to be seen at once."""

from collections.abc import Sequence
from html import escape

PLUS, MINUS = "#0072B2", "#E69F00"


def cells(rows: Sequence[Sequence[float]], caption: str) -> str:
    """Return a picture as HTML: blue above zero, orange below, paler where numbers are small; empty without any."""
    if not rows or not rows[0]:
        return ""
    most = max(abs(value) for row in rows for value in row) or 1.0
    drawn = "".join(
        f'<rect x="{x}" y="{y}" width="1" height="1" fill="{PLUS if value > 0 else MINUS}" '
        f'opacity="{abs(value) / most:.2f}"/>'
        for y, row in enumerate(rows)
        for x, value in enumerate(row)
    )
    box = f"0 0 {len(rows[0])} {len(rows)}"
    svg = f'<svg viewBox="{box}" role="img" aria-label="{escape(caption)}">{drawn}</svg>'
    return f"<figure class='zo-cells'>{svg}<figcaption class='zo-quiet'>{escape(caption)}</figcaption></figure>"
