"""Runs with a frozen prefix: the same bits as without, also after a resume, at the cost of what is really run."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.short_runs import settings
from zocore.config import RunConfig
from zocore.methods import METHODS
from zocore.models.objectives.evaluation import evaluate
from zocore.runs import opening
from zocore.runs.events import Event, RunEnded, RunStarted, StepDone
from zocore.runs.kept_prefix import joined, taken_apart
from zocore.runs.loop import run, run_session
from zocore.runs.opening import open_session
from zocore.runs.recording import claim, read_recording, record
from zocore.runs.replay import run_again
from zocore.runs.session import Session
from zocore.subspaces.blocks import blocks_of

TRAIN = 20  # examples of the short data file that are for training: five batches of four
ON_TOP = [name for name, row in METHODS.items() if row.home != "scales"]
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"model": "gpt2"},
    "opt, labels of several tokens": {"model": "opt", "label_words": "very terrible food,great"},
    "bert, masked": {"model": "bert"},
    "bert, new classifier": {"model": "bert", "kind": "classifier"},
    "roberta, encoder": {"model": "roberta", "kind": "encoder"},
    "micro-batches": {"micro_batch": 3},
    "bf16": {"dtype": "bf16"},
    "a batch that straddles two passes": {"batch_size": 6},
    "a batch larger than the data": {"batch_size": 24},
    "writers": {"subspace": "writers:1"},
    "a pattern": {"subspace": r"\.1\..*(proj|dense|fc)"},
}

ODD_BATCHES = ["micro-batches", "a batch that straddles two passes", "a batch larger than the data"]


def of(config: RunConfig, prefix: bool = True) -> Session:
    """A session, with the prefix switched off if wished."""
    session = open_session(config)
    assert session.prefix is not None
    session.prefix = session.prefix if prefix else None
    return session


def top(**changes: Any) -> RunConfig:
    """A short run that moves the last block."""
    return settings(**{"subspace": "top:1", "lr": 1e-2} | changes)


def walked(session: Session) -> tuple[str, list[float], list[float]]:
    """The fingerprint after a whole run, and the losses and costs on the way."""
    events = list(run_session(session))
    steps = [event for event in events if isinstance(event, StepDone)]
    end = events[-1]
    assert isinstance(end, RunEnded)
    assert end.status == "finished"
    return end.weights_fingerprint, [event.loss for event in steps], [event.forward_cost for event in steps]


@pytest.fixture
def mixing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the first block's output depend, far beyond rounding, on which examples share a batch and its padding."""

    def mix(_: Any, __: Any, output: Tensor) -> Tensor:
        return output + 0.1 * output.mean()

    def load(*args: Any, **kwargs: Any) -> Any:
        loaded = before(*args, **kwargs)
        blocks_of(loaded.model)[0].register_forward_hook(mix)
        return loaded

    before = opening.load  # type: ignore[attr-defined]
    monkeypatch.setattr(opening, "load", load)


@pytest.mark.parametrize("method", ON_TOP)
def test_every_method_ends_at_the_same_bits_with_and_without(method: str) -> None:
    """One pass over the data, central, one-sided, pooled, per example and by backprop: fingerprint and losses equal."""
    last = "top:1" if METHODS[method].home == "all" else "writers:1"  # pushes move linear layers alone
    config = top(method=method, subspace=last, steps=TRAIN // 4)
    assert walked(of(config))[:2] == walked(of(config, prefix=False))[:2]


@pytest.mark.parametrize("name", MODELS)
def test_every_sort_of_model_and_batch_gives_the_same_bits(name: str) -> None:
    """The same over two passes where nothing is kept between steps, and over the first where it is."""
    config = top(method="grzo", **MODELS[name])
    several = replace(config, steps=-(-2 * TRAIN // config.batch_size), prefix_gib=0.0)
    assert walked(of(several))[:2] == walked(of(several, prefix=False))[:2]
    kept, plain = of(config), of(config, prefix=False)
    for step in range(1, TRAIN // config.batch_size + 1):
        assert torch.equal(kept.losses(step)(), plain.losses(step)())


@pytest.mark.usefixtures("mixing")
def test_kept_values_are_those_of_the_first_pass_and_of_no_other_batch() -> None:
    """With a block that mixes its batch, later passes see the first pass's values; the bits before are untouched."""
    config = top(steps=12)
    kept, plain = of(config), of(config, prefix=False)
    assert kept.kept is not None
    home = {}
    for step in range(1, 6):
        assert torch.equal(kept.losses(step)(), plain.losses(step)())
        part = plain.parts(step)[0]
        home |= dict(zip(plain.numbers(step), taken_apart(kept.kept.run(part), part), strict=True))
    assert sorted(home) == list(range(TRAIN))
    for step in (6, 9):
        part = kept.parts(step)[0]
        hidden = joined([home[number] for number in kept.numbers(step)], part)
        assert kept.prefix is not None
        with kept.prefix.standing_in(hidden), torch.no_grad():
            wanted = kept.objective.losses(part)
        assert torch.equal(kept.losses(step)(), wanted)
        assert not torch.equal(wanted, plain.losses(step)())


@pytest.mark.usefixtures("mixing")
@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("mezo", {}),
        ("fzoo", {"batch_size": 6}),
        ("grzo", {"batch_size": 6, "micro_batch": 4}),
        ("grzo", {"batch_size": 24}),
        ("feedback", {"subspace": "writers:1"}),
    ],
)
def test_a_resumed_run_comes_to_the_same_bits(method: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """Cut off in any pass, with nothing kept at hand, a run goes on as if it had never stopped: bits, losses, costs."""
    config = top(method=method, steps=9, lr=1e-3, **changes)

    def told(events: list[Event]) -> list[Any]:
        return [(e.step, e.loss, e.coefficients, e.forward_cost) for e in events if isinstance(e, StepDone)]

    claim(tmp_path / "run")
    whole = list(record(run(config), tmp_path / "run"))
    for cut in (3, 7):
        folder = tmp_path / f"cut{cut}"
        claim(folder)
        asked = iter([False] * cut + [True] * 9)
        list(record(run(config, stop=lambda asked=asked: next(asked)), folder))  # type: ignore[misc]
        rest = list(run(config, recording=read_recording(folder)))
        assert told(rest) == told(whole)[cut:]
        assert vars(rest[-1])["weights_fingerprint"] == vars(whole[-1])["weights_fingerprint"]
    again = run_again(read_recording(tmp_path / "run"), 9)
    assert again.fingerprint() == vars(whole[-1])["weights_fingerprint"]


@pytest.mark.parametrize("name", ["llama", "bert, new classifier", *ODD_BATCHES])
@pytest.mark.parametrize("gib", [0.0, 1.0])
def test_what_a_run_costs_is_what_it_runs(name: str, gib: float) -> None:
    """The prefix once per new example or, where nothing is kept, per step; each pass the rest; known beforehand."""
    config = top(**MODELS[name], prefix_gib=gib)
    config = replace(config, steps=-(-3 * TRAIN // config.batch_size))
    session = of(config)
    assert session.prefix is not None
    costs, share = walked(session)[2], session.prefix.share
    assert 0 < share < 1
    fed = [min(step * config.batch_size, TRAIN) / config.batch_size for step in range(1, config.steps + 1)]
    fed = fed if gib else list(range(1, config.steps + 1))
    expected = [2 * (1 - share) * step + share * new for step, new in enumerate(fed, 1)]
    assert costs == pytest.approx(expected)
    assert [session.cost_of(step) for step in range(1, config.steps + 1)] == pytest.approx(expected)
    assert session.cost_per_step == pytest.approx(expected[-1] / config.steps)
    for step, (cost, later) in enumerate(pairwise(expected), 1):
        assert session.steps_within((cost + later) / 2) == step


def test_backprop_pays_for_the_later_blocks_alone() -> None:
    """Forward and backward cost three plain forwards of what moves; per-example products come on top of a call."""
    for method, factor in {"adamw": 3.0, "mezo": 2.0}.items():
        session = of(top(method=method, prefix_gib=0.0, steps=2))
        assert session.prefix is not None
        share = session.prefix.share
        assert walked(session)[2] == pytest.approx([factor * (1 - share) + share, 2 * factor * (1 - share) + 2 * share])
    whole, late = of(top(method="grzo"), prefix=False), of(top(method="grzo"))
    assert late.prefix is not None
    assert whole.cost_of(1) - late.cost_of(1) == pytest.approx(2 * late.prefix.share - late.prefix.share)


def blocks_run(session: Session) -> list[int]:
    """A list that grows by the block's number whenever a module inside one is entered."""
    entered: list[int] = []
    for number, block in enumerate(blocks_of(session.loaded.model)):
        next(block.children()).register_forward_pre_hook(lambda *_, n=number: entered.append(n))  # type: ignore[misc]
    return entered


def test_frozen_blocks_run_once_an_example() -> None:
    """In the first pass once a batch, afterwards not at all; without room for the outputs, once a step."""
    for gib, runs in {1.0: 5, 0.0: 10}.items():
        session = of(top(steps=10, prefix_gib=gib))
        assert session.kept is not None
        assert session.kept.fits == bool(gib)
        entered = blocks_run(session)
        for step in range(1, 11):
            losses = session.losses(step)
            session.method.step(session.leaves, losses, session.key(step), 1e-3, 1e-3, session.state)
        assert entered.count(0) == runs
        assert entered.count(1) == 20


@pytest.mark.parametrize("name", ["llama", "bert, masked", "roberta, encoder", "bf16"])
def test_an_evaluation_gives_the_same_bits_and_runs_frozen_blocks_once(name: str) -> None:
    """Twice the same examples: the scores of a plain evaluation, the second time from the later blocks alone."""
    session = of(top(**MODELS[name]))
    plain = evaluate(session.objective, session.task.test, 4)
    assert session.kept is not None
    assert session.kept.fits  # looked at once, before blocks are counted
    entered = blocks_run(session)
    for _ in range(2):
        assert evaluate(session.objective, session.task.test, 4, log_probs=session.log_probs) == plain
    assert entered.count(1) == 2 * entered.count(0) > 0
    none = of(top(**MODELS[name], prefix_gib=0.0))
    assert evaluate(none.objective, none.task.test, 4, log_probs=none.log_probs) == plain
    assert none.kept_bytes() == 0


@pytest.mark.parametrize("name", ["opt, labels of several tokens", "bert, masked", "bf16", *ODD_BATCHES])
def test_what_is_kept_stays_within_its_memory(name: str) -> None:
    """The bytes foreseen are the bytes taken, real tokens alone; one byte less of room and nothing is kept."""
    session = of(top(**MODELS[name], steps=40))
    assert session.kept is not None
    for step in range(1, -(-TRAIN // session.config.batch_size) + 1):
        session.losses(step)()
    tokens = sum(int(session.objective.batch([e]).attention_mask.sum()) for e in session.task.train)
    taken = tokens * 64 * (2 if session.config.dtype == "bf16" else 4)
    assert session.kept_bytes() == taken
    for room, fits in {taken: True, taken - 1: False}.items():
        tight = of(top(**MODELS[name], steps=40, prefix_gib=room / 2**30))
        assert tight.kept is not None
        assert tight.kept.fits == fits
        evaluate(tight.objective, tight.task.test, 4, log_probs=tight.log_probs)
        for step in range(1, 11):
            tight.losses(step)()
        assert tight.kept_bytes() <= room
        assert (tight.kept_bytes() == taken) == fits


def test_a_run_that_draws_nothing_twice_keeps_nothing_of_its_training_examples() -> None:
    """There is nothing to be gained from it."""
    session = of(top(steps=TRAIN // 4))
    for step in range(1, TRAIN // 4 + 1):
        session.losses(step)()
    assert session.kept_bytes() == 0


def test_the_memory_reading_counts_what_is_kept() -> None:
    """A run that keeps reads higher than one that does not, by what is kept, give or take a batch."""
    peaks, kept = {}, 0
    for gib in (0.0, 1.0):
        session = of(top(steps=10, prefix_gib=gib))
        peaks[gib] = vars(list(run_session(session))[-1])["peak_memory_bytes"]
        kept = max(kept, session.kept_bytes())
    assert kept > 50_000
    assert abs(peaks[1.0] - peaks[0.0] - kept) < 0.5 * kept


def test_the_header_tells_what_is_frozen() -> None:
    """Blocks and frozen blocks where there are some, zeros where everything moves."""
    for changes, told in (({"subspace": "top:1"}, (1, 2)), ({"subspace": "all"}, (0, 0))):
        start = next(iter(run(settings(**changes))))
        assert isinstance(start, RunStarted)
        assert (start.frozen_blocks, start.blocks) == told


@pytest.mark.parametrize("step", [1, 6])
def test_examples_of_ones_own_choice_begin_after_the_prefix_too(step: int) -> None:
    """A batch that is no step's gives the bits of a whole forward, and the blocks below run once for many calls."""
    session, plain = of(top()), of(top(), prefix=False)
    examples = session.examples(step)
    entered = blocks_run(session)
    losses = session.losses_of(examples)
    wanted = plain.losses_of(examples)()
    for _ in range(3):
        assert torch.equal(losses(), wanted)
    assert (entered.count(0), entered.count(1)) == (1, 3)


def test_quantised_blocks_are_stood_in_for() -> None:
    """Blocks of 4-bit layers, whose scales stay, below norms that move."""
    config = settings(quantise="nf4", subspace=r"layers\.1\..*norm|model\.norm", steps=4)
    assert walked(of(config))[:2] == walked(of(config, prefix=False))[:2]
