"""Every fault ends in a warning of its own; a sound run ends in none."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support import tiny
from zocore.config import RunConfig
from zocore.diagnostics.broken_runs import FAULTS, run_broken
from zocore.diagnostics.machinery_checks import find_fault, restore_drift, update_alignment
from zocore.runs.events import Event, RunEnded, Warned
from zocore.runs.opening import open_session

WARNINGS = {
    "lr": "learning rate is too high",
    "tiny-eps": "eps is too small",
    "huge-eps": "eps is too large",
    "lost-seed": "the seed was lost",
    "no-restore": "take the way back",
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    model: Path = tiny.save(tmp_path_factory.mktemp("broken") / "llama", "llama")
    settled = {"method": "mezo", "task": "sentiment", "lr": 1e-4, "eps": 1e-3, "steps": 120}
    return RunConfig(model=str(model), batch_size=8, eval_examples=4, **settled)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_run_ends_in_a_warning_that_names_its_fault(config, name):
    events: list[Event] = list(run_broken(name, config))
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert warnings and WARNINGS[name] in warnings[0]
    assert isinstance(events[-1], RunEnded) and events[-1].steps < 120


def test_a_sound_session_passes_every_check(config):
    session = open_session(config)
    before = session.fingerprint()
    assert restore_drift(session) == 0
    assert update_alignment(session, 1) == pytest.approx(1, abs=1e-3)
    assert find_fault(session, 1) is None
    assert session.fingerprint() == before


@pytest.mark.parametrize("update", ["momentum", "adam"])
def test_the_step_of_a_check_is_undone_in_the_updates_buffers_too(config, update):
    """A check in the middle of a run leaves weights and buffers as they were, bit for bit."""
    session = open_session(replace(config, update=update))
    session.method.step(session.leaves, session.losses(1), session.key(1), 1e-3, 1e-3, session.state)
    before, buffers = session.fingerprint(), {name: buffer.clone() for name, buffer in session.state.items()}
    update_alignment(session, 2)
    assert session.fingerprint() == before
    assert session.state.keys() == buffers.keys()
    assert all(torch.equal(session.state[name], buffer) for name, buffer in buffers.items())
