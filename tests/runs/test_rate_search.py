"""--lr auto: the search finds where losses turn, on weights that are dropped, and the run tells and counts it."""

import weakref
from pathlib import Path

import pytest

from tests.support.short_runs import settings
from zocore.compare import lanes
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.runs import rate_search
from zocore.runs.events import RunStarted, StepDone
from zocore.runs.loop import run
from zocore.runs.opening import open_session
from zocore.runs.rate_search import BACK, FACTOR, RateSearch, find_rate
from zocore.runs.recording import claim, read_recording, record
from zocore.runs.replay import replay_run
from zocore.runs.session import Session
from zocore.step.step import Step


def valley(session: Session, bottom: float, monkeypatch: pytest.MonkeyPatch) -> RateSearch:
    """The search where steps lower the loss up to a rate and raise it beyond."""
    total = [2.0]

    def step(_: object, *args: object) -> Step:
        rate = float(args[3])  # type: ignore[arg-type]
        total[0] += 0.1 if rate > bottom else -0.1
        return Step(total[0], None)

    monkeypatch.setattr(type(session.method), "step", step)
    return find_rate(session)


@pytest.mark.parametrize("bottom", [1e-3, 1e-1])
def test_the_rate_is_a_fixed_part_of_the_one_where_the_losses_turn(
    bottom: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a course that is known: it falls up to a rate, then climbs."""
    search = valley(open_session(settings(lr=1e-3)), bottom, monkeypatch)
    assert bottom / BACK / FACTOR**3 < search.lr < bottom / BACK * FACTOR**4
    assert search.tried[-1][1] > min(change for _, change in search.tried)


def test_a_run_tells_and_counts_its_search_and_replays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header holds the rate and how it was found; the passes of the search are in the steps' count."""
    made = RateSearch(2e-3, ((1e-3, 0.0), (2e-3, -0.1)), 9, 8.5)
    monkeypatch.setattr(rate_search, "find_rate", lambda *_: made)
    config = settings(method="mezo", lr=None, auto_lr=True, steps=3)
    claim(tmp_path / "run")
    events = list(record(run(config), tmp_path / "run"))
    header = next(event for event in events if isinstance(event, RunStarted))
    steps = [event for event in events if isinstance(event, StepDone)]
    assert header.config["lr"] == 2e-3 and header.rate_search is not None
    assert header.rate_search["tried"] == [[1e-3, 0.0], [2e-3, -0.1]]
    assert [step.forward_passes for step in steps] == [11, 13, 15]
    assert steps[-1].forward_cost == pytest.approx(14.5)
    monkeypatch.setattr(rate_search, "find_rate", None)  # neither a replay nor a resumed run looks again
    assert replay_run(tmp_path / "run", None, verify=True).proved
    assert read_recording(tmp_path / "run").config.lr == 2e-3


def test_a_search_leaves_the_weights_of_the_run_alone() -> None:
    """The run with the found rate is bitwise the run that was given it."""
    config = settings(method="mezo", lr=None, auto_lr=True, steps=2, batch_size=4)
    found = [event for event in run(config) if isinstance(event, StepDone)]
    lr = found[0].lr
    given = [
        event for event in run(settings(method="mezo", lr=lr, steps=2, batch_size=4)) if isinstance(event, StepDone)
    ]
    assert [step.coefficients for step in found] == [step.coefficients for step in given]


def test_where_no_rate_lowers_the_loss_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that only climbs is no ground for a rate."""
    with pytest.raises(InputError, match="found no rate from .* that lowers the loss"):
        valley(open_session(settings(lr=1e-3)), 0.0, monkeypatch)


def test_a_search_that_is_stopped_finds_nothing() -> None:
    """Whatever it saw until then is no ground for a rate."""
    with pytest.raises(InputError, match="stopped before a learning rate was found"):
        find_rate(open_session(settings(lr=1e-3)), lambda: True)


def test_backprop_has_no_range_test() -> None:
    """Its steps measure no difference; an assertion is no sentence."""
    with pytest.raises(InputError, match="adamw takes a gradient: give a rate"):
        list(run(settings(method="adamw", lr=None, auto_lr=True)))


def test_the_model_of_the_search_is_gone_before_the_run_opens_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them may not fit."""
    opened: list[weakref.ref[Session]] = []

    def remembered(config: RunConfig) -> Session:
        session = open_session(config)
        opened.append(weakref.ref(session))
        return session

    made = RateSearch(2e-3, ((1e-3, 0.0), (2e-3, -0.1)), 9, 8.5)
    monkeypatch.setattr(rate_search, "find_rate", lambda *_: made)
    monkeypatch.setattr(rate_search, "open_session", remembered)
    rate_search.with_found_rate(settings(method="mezo", lr=None, auto_lr=True))
    assert len(opened) == 1 and opened[0]() is None


def test_a_race_looks_for_no_rates_of_its_own() -> None:
    """What a search costs would be unequal there."""
    with pytest.raises(InputError, match="zocore tournament"):
        lanes(settings(lr=None, auto_lr=True), ["mezo", "grzo"], [0], 100.0)
