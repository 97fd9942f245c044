"""What a tick sends, in words and rows, from recorded events alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app import words
from app.charts import close_up, plots
from app.jobs.job import Job, new_job
from app.jobs.view import View
from app.tabs import live, microscope, race, standings
from app.tabs.live import Drawn, Look
from tests.support.places import RECORDED
from zocore.config import RunConfig
from zocore.runs.events import Event, RunStarted, StepDone, Warned
from zocore.runs.timeline import open_timeline


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return [Event.from_json(line) for line in RECORDED.read_text().splitlines()]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    made = new_job(tmp_path, "ann", [RunConfig()], "run")
    made.turn("running")
    return made


def sent(said: live.Tick) -> dict[str, Any]:
    """The parts of a tick that are news."""
    values = {name: getattr(said, name) for name in said.__dataclass_fields__}
    return {name: value for name, value in values.items() if not (isinstance(value, dict) and "__type__" in value)}


def test_ticks_together_draw_every_step_and_repeat_nothing(events, job):
    drawn, xs = Drawn(), []
    for event in events:
        job.add(0, event)
        said, drawn = live.tick(job, job.lane.view, 0, drawn, Look())
        message = sent(said).get("loss", {})
        if "figure" in message:
            xs = list(message["figure"]["data"][0]["x"])
        for traces, x, _ in message.get("rows", []):
            xs += x if 0 in traces else []
    assert xs == [point.place.forwards for point in job.lane.view.points]
    said, _ = live.tick(job, job.lane.view, 0, drawn, Look())
    assert set(sent(said)) == {"status"}


def test_a_tick_of_many_steps_is_small(events, job):
    steps = [event for event in events if isinstance(event, StepDone)]
    job.add(0, events[0])
    job.add(0, steps[0])
    _, drawn = live.tick(job, job.lane.view, 0, Drawn(), Look())
    for event in steps[1:60]:
        job.add(0, event)
    said, _ = live.tick(job, job.lane.view, 0, drawn, Look())
    assert len(json.dumps(sent(said))) < 700


@pytest.mark.parametrize("name", ["accuracy", "estimator"])
def test_marks_are_sent_once_too(events, job, name):
    """Evaluations and estimates come as new points of traces already drawn; together they are the whole figure."""
    drawn, xs, whole = Drawn(), [[], []], 0
    for event in events:
        job.add(0, event)
        said, drawn = live.tick(job, job.lane.view, 0, drawn, Look())
        message = sent(said).get(name, {})
        if "figure" in message:
            xs, whole = [list(trace["x"]) for trace in message["figure"]["data"]], whole + 1
        for traces, x, _ in message.get("rows", []):
            for number in traces:
                xs[number] += x
    full = {"accuracy": plots.held_out([job.lane.view]), "estimator": plots.estimator(job.lane.view)}[name]
    assert xs == [trace["x"] for trace in full["data"]] and sum(map(len, xs)) >= 6
    assert whole <= 2


def test_no_tick_after_the_first_is_large(events, job):
    """Evaluations, estimates and answers included, a tick of a dozen steps stays below 1 KB until the run ends."""
    drawn, sizes, answers = Drawn(), [], []
    for number, event in enumerate(events[:-1]):
        job.add(0, event)
        if number % 12 == 11:
            said, drawn = live.tick(job, job.lane.view, 0, drawn, Look())
            news = sent(said)
            sizes.append(len(json.dumps(news)))
            answers += [news["answers"]] if "answers" in news else []
    assert len(sizes) > 20 and max(sizes[1:]) < 1000
    last = next(one for one in job.lane.view.samples if one.step == answers[-1]["step"])
    for (_, probability, verdict), found in zip(answers[-1]["cells"], last.probabilities, strict=True):
        assert probability == pytest.approx(max(found), abs=0.005) and verdict in (0, 1)


def test_another_look_or_job_draws_everything_anew(events, job):
    for event in events[:20]:
        job.add(0, event)
    _, drawn = live.tick(job, job.lane.view, 0, Drawn(), Look())
    said, _ = live.tick(job, job.lane.view, 0, drawn, Look(axis="steps"))
    assert "figure" in said.loss


def test_the_status_says_each_phase_in_words(events, job):
    for event in events[:-1]:
        job.add(0, event)
    view = job.lane.view
    assert words.status(job, 0).startswith(f"training {view.steps}/{view.planned} at ")
    job.stop.set()
    assert words.status(job, 0).startswith("stops after this step")
    job.stopped_by = "you"
    job.turn("stopped")
    assert words.status(job, 0) == f"stopped by you at step {view.steps}"
    job.phase = "queued"
    assert words.status(job, 1) == "queued, 2nd in line"
    job.phase, job.reason = "failed", "the disk is full"
    assert words.status(job, 0) == "failed: the disk is full"
    job.phase = "interrupted"
    assert "Resume" in words.status(job, 0)
    assert words.status(None, 0).startswith("recorded")


def test_a_search_for_the_rate_is_told_and_then_what_it_found(events, tmp_path):
    """Before the header, with it, and beside the charts for as long as the run is shown."""
    job = new_job(tmp_path, "ann", [RunConfig(auto_lr=True)], "run")
    job.turn("loading")
    assert words.status(job, 0).endswith("looking for a learning rate: a range test of at most 48 steps")
    said, drawn = live.tick(job, job.lane.view, 0, Drawn(), Look())
    assert said.warnings == ""
    header = events[0]
    assert isinstance(header, RunStarted)
    search = {"lr": 0.0042, "tried": [[0.001, 0.0], [0.09, -0.2]], "forward_passes": 40, "forward_cost": 40.0}
    job.add(0, replace(header, config=header.config | {"lr": 0.0042}, rate_search=search))
    assert words.status(job, 0) == "learning rate 0.0042 found, first evaluation"
    said, _ = live.tick(job, job.lane.view, 0, drawn, Look())
    assert "Learning rate 0.0042, found by a range test from 0.001 to 0.09" in said.warnings
    assert "40 forward passes" in said.warnings
    job.turn("failed", "--lr auto found no rate from 0.01 to 9 that lowers the loss")
    assert words.status(job, 0) == "failed: lr auto found no rate from 0.01 to 9 that lowers the loss"


def test_axes_have_no_numbers_before_the_first_step(events, job):
    """The first step brings a whole figure, with axes of its own."""
    said, drawn = live.tick(job, job.lane.view, 0, Drawn(), Look())
    assert said.loss["figure"]["layout"]["yaxis"]["showticklabels"] is False
    assert said.gradient["figure"]["layout"]["xaxis"]["showticklabels"] is False
    job.add(0, events[0])
    job.add(0, next(event for event in events if isinstance(event, StepDone)))
    said, _ = live.tick(job, job.lane.view, 0, drawn, Look())
    for message in (said.loss, said.gradient):
        assert not {"showticklabels", "range"} & set(message["figure"]["layout"]["yaxis"])


@pytest.mark.parametrize(
    ("number", "said"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd")]
)
def test_ordinals(number, said):
    assert words.ordinal(number) == said


def test_text_from_outside_is_escaped(job):
    header = Event.from_json(RECORDED.read_text().splitlines()[0])
    job.add(0, header)
    job.add(0, Warned(1, "<script>alert(1)</script>"))
    assert "<script>" not in live.warnings(job.lane.view, job)
    assert "<script>" not in live.status("failed", "<script>")


def test_the_race_draws_lines_live_and_bands_at_its_end():
    views = [lane.view for lane in race.recorded()]
    methods = {view.method for view in views}
    assert len(views) == 3 * len(methods)
    figure = plots.race(views, band=True)
    assert len(figure["data"]) == 3 * len(methods)
    json.dumps(figure, allow_nan=False)


def test_several_seeds_share_one_entry_of_the_legend():
    """One method is one name in the legend of the accuracies, however many seeds it ran."""
    views = [lane.view for lane in race.recorded()]
    shown = [one["name"] for one in plots.held_out(views)["data"] if one["showlegend"]]
    assert sorted(shown) == sorted({f"{plots.title(view.method)}, test" for view in views})


def test_the_race_opens_with_its_table():
    """The recorded race shows its standings at the first paint, the lowest loss first."""
    table = standings.table(race.recorded(), None)
    methods = {lane.config.method for lane in race.recorded()}
    assert table.count("<tr>") == 1 + len(methods)
    assert "<b>Learned feedback</b> has the lowest loss, by more than the seeds can explain" in table


def test_a_race_has_two_to_five_lanes_and_a_budget_that_buys_a_step():
    lanes = race.lanes(RunConfig(seed=5), ["mezo", "n-spsa"], 2, 80)
    assert [(lane.method, lane.steps, lane.seed) for lane in lanes] == [
        ("mezo", 40, 5), ("mezo", 40, 6), ("n-spsa", 10, 5), ("n-spsa", 10, 6),
    ]  # fmt: skip
    for methods, budget, said in ((["mezo"], 80, "two to five"), (["mezo", "n-spsa"], 4, "does not buy one step")):
        with pytest.raises(ValueError, match=said):
            race.lanes(RunConfig(), methods, 1, budget)


def test_the_recorded_readings_of_the_microscope_draw():
    look, aligned, law = microscope.recorded()
    chosen = look.found[len(look.found) // 2]
    figures = [close_up.slice_figure(look, chosen), close_up.bias_figure(look, chosen)]
    figures += [close_up.alignment_figure(aligned), close_up.law_figure(law)]
    json.dumps(figures, allow_nan=False)


def test_the_recorded_run_is_of_the_bundled_model_and_replays():
    timeline = open_timeline(RECORDED.parent)
    timeline.go(2)
    assert timeline.last == View.of(timeline.recording.events).planned
