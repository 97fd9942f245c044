"""A session: batches in one shuffled order per pass, rates, fingerprints, and combinations that are refused."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from tests.support.short_runs import (
    BACKPROP,
    IN_PLACE,
    ZEROTH_ORDER,
    data_file,
    settings,
)
from zocore.config import RunConfig
from zocore.defaults import estimates, filled
from zocore.errors import InputError
from zocore.methods import METHODS
from zocore.presets import Models, Subspace
from zocore.runs.events import RunStarted, StepDone
from zocore.runs.loop import run
from zocore.runs.opening import open_session
from zocore.runs.task import data_fingerprint, read
from zocore.step.feedback import Feedback


def test_every_pass_over_the_data_draws_every_example_once_in_a_new_order() -> None:
    """Batches walk through one permutation per epoch, across the end of an epoch and in any order of asking."""
    session = open_session(settings(batch_size=5))
    train = session.task.train
    count = len(train)
    steps = 2 * count // 5
    drawn = [example for step in range(1, steps + 1) for example in session.examples(step)]
    epochs = [drawn[:count], drawn[count : 2 * count]]
    place = {id(example): number for number, example in enumerate(train)}
    orders = [[place[id(example)] for example in epoch] for epoch in epochs]
    assert [Counter(order) for order in orders] == [Counter(range(count))] * 2
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])
    backwards = [session.examples(step) for step in range(steps, 0, -1)]
    assert [example for batch in reversed(backwards) for example in batch] == drawn


def test_the_batches_depend_on_the_seed_and_not_on_the_method() -> None:
    """Methods of one seed see the same examples at every step; another seed sees others."""
    changed: dict[str, dict[str, Any]] = {
        "mezo": {"batch_size": 4},
        "grzo": {"method": "grzo"},
        "lora": {"subspace": "lora"},
        "adamw": {"method": "adamw"},
    }
    of_method = {
        name: [open_session(settings(**changes)).examples(step) for step in (1, 2, 9)]
        for name, changes in changed.items()
    }
    assert all(batches == of_method["mezo"] for batches in of_method.values())
    assert [open_session(settings(seed=1)).examples(step) for step in (1, 2, 9)] != of_method["mezo"]


def test_the_learning_rate_is_constant_or_falls_to_zero_after_the_last_step() -> None:
    """lr is constant, or linear from its full value at step 1 to 1/steps of it at the last."""
    constant, linear = open_session(settings(schedule="constant")), open_session(settings(schedule="linear"))
    assert [constant.lr(step) for step in (1, 2, 3, 4)] == [1e-3] * 4
    assert [linear.lr(step) for step in (1, 2, 3, 4)] == pytest.approx([1e-3, 0.75e-3, 0.5e-3, 0.25e-3])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_defaults_and_what_the_user_chose_stays(method: str) -> None:
    """Every number is filled in for every method, and a given number is kept."""
    config = filled(RunConfig(method=method, subspace=METHODS[method].home))
    assert (config.lr or 0) > 0
    assert (config.eps or 0) > 0
    assert config.schedule in ("constant", "linear")
    assert filled(RunConfig(method=method, lr=0.5)).lr == 0.5
    assert filled(RunConfig(method=method, eps=0.25)).eps == 0.25


@pytest.mark.parametrize("models", get_args(Models))
@pytest.mark.parametrize("subspace", get_args(Subspace))
@pytest.mark.parametrize("method", METHODS)
def test_a_rate_nobody_tuned_is_an_estimate_that_says_so(method: str, subspace: Subspace, models: Models) -> None:
    """Each combination has a preset of its own, or one scaled from the nearest that says from which and how far."""
    row = METHODS[method]
    found = row.preset(subspace, models)
    own = [known for known in row.presets if (known.subspace, known.models) == (subspace, models)]
    assert found.estimated == (not own)
    if own:
        assert [found] == own
    else:
        assert "an estimate, not tuned" in found.origin
        near = next(known for known in row.presets if known.origin in found.origin and f"{known.lr:g}" in found.origin)
        factor = re.search(r"times (\S+) for", found.origin)
        assert factor
        assert found.lr == pytest.approx(near.lr * float(factor[1]), rel=0.1)  # both are told to two digits


def test_estimates_follow_the_presets_of_their_kind_of_step() -> None:
    """From a large model to the bundled one rates grow 300 times, by slope as by length."""
    mezo, es = METHODS["mezo"], METHODS["openai-es"]
    assert mezo.preset("all", "bundled").lr / mezo.preset("all", "large").lr == pytest.approx(300)
    assert es.preset("all", "bundled").lr / es.preset("all", "large").lr == pytest.approx(300)
    assert mezo.preset("lora", "encoder").lr == pytest.approx(60 * mezo.preset("lora", "large").lr)


def test_a_run_says_that_its_rate_is_an_estimate() -> None:
    """The header notes an estimated rate, and neither a tuned nor a chosen one."""
    cases = {"all": 0, "norm": 1, "scales": 1}
    for subspace, count in cases.items():
        config = filled(RunConfig(method="openai-es", subspace=subspace))
        assert len(estimates(config)) == count
        assert estimates(replace(config, lr=0.125)) == ()
    header = next(event for event in run(settings(subspace="norm", lr=None)) if isinstance(event, RunStarted))
    assert [note for note in header.notes if "estimate" in note]


def test_the_fingerprint_feels_one_bit_of_any_tensor_that_moves() -> None:
    """Equal weights have equal fingerprints, and any changed element of any leaf changes it."""
    session, again = open_session(settings()), open_session(settings())
    first = session.fingerprint()
    assert first == again.fingerprint()
    for leaf in session.leaves:
        flat = leaf.tensor.view(-1)
        old = flat[-1].item()
        flat[-1] = torch.nextafter(flat[-1], torch.tensor(torch.inf))
        assert session.fingerprint() != first
        flat[-1] = old
    assert session.fingerprint() == first


def test_the_data_fingerprint_feels_template_words_examples_and_their_order(tmp_path: Path) -> None:
    """Any change that would change a batch or its loss changes the fingerprint of the data."""
    task = read(settings())
    assert data_fingerprint(read(settings())) == data_fingerprint(task)
    assert data_fingerprint(read(settings(template="{text} This is"))) != data_fingerprint(task)
    assert data_fingerprint(read(settings(label_words="bad,good"))) != data_fingerprint(task)
    lines = Path(data_file()).read_text().splitlines()
    for name, other in {"order": [lines[1], lines[0], *lines[2:]], "fewer": lines[:-2]}.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(other) + "\n")
        assert data_fingerprint(read(settings(data=str(path)))) != data_fingerprint(task), name


def test_a_scalar_parameter_can_be_fingerprinted() -> None:
    """A tensor without dimensions has a fingerprint like any other."""
    session = open_session(settings())
    leaf = session.leaves[0]
    object.__setattr__(leaf, "tensor", torch.tensor(1.0))
    one = session.fingerprint()
    object.__setattr__(leaf, "tensor", torch.tensor(2.0))
    assert session.fingerprint() != one


@pytest.mark.parametrize(
    ("changes", "every"),
    [
        ({"subspace": "writers"}, 8),
        ({"subspace": "writers:1", "push_every": 3}, 3),
        ({"subspace": "writers:1", "onto": "scores"}, 1),
        ({"subspace": "lora"}, 1),
        ({"subspace": "glob:*layers.1.self_attn.o_proj*"}, 1),
    ],
)
def test_pushes_are_as_far_apart_as_suits_what_moves(changes: dict[str, Any], every: int) -> None:
    """Every eighth step for what writes into the hidden state, each where all is to be learned, or as the user says."""
    method = open_session(settings(method="feedback", **changes)).method
    assert isinstance(method, Feedback) and method.push_every == every


@pytest.mark.parametrize("name", [*ZEROTH_ORDER, *BACKPROP, *IN_PLACE])
def test_what_a_step_costs_is_known_before_it_is_done(name: str) -> None:
    """Two steps spend the declared forward passes and cost; only per-example calls cost more than plain ones."""
    changes = (ZEROTH_ORDER | BACKPROP | IN_PLACE)[name]
    session = open_session(settings(**changes))
    passes = cost = 0.0
    for step in (1, 2):
        losses = session.losses(step)
        session.method.step(session.leaves, losses, session.key(step), 1e-6, 1e-3, session.state)
        passes, cost = passes + losses.forward_passes, cost + losses.forward_cost
    assert passes == session.method.forward_passes(2)
    assert cost == pytest.approx(session.cost_of(2))
    assert session.steps_within(cost) == 2 and session.steps_within(0.99 * cost) == 1
    if session.prefix is None:  # with one, a pass begins after the blocks that nothing moves
        assert (cost == passes) == (session.method.zeroth_order and session.flipout is None)
    else:
        assert cost < passes


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a knob of another method": ({"pool": 4}, "mezo has no option --pool"),
    "directions with mezo": ({"directions": 4}, "mezo has no option --directions"),
    "share with greedy": ({"method": "mezo-greedy", "share": 0.5}, "mezo-greedy has no option --share"),
    "noise with backprop": ({"method": "sgd", "noise": "gaussian"}, "sgd has no option --noise"),
    "rank with backprop": ({"method": "adamw", "rank": 2}, "adamw has no option --rank"),
    "signs in thin factors": ({"noise": "rademacher", "rank": 2}, "--noise rademacher and --rank"),
    "qzo elsewhere": ({"method": "qzo", "subspace": "all"}, "qzo and the subspace 'all' do not go together"),
    "backprop on scales": ({"method": "adamw", "subspace": "scales"}, "do not go together"),
    "in-place in 16 bits": ({"dtype": "bf16", "carrier": "in-place"}, "in-place probes drift"),
    "no such name": ({"subspace": "nothing"}, "no parameter name matches 'nothing'"),
    "the last none": ({"subspace": "top:0"}, "'top:0' needs a number of blocks from 1 on, as in top:2"),
    "the last of how many": ({"subspace": "writers:"}, "needs a number of blocks"),
    "more blocks than there are": ({"subspace": "top:99"}, "the model has 2 blocks, so the last 99 cannot be taken"),
    "no room at all": ({"prefix_gib": -1.0}, "--prefix-gib must be 0 or more"),
    "bad expression": ({"subspace": "(["}, "not a regular expression"),
    "a share of zero": ({"keep": 0.0}, "0"),
    "a share that is no number": ({"keep": float("nan")}, "nan"),
    "no clipping": ({"method": "qzo", "clip": float("nan")}, "nan"),
    "no directions": ({"method": "n-spsa", "directions": 0}, "at least 1 direction"),
    "a pool of one": ({"method": "mezo-gv", "pool": 1}, "at least 2 candidates"),
    "an elite of all": ({"method": "mezo-gv", "share": 1.0}, "elite"),
    "a readout with mezo": ({"onto": "scores"}, "mezo has no option --onto"),
    "features of words of several tokens": (
        {"method": "feedback", "subspace": "writers:1", "label_words": "really terrible,great", "onto": "features"},
        "take --onto scores",
    ),
    "features before a head that moves": (
        {"method": "feedback", "subspace": "lm_head", "onto": "features"},
        "take --onto scores",
    ),
    "a deviation of one": ({"method": "grzo", "scale": "std", "batch_size": 1}, "do not go together"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_together_is_refused_in_one_sentence(name: str) -> None:
    """An option that would be ignored, or parts that cannot work, raise ValueError before the first step."""
    changes, said = REFUSED[name]
    with pytest.raises(ValueError) as refusal:
        open_session(settings(**changes))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["template", "label_words", "text_columns", "label_column"])
def test_settings_of_a_data_file_are_not_ignored_without_one(name: str) -> None:
    """A template or column given with a bundled task is refused by name."""
    given: dict[str, Any] = {name: "{text} It was"}
    with pytest.raises(InputError, match="--" + name.replace("_", "-")):
        read(RunConfig(**given))


LABELS = [f"a label of several words {i // 26}{chr(97 + i % 26)}" for i in range(20)]


def rows_of(folder: Path, rows: list[dict[str, object]]) -> str:
    """A file with these rows."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_label_words_that_leave_no_room_for_a_text_are_refused(tmp_path: Path) -> None:
    """Longer than --max-tokens together with the template, for causal and masked models: one sentence."""
    words = {"label_words": " ".join(["terrible"] * 9) + "," + " ".join(["great"] * 9)}
    with pytest.raises(InputError, match="no text fits into 8 tokens"):
        open_session(settings(**words, max_tokens=8))
    with pytest.raises(InputError, match="no text fits into 8 tokens"):
        open_session(settings(model="bert", template="{text} " + "it was " * 5 + "{mask}.", max_tokens=8))
    assert open_session(settings(**words, max_tokens=64)).objective.rows == 2


def test_what_was_left_out_and_what_many_labels_cost_stands_in_the_header(tmp_path: Path) -> None:
    """Rows without a label, numbers as label words and a forward for every label are told as the run starts."""
    rows: list[dict[str, object]] = [{"text": f"the film was {i}", "label": i % 2} for i in range(30)]
    data = rows_of(tmp_path, [*rows, {"text": "lost", "label": float("nan")}])
    header = next(run(settings(data=data, label_words=None)))
    assert isinstance(header, RunStarted)
    assert "1 row left out" in header.notes[0] and "the label words are the numbers 0, 1" in header.notes[1]
    data = rows_of(tmp_path, [{"text": f"the film was {i}", "label": LABELS[i % 20]} for i in range(80)])
    header = next(run(settings(data=data, label_words=None, max_tokens=64)))
    assert isinstance(header, RunStarted)
    assert ["every forward reads each example 20 times" in note for note in header.notes] == [True]


def test_backprop_costs_three_forwards_where_all_moves_and_two_where_adapters_do() -> None:
    """A product forward, one back, and one more only for a weight whose own gradient is wanted."""
    assert open_session(settings(method="adamw")).cost_per_step == 3
    session = open_session(settings(method="adamw", subspace="lora"))
    linear = sum(m.weight.numel() for m in session.loaded.model.modules() if isinstance(m, torch.nn.Linear))
    assert session.cost_per_step == pytest.approx(2 + session.trainable / linear)
    events = list(run(settings(method="adamw", subspace="lora", steps=2)))
    assert [e.forward_cost for e in events if isinstance(e, StepDone)] == pytest.approx(
        [session.cost_per_step, 2 * session.cost_per_step]
    )


def test_seconds_inside_the_model_are_part_of_a_steps() -> None:
    """They grow with every step and leave the rest to noise and updates."""
    for method in ("mezo", "grzo", "adamw"):
        steps = [e for e in run(settings(method=method)) if isinstance(e, StepDone)]
        inside = [e.forward_seconds for e in steps]
        assert inside == sorted(inside) and inside[0] > 0
        assert all(e.forward_seconds < e.seconds for e in steps)
