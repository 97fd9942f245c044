"""A step of learned feedback, traced and measured: the same step as a run's, and what its parts say is so."""

from typing import Any

import pytest

from tests.support.short_runs import same, settings, weights
from zocore.diagnostics.step_trace import trace
from zocore.runs.events import EstimatorMeasured, RunEnded
from zocore.runs.loop import run
from zocore.runs.opening import open_session

METHODS: dict[str, dict[str, Any]] = {
    "feedback": {"method": "feedback", "subspace": "writers:1"},
    "activity": {"method": "activity", "subspace": "writers:1"},
    "activity, one-sided": {"method": "activity", "subspace": "writers:1", "sides": 1, "tie": "none"},
}


@pytest.mark.parametrize("name", METHODS)
def test_a_traced_step_is_the_step_of_a_run(name: str) -> None:
    """Three steps traced leave the weights bitwise where three steps of a run leave them."""
    live, traced = (open_session(settings(**METHODS[name])) for _ in range(2))
    eps = live.config.eps
    assert eps is not None
    for number in (1, 2, 3):
        live.method.step(live.leaves, live.losses(number), live.key(number), live.lr(number), eps, live.state)
        phases = list(trace(traced, number))
        assert all(phase.text and phase.code for phase in phases)
    assert same(weights(live), weights(traced))


def test_the_parts_of_a_feedback_step_say_what_happened() -> None:
    """The first step foresees nothing and moves nothing; what it learned foresees part of the same answers."""
    session = open_session(settings(**METHODS["feedback"]))
    phases = {phase.title: phase for phase in trace(session, 1)}
    assert list(phases) == ["Clean forward", "Push and forward", "Foresee", "Carry back and update", "Learn"]
    assert "foresaw 0%" in phases["Foresee"].text
    assert phases["Carry back and update"].moved == 0
    assert "foresee 0%" not in phases["Learn"].text


def test_a_step_between_pushes_has_fewer_parts() -> None:
    """It pushes nothing, foresees nothing and learns nothing, and moves the weights all the same."""
    session = open_session(settings(**METHODS["feedback"], push_every=2))
    list(trace(session, 1))
    phases = {phase.title: phase for phase in trace(session, 2)}
    assert list(phases) == ["Clean forward", "No push", "Carry back and update"]
    assert phases["Carry back and update"].moved > 0
    assert "Learn" in [phase.title for phase in trace(session, 3)]


@pytest.mark.parametrize("name", METHODS)
def test_the_estimator_is_measured_without_changing_the_run(name: str) -> None:
    """Measured every second step, cosines lie between 0 and 1 and the run ends in the same bits."""
    plain = list(run(settings(**METHODS[name])))
    watched = list(run(settings(**METHODS[name], measure_every=2)))
    readings = [event for event in watched if isinstance(event, EstimatorMeasured)]
    assert len(readings) == 2
    assert all(0 <= (reading.cosine or 0) <= 1 for reading in readings)
    assert readings[-1].cosine
    assert (readings[-1].variance == 0) == (name == "feedback")  # it trusts J, whatever is drawn
    ends = [event.weights_fingerprint for event in (plain[-1], watched[-1]) if isinstance(event, RunEnded)]
    assert len(ends) == 2
    assert ends[0] == ends[1]
