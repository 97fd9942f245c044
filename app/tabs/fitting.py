"""What fits a card: for each way to train, the models whose step fits, and the nearest that does not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from app.words import size
from zocore.memory import bill
from zocore.memory.bill import Bill
from zocore.memory.shapes import BUILT_IN, ModelShape, shape_of

WAYS = ("qzo", "qlora-adamw", "mezo", "feedback", "grzo", "lora-adamw", "adamw")
"""The ways to train that are compared, those that hold least first."""
MOST = 4  # models named of those that fit


@dataclass(frozen=True)
class Card:
    """A card and the bytes free on it for tensors."""

    name: str
    room: int


@dataclass(frozen=True)
class Fitting:
    """One way to train on one card: the models that fit, largest first, and the nearest that does not."""

    way: str
    fits: tuple[tuple[str, Bill], ...]
    next: tuple[str, Bill] | None


def fitting(card: Card, shapes: Sequence[ModelShape], batch: int, tokens: int, dtype: str) -> list[Fitting]:
    """Return what fits, one a way; models that cannot read so many tokens are left out."""
    able = sorted((shape for shape in shapes if tokens <= shape.positions), key=lambda shape: -shape.parameters)
    found = []
    for way in WAYS:
        bills = [(shape.name, bill.bill(shape, way, batch, tokens, dtype)) for shape in able]
        fits = tuple(one for one in bills if one[1].total <= card.room)
        over = [one for one in bills if one[1].total > card.room]
        found.append(Fitting(way, fits, min(over, key=lambda one: one[1].total, default=None)))
    return found


def known() -> list[ModelShape]:
    """Return the models whose sizes are built in."""
    return [shape_of(name) for name in BUILT_IN]


def table(found: Sequence[Fitting], card: Card, chosen: str) -> str:
    """Return the list as HTML, with the chosen model marked wherever it fits."""
    rows = "".join(_row(one, card, chosen) for one in found)
    head = "<tr><th>Way to train</th><th>Fits, with the peak of a step</th><th>Nearest that does not</th></tr>"
    caption = f"<caption>{escape(card.name)}: {size(card.room)} free for tensors; 1 GB is 10⁹ bytes</caption>"
    return f'<table class="zo-fits">{caption}<thead>{head}</thead><tbody>{rows}</tbody></table>'


def _row(one: Fitting, card: Card, chosen: str) -> str:
    named = list(one.fits[:MOST])
    named += [fit for fit in one.fits[MOST:] if fit[0] == chosen]
    more = len(one.fits) - len(named)
    chips = "".join(_chip(name, fit, name == chosen) for name, fit in named)
    chips += f'<span class="zo-quiet">and {more} smaller</span>' if more else ""
    beyond = "all fit"
    if one.next:
        name, next_ = one.next
        beyond = f"<b>{escape(name)}</b> {size(next_.total)}, {size(next_.total - card.room)} too much"
    return f"<tr><th>{escape(bill.title(one.way))}</th><td>{chips or 'nothing of this list'}</td><td>{beyond}</td></tr>"


def _chip(name: str, fit: Bill, chosen: bool) -> str:
    mark = ' class="zo-fit zo-chosen"' if chosen else ' class="zo-fit"'
    return f"<span{mark}><b>{escape(name)}</b> {size(fit.total)}</span>"


def sentence(shape: ModelShape, bills: Mapping[str, Bill], card: Card) -> str:
    """Return what the card can do with one model, in words."""
    fit = [way for way in WAYS if bills[way].total <= card.room]
    over = [way for way in WAYS if way not in fit]
    name = f"{escape(shape.name)} ({shape.parameters / 1e9:.3g} B parameters)"
    if not fit:
        least = min(over, key=lambda way: bills[way].total)
        return (
            f"{name} does not fit, whichever way it is trained: {bill.title(least)} holds least, "
            f"<b>{size(bills[least].total)}</b>, {size(bills[least].total - card.room)} too much."
        )
    held = "; ".join(f"{bill.title(way)} <b>{size(bills[way].total)}</b>" for way in fit)
    if not over:
        return f"{name} fits every way: {held}."
    worst = max(over, key=lambda way: bills[way].total)
    missing = size(bills[worst].total - card.room)
    return f"{name} fits with {held}. {bill.title(worst)} needs {size(bills[worst].total)}, {missing} too much."
