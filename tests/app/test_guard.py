"""What a hosted server takes from strangers, and how often: decided without a server."""

import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from app.form import guard
from app.form.work import work
from app.jobs.limits import BOUNDS, HOSTED, Limits
from app.jobs.visitors import Rate, Visitors
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.subspaces.by_name import contains, name_pattern

NOWHERE = Path("/nowhere")


def test_every_number_of_a_run_has_bounds() -> None:
    """A new setting that is a number is not taken from strangers without a largest value."""
    kinds = {name: set(get_args(kind) or (kind,)) for name, kind in get_type_hints(RunConfig).items()}
    assert {name for name, kind in kinds.items() if kind & {int, float}} == set(BOUNDS)


def test_a_name_pattern_from_outside_is_linear() -> None:
    """The glob agrees with the same regular expression, and is quick where that would need for ever."""
    draw = random.Random(0)
    for _ in range(500):
        glob = "".join(draw.choices("ab.*?", k=draw.randrange(7)))
        name = "".join(draw.choices("ab.", k=draw.randrange(9)))
        wanted = re.search(glob.replace(".", r"\.").replace("*", ".*").replace("?", "."), name)
        assert contains(glob, name) == bool(wanted), (glob, name)
    assert not contains("*a" * 100 + "b", "a" * 200)
    assert name_pattern("glob:layers.*.mlp")("model.layers.3.mlp.up_proj.weight")
    assert not name_pattern("glob:layers.*.mlp")("model.layers.3.norm.weight")


def test_subspaces_from_outside_are_no_regular_expressions() -> None:
    taken = {"all": "all", "lora": "lora", "self_attn": "glob:self_attn", "layers.*.mlp": "glob:layers.*.mlp"}
    for given, run in taken.items():
        config = guard.checked(RunConfig(subspace=given), HOSTED, NOWHERE)
        assert config.subspace == run
        assert guard.checked(config, HOSTED, NOWHERE) == config  # once more changes nothing
    for given in ("(a+)+$", "a|b", "^x", "[a-z]", "", "a" * 201, "x\ny"):
        with pytest.raises(InputError, match="no regular expression"):
            guard.checked(RunConfig(subspace=given), HOSTED, NOWHERE)
        assert guard.checked(RunConfig(subspace=given), Limits(), NOWHERE).subspace == given


def test_uploads_are_the_only_files(tmp_path: Path) -> None:
    mine = tmp_path / "uploads" / "x" / "data.csv"
    assert guard.checked(RunConfig(data=str(mine)), HOSTED, tmp_path / "uploads").data == str(mine)
    for path in ("/etc/passwd", str(tmp_path / "uploads" / ".." / "secret")):
        with pytest.raises(InputError, match="by upload"):
            guard.checked(RunConfig(data=path), HOSTED, tmp_path / "uploads")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"task": "boolq"}, "takes the tasks"),
        ({"patience": 10**6, "eval_every": 1}, "patience is a number from 0 to 1000"),
    ],
)
def test_what_costs_unseen_work_or_a_download_is_refused(settings: Any, sentence: str) -> None:
    config = RunConfig(**settings)
    with pytest.raises(InputError, match=sentence):
        guard.checked(config, HOSTED, NOWHERE)
    assert guard.checked(config, Limits(), NOWHERE) == config


def test_work_counts_all_that_a_run_does() -> None:
    """Every way to ask for more is more work, in proportion where the price is."""
    plain = RunConfig(method="mezo", steps=100, eval_examples=10)
    assert work(replace(plain, steps=1000)) == pytest.approx(10 * work(plain), rel=0.1)
    for more in (
        {"batch_size": 64}, {"method": "mezo-gv"}, {"method": "n-spsa", "directions": 32}, {"method": "grzo"},
        {"eval_every": 1}, {"eval_examples": 1000}, {"measure_every": 1},
    ):  # fmt: skip
        assert work(replace(plain, **more)) > 1.2 * work(plain), more
    assert work(replace(plain, method="n-spsa", directions=32)) > 12 * work(plain)
    assert work(replace(plain, model="nobody/unheard-of")) == math.inf


def test_a_search_for_the_rate_is_taken_and_counted() -> None:
    """It is at most so many steps more, on one's own machine and for strangers alike; backprop has none."""
    given, searched = RunConfig(method="mezo", steps=48, lr=1e-3), RunConfig(method="mezo", steps=48, auto_lr=True)
    assert guard.checked(searched, HOSTED, NOWHERE) == searched
    assert work(replace(searched, eval_examples=1)) == pytest.approx(
        2 * work(replace(given, eval_examples=1)), rel=0.01
    )
    assert work(replace(given, auto_lr=True)) == work(given)


def test_the_presets_of_the_page_fit_a_hosted_run() -> None:
    from app.form.forms import PRESETS

    assert work(PRESETS["toy"]) < HOSTED.work / 10
    assert work(PRESETS["cpu"]) < HOSTED.work


def test_secrets_come_from_the_server() -> None:
    visitors = Visitors("key")
    mine = visitors.issue()
    assert visitors.welcome(mine) == mine
    assert Visitors("key").welcome(mine) == mine  # also after a restart
    for made_up in ("", "ann", "a.b", mine + "x", mine[:-1], Visitors("other").issue(), None, 7, "é.ü", "x" * 10**6):
        other = visitors.welcome(made_up)
        assert other != made_up and visitors.welcome(other) == other


def test_a_rate_counts_each_key_for_itself_and_forgets() -> None:
    now = [0.0]
    rate = Rate(3, 60, clock=lambda: now[0])
    assert [rate.spend("ann") for _ in range(3)] == [0, 0, 0]
    assert rate.spend("ann") == 60 and rate.spend("bob") == 0
    now[0] = 45
    assert rate.spend("ann") == 15
    now[0] = 61
    assert rate.spend("ann") == 0
    assert rate.spend("ann", 4) == math.inf
    rate.give_back("ann", 1)
    assert [rate.spend("ann") for _ in range(3)] == [0, 0, 0] and rate.spend("ann") > 0
    assert Rate(0).spend("ann", 10**9) == 0


def test_no_code_of_a_visitor_runs() -> None:
    """A reward in a file is refused by a hosted server, and taken on one's own machine; those by name are taken."""
    own = RunConfig(method="mezo", objective="reward", reward="/tmp/rewards.py:score")
    with pytest.raises(InputError, match="runs no code of its visitors"):
        guard.checked(own, HOSTED, NOWHERE)
    assert guard.checked(own, Limits(), NOWHERE) == own
    named = replace(own, reward="f1")
    assert guard.checked(named, HOSTED, NOWHERE).reward == "f1"
