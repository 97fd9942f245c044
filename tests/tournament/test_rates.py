"""One rule finds every rate: a grid around the middle, more beyond an edge that is best, chosen on dev loss."""

from collections.abc import Callable
from math import inf, log

import pytest

from zocore.tournament.rates import FACTOR, asked, carried, chosen, rate


def searched(loss: Callable[[float], float], middle: float = 1e-3, most: int = 9) -> dict[float, float]:
    """All rates that a search tries, with their losses."""
    losses: dict[float, float] = {}
    while wanted := asked(middle, losses, 3, most):
        losses |= {lr: loss(lr) for lr in wanted}
    return losses


def bowl(best: float) -> Callable[[float], float]:
    """A loss whose logarithm-wise nearest rate to `best` is best."""
    return lambda lr: log(lr / best) ** 2


def test_a_best_rate_inside_ends_the_search_at_once() -> None:
    """Three rates a factor apart are all that is tried when the middle one is best."""
    losses = searched(bowl(1e-3))
    assert sorted(losses) == [rate(1e-3, -1), 1e-3, rate(1e-3, 1)]
    assert rate(1e-3, 1) == pytest.approx(1e-3 * FACTOR)
    assert chosen(losses) == 1e-3


@pytest.mark.parametrize("best", [0.081, 1.23e-5])
def test_the_grid_grows_beyond_the_edge_until_the_best_lies_inside(best: float) -> None:
    """A far better rate is reached from either side, with one rate beyond it to show that it is inside."""
    losses = searched(bowl(best))
    assert chosen(losses) == pytest.approx(best, rel=0.02)
    rate = chosen(losses)
    assert rate is not None
    assert min(losses) < rate < max(losses)
    assert len(losses) == 3 + abs(round(log(best / 1e-3, FACTOR)))


def test_a_search_without_end_ends() -> None:
    """Where larger is always better, the search stops after the most rates it may try."""
    losses = searched(lambda lr: 1 / lr, most=6)
    assert len(losses) == 6
    assert chosen(losses) == max(losses)


def test_the_smaller_of_equals_is_chosen() -> None:
    """Rates of equal loss are told apart by size; equal edges widen the grid downwards."""
    assert chosen({3e-3: 0.5, 1e-3: 0.5, 9e-3: 0.5}) == 1e-3
    assert asked(3e-3, {1e-3: 0.5, 3e-3: 0.6, 9e-3: 0.5}, 3, 9) == [rate(1e-3, -1)]


def test_failed_runs_are_never_chosen_and_push_downwards() -> None:
    """Rates that fail count as infinite losses: the search goes below them, and ends where all fail."""
    losses = searched(lambda lr: inf if lr > 1e-4 else bowl(5e-5)(lr))
    assert chosen(losses) == pytest.approx(3.7e-5, rel=0.02)
    nothing = searched(lambda lr: inf)
    assert len(nothing) == 9
    assert chosen(nothing) is None
    assert chosen({}) is None


def test_a_preset_that_has_changed_since_does_not_start_the_search_again() -> None:
    """What was tried is the grid: another middle asks for nothing new once the first rates are done."""
    assert asked(0.5, {1e-3: 0.5, 3e-3: 0.4, 9e-3: 0.5}, 3, 9) == []
    assert asked(0.5, {1e-3: 0.5, 3e-3: 0.5, 9e-3: 0.4}, 3, 9) == [rate(9e-3, 1)]


def test_carried_rates_are_the_geometric_mean() -> None:
    """Of one rate itself; of two the one between on a logarithmic scale."""
    assert carried([3e-3]) == 3e-3
    assert carried([1e-3, 1e-1]) == 1e-2
