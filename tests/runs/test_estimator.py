"""Measures of the estimator against direct computation, the warnings on made-up streams, and the memory meter."""

from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import Tensor

from tests.support.short_runs import settings
from tests.support.toys import Toy, flat, gradient, least_squares, mixed
from zocore.directions.laws import Direction, Gaussian
from zocore.directions.per_example import PerExample
from zocore.methods import build
from zocore.noise.addressed import Key
from zocore.runs.estimator import STRIDE, measure
from zocore.runs.events import StepDone, Warned
from zocore.runs.loop import run
from zocore.runs.warnings import PLATEAU, WINDOW, Watch
from zocore.step.step import Method

EPS = 1e-3
KEY = Key(3, 7)


def method_of(name: str, toy: Toy, **knobs: object) -> Method:
    """A method prepared for a toy."""
    method = build(name, **knobs).prepared(toy.leaves)
    assert isinstance(method, Method)
    return method


def shared(toy: Toy, key: Key, directions: int) -> Tensor:
    """n-SPSA's estimate from explicitly moved weights, all leaves as one vector."""
    total = torch.zeros(())
    for number in range(directions):
        z = Direction(replace(key, direction=key.direction + number), Gaussian())
        slope = (toy.at(z, EPS).double().mean() - toy.at(z, -EPS).double().mean()) / (2 * EPS)
        total = total + slope * flat({leaf.id: z.tensor(leaf).double() for leaf in toy.leaves}) / directions
    return total


def own(toy: Toy, key: Key) -> Tensor:
    """GRZO's estimate, from explicitly moved weights of one example at a time."""
    each = PerExample(key, Gaussian(), toy.count)
    slopes = []
    for i in range(toy.count):
        losses = []
        for offset in (EPS, -EPS):
            with toy.moved(lambda leaf, i=i, offset=offset: offset * each.of(leaf, i)):  # type: ignore[misc]
                losses.append(float(toy.alone(i)))
        slopes.append((losses[0] - losses[1]) / (2 * EPS))
    d = torch.tensor(slopes, dtype=torch.float64)
    coefficients = d / (d.square().mean().sqrt() + 1e-8) / toy.count
    moves = [flat({leaf.id: each.of(leaf, i).double() for leaf in toy.leaves}) for i in range(toy.count)]
    return sum((c * move for c, move in zip(coefficients, moves, strict=True)), torch.zeros(()))


@pytest.mark.parametrize("name", ["mezo", "n-spsa", "grzo"])
@pytest.mark.parametrize("toy_of", [lambda: least_squares(6, 5, 4), mixed], ids=["quadratic", "network"])
def test_variance_length_and_cosine_are_those_of_the_estimates(name: str, toy_of: object) -> None:
    """The figures equal those of estimates computed one by one from moved weights, and of autograd's gradient."""
    toy: Toy = toy_of()  # type: ignore[operator]
    if name == "grzo" and any("table" in leaf.name for leaf in toy.leaves):
        # a table that is looked up moves only in the rows in use: leave those out of the comparison
        toy.leaves[:] = [leaf for leaf in toy.leaves if "places" not in leaf.name]
    knobs = {"directions": 3} if name == "n-spsa" else {}
    method, before = method_of(name, toy, **knobs), flat(toy.weights())
    losses = toy.losses()
    reading = measure(method, toy.leaves, losses, KEY, EPS, count=5)
    keys = [replace(KEY, direction=(k + 1) * STRIDE) for k in range(5)]
    found = torch.stack([own(toy, key) if name == "grzo" else shared(toy, key, 3 if knobs else 1) for key in keys])
    truth = flat(gradient(toy)).double()
    assert reading is not None
    assert reading.variance == pytest.approx(float(found.var(0).sum()), rel=1e-4)
    assert reading.norm == pytest.approx(float(found.square().sum(1).mean().sqrt()), rel=1e-4)
    cosines = torch.nn.functional.cosine_similarity(found, truth[None])
    assert reading.cosine == pytest.approx(float(cosines.square().mean().sqrt()), rel=1e-4)
    assert reading.norm_ratio == pytest.approx(reading.norm / float(truth.norm()), rel=1e-4)
    assert reading.forward_passes == losses.forward_passes == 5 * method.forward_passes() + 1
    assert torch.equal(flat(toy.weights()), before)


@pytest.mark.parametrize("directions", [1, 4])
def test_the_cosine_to_the_gradient_is_the_root_of_directions_over_dimensions(directions: int) -> None:
    """In d dimensions n random directions point sqrt(n/d) at the gradient, within the error of 300 draws."""
    toy = least_squares(6, 20, 20, kind="linear")
    d, count = 400, 300
    method = method_of("n-spsa", toy, directions=directions)
    reading = measure(method, toy.leaves, toy.losses(), KEY, EPS, count=count)
    assert reading is not None
    assert reading.cosine is not None
    # for one direction cos^2 is Beta(1/2, (d-1)/2): mean 1/d, variance about 2/d^2; a chi-square of n for more
    error = sqrt(2 * directions / count) / d
    lean = 0.02 * directions / d  # the directions are not quite orthogonal
    assert abs(reading.cosine**2 - directions / d) < 3 * error + (lean if directions > 1 else 0)
    # and the estimate is sqrt(d + 2) times too long for one direction, E|z|^2 (z.u)^2 = d + 2
    if directions == 1:
        assert reading.norm_ratio == pytest.approx(sqrt(d + 2), rel=4 * sqrt(2.5 / count))


def test_without_backprop_or_with_a_bad_loss_less_is_said() -> None:
    """No gradient, or no room for it, no cosine; a loss that is no number, no reading."""
    toy = least_squares(6, 5, 4)
    method = method_of("mezo", toy)
    reading = measure(method, toy.leaves, toy.losses(), KEY, EPS, count=3, backprop=False)
    assert reading is not None
    assert (reading.cosine, reading.norm_ratio, reading.forward_passes) == (None, None, 6)
    full = toy.losses()

    def no_room() -> None:
        raise torch.OutOfMemoryError

    full.gradient = no_room  # type: ignore[assignment,method-assign]
    assert measure(method, toy.leaves, full, KEY, EPS, count=3) == reading
    toy.leaves[0].tensor[0, 0] = float("nan")
    assert measure(method, toy.leaves, toy.losses(), KEY, EPS, count=3) is None


def test_the_estimates_are_fresh_and_not_the_steps_own() -> None:
    """Directions of a measurement are none that the step draws, and differ between steps."""
    toy = least_squares(6, 5, 4)
    method = method_of("mezo", toy)
    here = measure(method, toy.leaves, toy.losses(), KEY, EPS, count=3)
    there = measure(method, toy.leaves, toy.losses(), replace(KEY, step=8), EPS, count=3)
    again = measure(method, toy.leaves, toy.losses(), KEY, EPS, count=3)
    assert here == again
    assert here is not None
    assert there is not None
    assert here.norm != there.norm
    most = 2**12  # more directions than any step has
    assert most < STRIDE


def step(number: int, loss: float, plus: list[float], minus: list[float], skipped: bool = False) -> StepDone:
    """A made-up step."""
    return StepDone(number, loss, plus, minus, [], [1.0], [0], 1e-3, 1e-3, 2 * number, 2.0, 1.0, 1.0, 0, skipped)


def healthy(number: int) -> StepDone:
    """A noisy loss that falls slowly, with a difference between the two sides."""
    loss = 0.7 * 0.99**number + 0.05 * (-1) ** number
    return step(number, loss, [loss + 0.01], [loss - 0.01])


def warnings(steps: list[StepDone]) -> list[Warned]:
    """Everything a fresh watch says of a stream."""
    watch = Watch()
    return [warning for event in steps for warning in watch.add(event)]


def test_a_healthy_run_gets_no_warning() -> None:
    """Neither a falling loss nor, for a while, a flat one, nor now and then a silent probe or a skipped step."""
    assert warnings([healthy(n) for n in range(1, 200)]) == []
    assert warnings([step(n, 0.69, [0.7], [0.68]) for n in range(1, PLATEAU)]) == []
    some = [step(n, 0.7, [0.7], [0.7]) if n % 3 == 0 else healthy(n) for n in range(1, 100)]
    assert warnings(some) == []
    skipping = [step(n, float("nan"), [], [], skipped=True) if n % 7 == 0 else healthy(n) for n in range(1, 100)]
    assert warnings(skipping) == []


TROUBLE = {
    "learning rate is too high": lambda n: step(n, 0.7 if n <= WINDOW else 3.0, [3.1], [2.9]),
    "same loss on both sides": lambda n: step(n, 0.7, [0.7], [0.7]) if n % 3 else healthy(n),
    "exactly 0": lambda n: step(n, 0.0, [1e-9], [-1e-9]),
}


@pytest.mark.parametrize("said", TROUBLE)
def test_each_trouble_is_told_once_and_alone(said: str) -> None:
    """A stream with one trouble gets that warning, one time, not before a window of steps, with the step's number."""
    found = warnings([TROUBLE[said](n) for n in range(1, 5 * WINDOW)])
    assert len(found) == 1
    assert said in found[0].message
    assert WINDOW <= found[0].step <= 2 * WINDOW


def test_a_loss_that_stands_still_is_told_once_and_only_where_it_should_fall() -> None:
    """Noise about a level is a plateau; a fitted loss, and the end of a schedule, are not."""
    flat = [step(n, 0.6 + 0.1 * (-1) ** n, [0.7], [0.6]) for n in range(1, 400)]
    said = warnings(flat)
    assert len(said) == 1 and "not clearly fallen" in said[0].message and said[0].step == PLATEAU
    assert warnings([step(n, 0.05 + 0.01 * (-1) ** n, [0.06], [0.05]) for n in range(1, 400)]) == []
    falling = [replace(healthy(n), lr=1e-3) for n in range(1, 200)]
    ended = [replace(event, step=event.step + 199, lr=1e-4) for event in flat]
    assert warnings(falling + ended) == []


def test_a_climb_is_measured_from_the_start_of_the_run() -> None:
    """A loss that first falls and then comes back to its start is no climb; one half above it is."""
    back = [step(n, 0.7 if n <= 20 or n > 60 else 0.1, [0.8], [0.6]) for n in range(1, 100)]
    assert warnings(back) == []
    above = [step(n, 0.7 if n <= 20 else 1.3, [1.4], [1.2]) for n in range(1, 100)]
    assert len(warnings(above)) == 1


def test_skipped_steps_are_counted_in_a_row_and_in_all() -> None:
    """A good step ends the row, not the count."""
    watch = Watch()
    for n, skipped in enumerate([True, True, False, True], start=1):
        watch.add(step(n, 0.7, [0.8], [0.6], skipped=skipped))
    assert (watch.skipped_in_row, watch.skipped) == (1, 3)


def test_backprop_has_no_probes_to_be_silent() -> None:
    """A run without probes is not told that its probes say nothing, and a good run is told nothing at all."""
    for changes in ({"method": "adamw"}, {"method": "mezo", "lr": 1e-5}):
        events = list(run(settings(steps=25, eval_examples=1, **changes)))
        assert [event for event in events if isinstance(event, Warned)] == []


def test_a_rate_that_is_too_high_is_told_in_a_real_run() -> None:
    """MeZO with a rate a hundred times too high climbs, and the run says so."""
    events = list(run(settings(steps=60, lr=1e-2, eval_examples=1)))
    said = [event.message for event in events if isinstance(event, Warned)]
    assert any("learning rate is too high" in message for message in said), said
