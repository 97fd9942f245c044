"""A run as events: their order and numbers, the same twice, and what happens when it is stopped or breaks."""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.short_runs import BACKPROP, IN_PLACE, ZEROTH_ORDER, same, settings, weights
from zocore.runs.events import EstimatorMeasured, EvalDone, Event, RunEnded, RunStarted, SampleShown, StepDone, Warned
from zocore.runs.loop import run, run_session
from zocore.runs.opening import open_session
from zocore.runs.session import Session
from zocore.runs.warnings import MAX_SKIPPED

NEW_HEAD = {"new head": {"model": "bert", "kind": "classifier"}}  # of which transformers draws the missing weights
ALL = ZEROTH_ORDER | BACKPROP | IN_PLACE | NEW_HEAD
TIMED = {"seconds": 0.0, "forward_seconds": 0.0, "steps_per_second": 0.0, "memory_bytes": 0, "peak_memory_bytes": 0}


def untimed(events: Iterator[Event] | list[Event]) -> list[Any]:
    """The events without what a clock or the system says."""
    return [replace(e, **{n: v for n, v in TIMED.items() if hasattr(e, n)}) for e in events]


def of(kind: type, events: list[Event]) -> list[Any]:
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def kinds(events: list[Event]) -> list[str]:
    """Their names."""
    return [type(event).__name__ for event in events]


def breaking(session: Session, at: int, change: Callable[[Tensor], Tensor], count: int = 10**9) -> None:
    """Change what the training forwards numbered at, at + 1, ... return, counted from 1."""
    calls, forward = iter(range(1, 10**9)), session.objective.losses

    def losses(batch: Any) -> Tensor:
        found = forward(batch)
        return change(found) if at <= next(calls) < at + count else found

    session.objective.losses = losses  # type: ignore[method-assign]


@pytest.mark.parametrize("name", ALL)
def test_events_come_in_order_and_their_numbers_add_up(name: str) -> None:
    """Header, look, steps, look, end; passes and cost grow as the plan says; losses fit the gradients."""
    events: list[Any] = list(run(settings(**ALL[name])))
    around = ["EvalDone", "SampleShown"]
    assert kinds(events) == ["RunStarted", *around, *["StepDone"] * 4, *around, "RunEnded"]
    header, end, steps = events[0], events[-1], of(StepDone, events)
    assert isinstance(header, RunStarted)
    plan = open_session(settings(**ALL[name]))
    assert [e.forward_passes for e in steps] == [plan.method.forward_passes(e.step) for e in steps]
    assert [e.forward_cost for e in steps] == pytest.approx([plan.cost_of(e.step) for e in steps])
    assert (header.passes_per_step, header.cost_per_step) == (steps[-1].forward_passes / 4, plan.cost_of(4) / 4)
    assert [e.step for e in steps] == [1, 2, 3, 4]
    assert header.trainable == sum(int(np.prod(shape)) for _, _, shape in header.leaves) > 0
    for e in steps:
        assert 0 < e.loss < 20
        assert not e.skipped
        assert e.memory_bytes > 2 * header.trainable
        assert e.steps_per_second == pytest.approx(e.step / e.seconds)
        if name not in BACKPROP:
            method, sides = header.config["method"], header.config["sides"]
            span = e.eps if method == "fzoo" or (sides or 2 - (method == "feedback")) == 1 else 2 * e.eps
            measured = (np.array(e.loss_plus) - np.array(e.loss_minus)) / span
            np.testing.assert_allclose(e.projected_grads, measured, rtol=1e-9)
            each = 4 if method in ("grzo", "activity", "feedback") else 1  # one for each example of the batch
            assert len(e.projected_grads) == each * len(e.directions)
            if method == "feedback":  # its coefficients are rebuilt from the responses to its pushes
                onto_features = header.replay_passes == header.passes_per_step  # responses are asked again in a replay
                assert (e.responses is None) == (onto_features or not e.directions)
                assert e.responses is None or e.responses["shape"] == [len(e.directions), 4, 2]
                assert (e.unexplained is None) == (not e.directions)
                assert e.unexplained is None or 0 < e.unexplained < 20
            else:
                assert len(e.coefficients) == len(e.projected_grads)
                assert any(e.coefficients)
    assert (end.status, end.steps, end.skipped) == ("finished", 4, 0)
    assert (end.forward_passes, end.forward_cost) == (steps[-1].forward_passes, steps[-1].forward_cost)


def test_the_answers_shown_are_the_models_on_the_first_test_examples() -> None:
    """Five sentences with their true labels, and probabilities that sum to one, the same as the evaluation's model."""
    session = open_session(settings())
    events: list[Any] = list(run_session(session))
    before, after = of(SampleShown, events)
    assert before.texts == after.texts == [example.fields["text"] for example in session.task.test[:5]]
    assert before.labels == [session.task.label_names[example.label] for example in session.task.test[:5]]
    np.testing.assert_allclose(np.sum(after.probabilities, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(after.probabilities, session.objective.probabilities(after.texts), rtol=1e-4)
    assert before.probabilities != after.probabilities


@pytest.mark.parametrize("name", ["mezo", "grzo", "fzoo", "qzo nf4", "lora", "bf16", "adamw", "in-place"])
def test_a_seed_decides_everything(name: str) -> None:
    """Two runs of one seed give the same events bit for bit; seed 0 is a seed; another seed differs."""
    runs = {seed: untimed(run(settings(**ALL[name], seed=seed))) for seed in (0, 1)}
    assert untimed(run(settings(**ALL[name], seed=0))) == runs[0]
    zero, one = (of(StepDone, runs[seed]) for seed in (0, 1))
    assert all(a.loss != b.loss for a, b in zip(zero, one, strict=True))
    assert runs[0][-1].weights_fingerprint != runs[1][-1].weights_fingerprint


@pytest.mark.parametrize("name", ["mezo", "grzo", "adam", "adamw", "qzo nf4", "in-place", "bf16 with masters"])
def test_measuring_and_evaluating_leave_the_run_as_it_is(name: str) -> None:
    """With evaluations and diagnoses in between, steps, counts and final weights are bitwise the same."""
    plain = untimed(run(settings(**ALL[name])))
    watched = untimed(run(settings(**ALL[name], eval_every=1, measure_every=2)))
    assert of(StepDone, watched) == of(StepDone, plain)
    assert watched[-1] == plain[-1]
    assert [(e.step, e.split) for e in of(EvalDone, watched)] == [
        (0, "test"),
        *((s, "dev") for s in (1, 2, 3, 4)),
        (4, "test"),
    ]
    measured = of(EstimatorMeasured, watched)
    assert [e.step for e in measured] == ([] if name == "adamw" else [0, 2])
    for e in measured:
        header = plain[0]
        backprop = 1 if e.cosine is not None else 0
        assert e.forward_passes == e.estimates * header.passes_per_step + backprop
        assert (e.cosine is None) == (name in ("qzo nf4", "bf16 with masters"))
        assert e.variance > 0


@pytest.mark.parametrize("after", [0, 1, 3])
def test_stop_ends_after_the_step_and_still_evaluates(after: int) -> None:
    """A stop asked during step n lets n finish, evaluates, shows the answers, and ends as stopped."""
    seen: list[Event] = []
    for event in run(settings(), stop=lambda: len(of(StepDone, seen)) >= after):
        seen.append(event)
    around = ["EvalDone", "SampleShown"]
    assert kinds(seen) == ["RunStarted", *around, *["StepDone"] * after, *around, "RunEnded"]
    end = seen[-1]
    assert isinstance(end, RunEnded)
    assert (end.status, end.steps) == ("stopped", after)
    assert str(after) in end.reason


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["mezo", "grzo", "fzoo", "mezo-gv", "adamw"])
def test_a_loss_that_is_no_number_skips_the_step(name: str, value: float) -> None:
    """The step leaves the weights bitwise, has no coefficients, is counted, and the next one goes on."""
    session = open_session(settings(**ALL[name]))
    passes = session.method.forward_passes()
    breaking(session, 1 + passes, lambda found: found.index_fill(0, torch.tensor([1]), value), count=passes)
    after: list[list[Tensor]] = []
    events: list[Any] = []
    for event in run_session(session):
        events.append(event)
        if isinstance(event, StepDone):
            after.append(weights(session))
    steps = of(StepDone, events)
    assert [e.skipped for e in steps] == [False, True, False, False]
    assert steps[1].coefficients == []
    assert same(after[0], after[1])
    assert not same(after[1], after[2])
    assert (events[-1].status, events[-1].skipped) == ("finished", 1)


def test_losses_that_stay_no_number_end_the_run_with_the_reason() -> None:
    """Five skipped steps in a row fail the run; fewer, with a good one between, do not."""
    session = open_session(settings(steps=20))
    breaking(session, 5, lambda found: found * float("nan"))
    events: list[Any] = list(run_session(session))
    assert [e.skipped for e in of(StepDone, events)] == [False, False] + [True] * MAX_SKIPPED
    assert (events[-1].status, events[-1].skipped) == ("failed", MAX_SKIPPED)
    assert "not a finite number in 5 steps in a row" in events[-1].reason
    assert kinds(events)[-3:] == ["EvalDone", "SampleShown", "RunEnded"]
    session = open_session(settings(steps=12))
    for first in (3, 13):  # four steps, a good one, four steps
        breaking(session, first, lambda found: found * float("nan"), count=8)
    end: Any = list(run_session(session))[-1]
    assert (end.status, end.skipped) == ("finished", 8)


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_always_called")


def hooks(session: Session) -> int:
    """How many hooks the model's modules carry."""
    return sum(len(getattr(module, kind)) for module in session.loaded.model.modules() for kind in HOOKS)


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), torch.OutOfMemoryError("no room")])
@pytest.mark.parametrize("name", ["mezo", "grzo", "mezo-gv", "qzo nf4", "bf16", "adamw"])
def test_an_error_inside_a_forward_leaves_the_weights_where_the_step_began(name: str, error: BaseException) -> None:
    """Weights are bitwise those after the last step, no hook is left, the end says why, and the error comes out."""
    session = open_session(settings(**ALL[name]))
    hooked = hooks(session)
    deep = next(m for n, m in session.loaded.model.named_modules() if n.endswith("layers.1.mlp.down_proj"))
    armed = False

    def fail(*_: Any) -> None:
        if armed:
            raise error

    handle = deep.register_forward_hook(fail)
    events: list[Event] = []
    with pytest.raises(type(error)):  # noqa: PT012
        for event in run_session(session):
            events.append(event)
            if isinstance(event, StepDone) and event.step == 2:
                before, answers = weights(session), session.objective.probabilities(["a good film"])
                armed = True
    handle.remove()
    assert same(weights(session), before)
    # what the modules read, which while a probe lasts is not what is stored
    assert torch.equal(session.objective.probabilities(["a good film"]), answers)
    assert hooks(session) == hooked
    if isinstance(error, KeyboardInterrupt):  # not a failure: whoever pressed the keys knows
        assert isinstance(events[-1], StepDone)
    else:
        end = events[-1]
        assert isinstance(end, RunEnded)
        assert (end.status, end.steps) == ("failed", 2)
        assert ("out of memory" in end.reason) == isinstance(error, torch.OutOfMemoryError)
        assert end.weights_fingerprint == session.fingerprint()
    # the session is whole: the same step can be done again
    fresh = open_session(settings(**ALL[name]))
    for number in (1, 2, 3):
        s = session if number == 3 else fresh
        s.method.step(s.leaves, s.losses(number), s.key(number), s.lr(number), 1e-3, s.state)
    fresh.method.step(fresh.leaves, fresh.losses(3), fresh.key(3), fresh.lr(3), 1e-3, fresh.state)
    assert same(weights(session), weights(fresh))


@pytest.mark.parametrize("name", ["mezo", "grzo", "lora", "qzo nf4", "adamw", "new head"])
def test_the_global_generators_are_left_alone(name: str) -> None:
    """A whole run, model loading included, moves no global random state of torch, NumPy or Python."""

    def states() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

    before = states()
    list(run(settings(**ALL[name], measure_every=2)))
    assert states() == before
    torch.rand(3)
    losses = [e.loss for e in of(StepDone, list(run(settings(**ALL[name]))))]
    torch.rand(5)
    assert [e.loss for e in of(StepDone, list(run(settings(**ALL[name]))))] == losses


@pytest.mark.parametrize("name", ["mezo", "adamw"])
def test_grad_mode_is_the_callers_own_in_every_thread(name: str) -> None:
    """Each event drawn in a thread of its own leaves grad mode on there and here, and the events are the same."""
    config = settings(**ALL[name], measure_every=2)
    events, modes, source = [], [], run(config)

    def draw() -> None:
        event = next(source, None)
        modes.append(torch.is_grad_enabled())
        if event is not None:
            events.append(event)

    while len(modes) == len(events):
        thread = threading.Thread(target=draw)
        thread.start()
        thread.join()
        assert torch.is_grad_enabled()
    assert all(modes)
    assert untimed(events) == untimed(run(config))


def test_leaving_a_run_early_is_no_failure() -> None:
    """A caller that drops the generator in the middle gets no exception, and the weights stay after that step."""
    session = open_session(settings())
    source: Any = run_session(session)
    for event in source:
        if isinstance(event, StepDone):
            break
    before = weights(session)
    source.close()
    assert same(weights(session), before)


def test_settings_that_cannot_work_fail_before_the_first_event() -> None:
    """No header is told of a run that cannot start."""
    with pytest.raises(ValueError, match="no parameter name matches"):
        next(run(settings(subspace="nothing")))


def test_an_estimator_that_cannot_be_measured_is_told_and_the_run_goes_on() -> None:
    """A diagnosis with losses that are no numbers gives a warning in place of figures."""
    session = open_session(settings(measure_every=100))
    breaking(session, 1, lambda found: found * float("nan"), count=2)
    events: list[Any] = list(run_session(session))
    assert of(EstimatorMeasured, events) == []
    assert "could not be measured" in of(Warned, events)[0].message
    assert events[-1].status == "finished"
