"""A learning rate found by itself: steps on a few batches at ever larger rates, until their losses turn.

This is a range test (Smith, arXiv 1506.01186) made of zeroth-order steps. Each of them measures the loss of its batch
anyway, so the search asks for nothing more than a few dozen forward passes. Each loss is compared with that of the same
batch at the smallest rates, so that easy and hard batches do not hide what the steps do.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, isfinite
from typing import Any

from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.methods import METHODS
from zocore.runs.opening import open_session
from zocore.runs.session import Session

BATCHES = 4  # taken in turn
FIRST = 0.1  # times the preset: where the rates begin
FACTOR = 1.4  # between one rate and the next
MOST = 48  # steps
FALL = 0.01  # of the first losses: how far they have to fall, or nothing was found
TURNED = 4  # changes in a row that have to lie above the lowest
ABOVE = 0.3  # by so much of the fall
BACK = 8.0  # how far below the rate of the lowest losses a run of hundreds of batches goes well: docs/measured.md


@dataclass(frozen=True)
class RateSearch:
    """The rate found, the change of loss seen at each rate tried (the mean of four steps), and what the search cost."""

    lr: float
    tried: tuple[tuple[float, float], ...]
    forward_passes: int
    forward_cost: float

    def to_json(self) -> dict[str, Any]:
        """Return the search as plain values."""
        return {**asdict(self), "tried": [[float(f"{lr:.3g}"), round(change, 5)] for lr, change in self.tried]}


def with_found_rate(config: RunConfig, stop: Callable[[], bool] = lambda: False) -> tuple[RunConfig, RateSearch]:
    """Return the settings with the rate that a search finds, and the search, on a model that is dropped afterwards.

    Raises InputError when no rate lowers the losses, when it is stopped, and for a method that takes a gradient.
    """
    if not METHODS[config.method].zeroth_order:
        raise InputError(f"--lr auto is made of zeroth-order steps, and {config.method} takes a gradient: give a rate")
    session = open_session(replace(config, lr=None))
    session.objective.ready()
    search = find_rate(session, stop)
    del session
    gc.collect()  # a model with hooks is a ring of references: else it stays beside the run's own
    return replace(config, lr=search.lr), search


def find_rate(session: Session, stop: Callable[[], bool] = lambda: False) -> RateSearch:
    """Move a session's weights by the method's own steps at rising rates, and return the rate for a run.

    It is an eighth of the one at which the losses are lowest. Raises InputError when they never fall, or when stopped.
    """
    eps, lr = session.config.eps, session.config.lr
    assert eps is not None and lr is not None
    rates, seen, passes, cost = [lr * FIRST], list[float](), 0, 0.0
    while len(seen) < MOST and not _turned(_changes(seen), seen) and not (seen and stop()):
        losses, key = session.losses(1 + len(seen) % BATCHES), session.key(len(seen) + 1)
        step = session.method.step(session.leaves, losses, key, rates[-1], eps, session.state)
        passes, cost = passes + losses.forward_passes, cost + losses.forward_cost
        seen.append(step.loss if isfinite(step.loss) else inf)
        rates.append(rates[-1] * FACTOR)
    if stop():
        raise InputError("stopped before a learning rate was found")
    tried = tuple(zip(rates[BATCHES - 1 :], _changes(seen), strict=False))
    best, fall = min(tried, key=lambda pair: pair[1], default=(lr, 0.0))
    if -fall < FALL * seen[0]:
        raise InputError(
            f"--lr auto found no rate from {rates[0]:.2g} to {rates[len(seen) - 1]:.2g} that lowers the loss of "
            f"{BATCHES} batches ({seen[0]:.4g}): give a rate, or another eps or method"
        )
    return RateSearch(float(f"{best / BACK:.2g}"), tried, passes, cost)


def _changes(losses: Sequence[float]) -> list[float]:
    """Changes of loss against each batch's first look, the mean over the batches; the first once all were seen."""
    apart = [loss - losses[number % BATCHES] for number, loss in enumerate(losses)]
    return [sum(apart[end - BATCHES : end]) / BATCHES for end in range(BATCHES, len(apart) + 1)]


def _turned(changes: Sequence[float], losses: Sequence[float]) -> bool:
    """Whether the losses have left their lowest point for good."""
    if not changes or losses[-1] == inf:
        return bool(changes)
    fall = -min(changes)
    return fall > FALL * losses[0] and min(changes[-TURNED:]) > (ABOVE - 1) * fall
