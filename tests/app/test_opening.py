"""What the page opens with is recorded, whole, and true to the run that it shows."""

import json
from itertools import pairwise

import pytest
import torch

from app import opening_run
from app.tabs import opening
from zocore.config import RunConfig
from zocore.diagnostics.loss_surface import Plane, heights, weights
from zocore.models.objectives.evaluation import evaluate
from zocore.runs.opening import open_session


def test_the_recording_is_whole() -> None:
    run = opening.recorded()
    assert len(run["heights"]) == len(run["ys"]) and all(len(row) == len(run["xs"]) for row in run["heights"])
    assert run["beats"][0]["place"] == [0, 0] and run["last"]["place"] == pytest.approx([1, 0], abs=1e-3)
    for beat in run["beats"]:
        x, y = beat["place"]
        assert run["xs"][0] < x < run["xs"][-1] and run["ys"][0] < y < run["ys"][-1]
        assert beat["direction"][0] ** 2 + beat["direction"][1] ** 2 == pytest.approx(1, abs=0.01)
    for number, (_, label) in enumerate(run["sentences"]):
        first, last = run["beats"][0]["answers"][number], run["last"]["answers"][number]
        assert first.index(max(first)) != label and last.index(max(last)) == label
    assert run["accuracy"][0] < run["accuracy"][1]
    assert len(json.dumps(run)) < 20_000


def test_the_sentence_about_memory_is_a_prediction_of_the_engine() -> None:
    from zocore.memory.bill import GB, bill
    from zocore.memory.shapes import shape_of

    said = opening.memory()
    for method in ("mezo", "adamw"):
        assert f"{bill(shape_of(opening.MODEL), method, opening.ROWS, opening.TOKENS, 'bf16').total / GB:.0f}" in said


def test_the_plane_holds_its_three_points_and_the_weights_stay() -> None:
    session = open_session(RunConfig(method="mezo", device="cpu", lr=1e-3, eps=1e-3))
    start = weights(session)
    middle, end = start + torch.randn_like(start) * 1e-2, start + torch.randn_like(start) * 1e-2
    plane = Plane.through(start, middle, end)
    x, y = plane.place(middle)
    assert torch.allclose(plane.origin + x * plane.x + y * plane.y, middle, atol=1e-5)
    assert float(plane.x @ plane.y) == pytest.approx(0, abs=1e-4)
    examples = session.task.train[:4]
    here = evaluate(session.objective, examples, 4).loss
    assert heights(session, plane, [0.0, 1.0], [0.0], examples)[0][0] == pytest.approx(here, rel=1e-5)
    assert torch.equal(weights(session), start)


def test_moments_are_closer_at_first_and_end_with_the_run() -> None:
    shown = opening_run.moments(300)
    gaps = [after - before for before, after in pairwise(shown)]
    assert shown[0] == 0 and shown[-1] == 300 and gaps == sorted(gaps)
