"""Losses are compared seed by seed, with Student's t."""

from math import isnan

import pytest

from zocore.tournament.paired import paired, t_quantile

# from any table of Student's t: (probability, degrees of freedom, quantile)
TABLE = [
    (0.975, 1, 12.7062),
    (0.975, 2, 4.30265),
    (0.975, 3, 3.18245),
    (0.95, 5, 2.01505),
    (0.975, 9, 2.26216),
    (0.975, 120, 1.97993),
]


@pytest.mark.parametrize(("probability", "freedom", "quantile"), TABLE)
def test_quantiles_are_those_of_the_tables(probability: float, freedom: int, quantile: float) -> None:
    """To the tables' five digits."""
    assert t_quantile(probability, freedom) == pytest.approx(quantile, rel=1e-5)


def test_the_interval_is_that_of_the_differences() -> None:
    """Three differences of 0.1, 0.2 and 0.3: mean 0.2, half width 4.30265 * 0.1 / sqrt(3)."""
    found = paired({0: 0.6, 1: 0.7, 2: 0.8, 9: 0.0}, {0: 0.5, 1: 0.5, 2: 0.5})
    assert found.seeds == 3
    assert found.mean == pytest.approx(0.2)
    assert found.high - found.mean == pytest.approx(4.30265 * 0.1 / 3**0.5, rel=1e-4)
    assert found.says == "no clear winner"


def test_what_it_says() -> None:
    """Better below 0, worse above, no winner where the interval spans 0, and nothing from one seed."""
    steady = {0: 0.5, 1: 0.6, 2: 0.7}
    lower = {0: 0.29, 1: 0.4, 2: 0.51}
    assert paired(lower, steady).says == "better"
    assert paired(steady, lower).says == "worse"
    assert paired({0: 0.1}, steady).says == "one seed"
    none = paired({7: 0.1}, steady)
    assert none.says == "no seed in common"
    assert isnan(none.mean)
