"""A recorded step opened layer by layer: what is shown is what the run did, and the weights end where it left them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.short_runs import settings
from zocore.diagnostics.recorded_pushes import open_step
from zocore.errors import InputError
from zocore.runs.events import StepDone
from zocore.runs.loop import run
from zocore.runs.opening import open_session
from zocore.runs.recording import claim, record
from zocore.runs.timeline import Timeline, open_timeline
from zocore.step.outer import OuterProducts

METHODS: dict[str, dict[str, Any]] = {
    "feedback": {"method": "feedback", "subspace": "writers:1"},
    "feedback, a push in two steps": {"method": "feedback", "subspace": "writers:1", "push_every": 2},
    "feedback onto scores, two pushes": {
        "method": "feedback", "subspace": "writers:1", "onto": "scores", "directions": 2, "alpha": 0.5,
    },
    "activity": {"method": "activity", "subspace": "writers:1"},
    "activity, one-sided": {"method": "activity", "subspace": "writers:1", "sides": 1, "tie": "none"},
}  # fmt: skip


def recorded(folder: Path, **more: Any) -> Timeline:
    """The timeline of a short run."""
    claim(folder / "run")
    list(record(run(settings(**({"steps": 4} | more))), folder / "run"))
    return open_timeline(folder / "run")


@pytest.mark.parametrize("name", METHODS)
def test_an_opened_step_is_the_step_of_the_run(name: str, tmp_path: Path) -> None:
    """Noise, what was made of it and its length, against an estimate made anew; the replay goes on as before."""
    timeline = recorded(tmp_path, **METHODS[name])
    found = open_step(timeline, 3)
    after = [leaf.tensor.clone() for leaf in timeline.session.leaves]
    timeline.go(0)
    timeline.go(3)
    assert all(torch.equal(leaf.tensor, was) for leaf, was in zip(timeline.session.leaves, after, strict=True))
    live = open_session(settings(**({"steps": 4} | METHODS[name])))
    eps = live.config.eps
    assert eps is not None
    for number in (1, 2):
        live.method.step(live.leaves, live.losses(number), live.key(number), live.lr(number), eps, live.state)
    estimate = live.method.propose(live.losses(3), live.key(3), eps, live.state)
    assert isinstance(estimate, OuterProducts)
    for layer, site in zip(found.layers, estimate.seen.sites, strict=True):
        gy = estimate.gradients(site)
        assert layer.name == (site.weight or site.bias).name and layer.width == site.width
        assert layer.length == pytest.approx(float(gy.norm()), rel=1e-5)
        assert layer.projected[0] == pytest.approx(gy[0, : len(layer.projected[0])].tolist(), rel=1e-2, abs=1e-7)
        assert {abs(value) for row in layer.noise for value in row} <= {0.0, 1.0}
    assert found.eps == eps and len(found.layers) == 2


def test_what_the_feedback_foresaw_is_what_the_run_recorded(tmp_path: Path) -> None:
    """The share, before the step; J grows from nothing, and one layer's J is a part of the whole."""
    timeline = recorded(tmp_path, steps=6, onto="scores", **METHODS["feedback"])
    steps = [event for event in timeline.recording.events if isinstance(event, StepDone)]
    first, later = open_step(timeline, 1), open_step(timeline, 6)
    assert first.foreseen == 0 and [layer.feedback for layer in first.layers] == [0, 0]
    unexplained = steps[5].unexplained
    assert unexplained is not None and later.foreseen == pytest.approx(max(0, 1 - unexplained), abs=1e-5)
    for begun, grown in zip(first.layers, later.layers, strict=True):
        assert begun.learned and grown.feedback and grown.feedback > begun.learned > 0
    again = open_step(timeline, 2)
    assert [layer.feedback for layer in again.layers] == [layer.learned for layer in first.layers]


def test_a_step_between_pushes_is_opened_too(tmp_path: Path) -> None:
    """No noise and nothing foreseen, J as it was before, and what it carried back."""
    timeline = recorded(tmp_path, push_every=3, **METHODS["feedback"])
    pushed, between = open_step(timeline, 4), open_step(timeline, 2)
    assert pushed.foreseen is not None and all(layer.noise and layer.rows for layer in pushed.layers)
    assert between.foreseen is None
    for layer in between.layers:
        assert (layer.noise, layer.rows, layer.foreseen) == ([], 0, None)
        assert layer.feedback == layer.learned and layer.length > 0


def test_steps_that_cannot_be_opened_are_one_sentence(tmp_path: Path) -> None:
    """Of a method that pushes nothing, and beyond the recording."""
    with pytest.raises(InputError, match="mezo moves weights, not the outputs"):
        open_step(recorded(tmp_path / "a", method="mezo"), 1)
    timeline = recorded(tmp_path / "b", **METHODS["activity"])
    with pytest.raises(InputError, match="steps 1 to 4: there is no step 5"):
        open_step(timeline, 5)
    with pytest.raises(InputError, match="there is no step 0"):
        open_step(timeline, 0)
    assert asdict(open_step(timeline, 4))["foreseen"] is None
