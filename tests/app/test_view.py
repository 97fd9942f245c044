"""The fold from events to what the page shows, and the charts made from it, without a browser or a model."""

import json
import math

import pytest

from app.charts import memory_chart, plots
from app.jobs.view import MOST_POINTS, View, smooth, thinned
from tests.support.places import RECORDED
from zocore.memory.bill import bills
from zocore.memory.shapes import shape_of
from zocore.methods import METHODS
from zocore.runs.events import EvalDone, Event, RunEnded, StepDone


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return [Event.from_json(line) for line in RECORDED.read_text().splitlines()]


def step(number: int, loss: float = 1.0) -> StepDone:
    return StepDone(
        number, loss, [loss], [loss], [0.5], [0.5], [0], 1e-4, 1e-3, 2 * number, 2.0 * number, number / 10, 10.0, 5
    )


def test_the_view_knows_the_whole_recorded_run(events):
    view = View.of(events)
    assert view.steps == view.planned == len(view.points)
    assert view.end is not None and view.end.status == "finished"
    assert [place.steps for place, _ in view.scores("test")] == [0, view.planned]
    assert len(view.samples) >= 2
    assert view.place.forwards == view.end.forward_passes


def test_an_older_view_is_not_changed_by_newer_events():
    one = View.of([step(1)])
    two, other = one.apply(step(2, 2.0)), one.apply(step(2, 3.0))
    assert [point.loss for point in one.points] == [1.0]
    assert [point.loss for point in two.points] == [1.0, 2.0]
    assert [point.loss for point in other.points] == [1.0, 3.0]


def test_a_measurement_stands_where_the_run_was():
    view = View.of([step(1), step(2), EvalDone(2, "dev", 0.5, 0.75, 10, 0.1)])
    assert view.scores("dev") == [((2, 4, 0.2, 4.0), 0.75)]


def test_a_step_after_an_end_means_that_the_run_went_on():
    end = RunEnded("stopped", "stopped after step 1", 1, 2, 2.0, 0.1, 10.0, 5, 0)
    assert View.of([step(1), end]).end == end
    assert View.of([step(1), end, step(2)]).end is None


def test_smoothing_is_debiased_and_leaves_out_what_is_not_finite():
    assert smooth([3.0, 3.0, 3.0]) == pytest.approx([3.0] * 3)
    even = smooth([1.0, math.nan, math.inf, 1.0])
    assert math.isnan(even[1]) and math.isnan(even[2])
    assert even[3] == pytest.approx(1.0)


def test_a_long_line_is_thinned_and_keeps_its_end_and_its_bad_points():
    finite = [i not in (17, 4321) for i in range(10_000)]
    kept = thinned(len(finite), finite)
    assert len(kept) <= MOST_POINTS
    assert {0, 17, 4321, 9_999} <= set(kept)
    assert thinned(5) == [0, 1, 2, 3, 4]


def test_points_that_are_not_finite_are_marked_and_the_figure_is_strict_json():
    figure = plots.loss([View.of([step(1), step(2, math.nan), step(3, math.inf)])], "steps")
    json.dumps(figure, allow_nan=False)
    assert figure["data"][2]["x"] == [2, 3]
    assert figure["data"][0]["y"] == [1.0, None, None]


@pytest.mark.parametrize("axis", ["forwards", "steps", "seconds"])
def test_every_chart_of_a_recorded_run_is_strict_json(events, axis):
    view = View.of(events)
    figures = [plots.loss([view, view], axis, log=True), plots.gradient(view, axis), plots.held_out([view], axis)]
    figures += [
        plots.estimator(view, axis),
        memory_chart.bars(bills(shape_of("opt-125m")), ("T4 16 GB", 15 * 10**9), ("here", 10**9)),
    ]
    for figure in figures:
        json.dumps(figure, allow_nan=False)
        assert plots.INK not in json.dumps(plots.themed(figure, dark=True)["data"]).split('"')


def test_charts_before_the_first_event_are_empty_and_whole():
    for figure in (plots.loss([View()]), plots.gradient(View()), plots.held_out([View()]), plots.estimator(View())):
        json.dumps(figure, allow_nan=False)


def test_every_method_has_a_look_of_its_own():
    assert len({(plots.colour(name), plots.line(name)["dash"]) for name in METHODS}) == len(METHODS)
