"""Who takes part: methods on subspaces, with options of their own, and references that take no rate."""

from dataclasses import dataclass

from zocore.errors import InputError
from zocore.methods import METHODS, OPTIONS

SETTINGS = (*OPTIONS, "update")  # what an entry may set
PROBE, ZERO_SHOT = "linear-probe", "zero-shot"
WITHOUT_RATE = {
    PROBE: "softmax regression on what the untrained model hands to its head",
    ZERO_SHOT: "the untrained model",
}


@dataclass(frozen=True)
class Entry:
    """A method on a subspace, with options of its own if it has any; or a reference that takes no rate."""

    name: str  # method@subspace+option=value
    method: str
    subspace: str = "auto"
    options: tuple[tuple[str, str], ...] = ()

    @property
    def takes_rate(self) -> bool:
        """Whether it has a learning rate to be found."""
        return self.method not in WITHOUT_RATE

    @property
    def zeroth_order(self) -> bool:
        """Whether it is a method that takes no gradient."""
        return self.takes_rate and METHODS[self.method].zeroth_order


def entry(text: str) -> Entry:
    """Return the entry that a text such as `mezo`, `fzoo@writers:2` or `feedback@writers:2+alpha=1` names.

    Raises InputError for an unknown method or option.
    """
    head, *options = text.split("+")
    method, _, subspace = head.partition("@")
    if method in WITHOUT_RATE:
        if subspace or options:
            raise InputError(f"{method} has neither subspace nor options: write {method!r} alone")
        return Entry(method, method)
    if method not in METHODS:
        known = ", ".join([*METHODS, *WITHOUT_RATE])
        raise InputError(f"unknown method {method!r} in {text!r}: choose among {known}")
    subspace = subspace or METHODS[method].home
    pairs = tuple((name, value) for name, _, value in (option.partition("=") for option in options))
    for name, value in pairs:
        if name not in METHODS[method].options or name not in SETTINGS or not value:
            raise InputError(f"{_written(name, value)!r} is no option of {method}: write as in +directions=2")
    return Entry("+".join([f"{method}@{subspace}", *(_written(*pair) for pair in pairs)]), method, subspace, pairs)


def _written(name: str, value: str) -> str:
    """Return an option as entries write it."""
    return f"{name}={value}" if value else name


def number(text: str) -> int | float | str:
    """Return an option's value: a number where it reads as one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
