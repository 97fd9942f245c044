"""The Memory tab: what fits a card, and any model by its configuration."""

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from app.form import catalogue
from app.jobs.limits import HOSTED, Limits
from app.tabs import fitting, memory
from app.tabs.fitting import WAYS, Card
from app.words import size
from tests.support.short_runs import model_folder
from zocore.errors import InputError
from zocore.memory.bill import CARDS, bill
from zocore.memory.shapes import BUILT_IN, shape_of

RUN: tuple[Any, ...] = (16, 128, "bf16")
LLAMA = json.loads(memory.EXAMPLE)


def drawn(card: str, model: str, config: str = "", free: Any = 24, limits: Limits = Limits()) -> tuple[Any, ...]:
    return memory.draw(limits, card, free, *RUN, model, config)


def test_the_list_is_the_bill_of_every_model_and_way() -> None:
    """Each pair of a model and a way to train stands on one side, by its bill; the next is the least that is over."""
    card = Card("L4 24 GB", CARDS["L4 24 GB"])
    found = fitting.fitting(card, fitting.known(), *RUN)
    assert [one.way for one in found] == list(WAYS) and {"qzo", "qlora-adamw", "mezo", "adamw"} <= set(WAYS)
    for one in found:
        totals = {name: bill(shape_of(name), one.way, *RUN).total for name in BUILT_IN}
        assert {name: b.total for name, b in one.fits} == {n: t for n, t in totals.items() if t <= card.room}
        over = {name: total for name, total in totals.items() if total > card.room}
        assert one.next is not None and one.next[1].total == min(over.values()) == over[one.next[0]]
    by = {one.way: len(one.fits) for one in found}
    assert by["qzo"] >= by["mezo"] > by["adamw"]


def test_the_sentence_follows_the_card_and_says_by_how_much() -> None:
    said, listed, bars, problem = drawn("A100 40 GB", "opt-13b")
    assert "What fits A100 40 GB" in said and "opt-13b" in said and "MeZO" in said and not problem
    over = bill(shape_of("opt-13b"), "adamw", *RUN).total - CARDS["A100 40 GB"]
    assert f"{size(over)} too much" in said
    assert len(bars["figure"]["data"][0]["y"]) == len(WAYS)
    assert 'class="zo-fit zo-chosen"><b>opt-13b</b>' in listed
    said, listed, _, _ = drawn("T4 16 GB", "opt-66b")
    assert "does not fit, whichever way" in said and "too much" in said and "zo-chosen" not in listed
    said, _, _, _ = drawn(memory.OTHER, "gpt2", free=300)
    assert "What fits 300 GB" in said and "fits every way" in said


def test_an_unknown_model_leaves_no_numbers_of_another() -> None:
    """The list of the card stays; the sentence and the bars of the model before are gone."""
    said, listed, bars, problem = drawn("A100 40 GB", "nobody/unheard-of")
    assert "opt-13b" not in said and bars["figure"]["data"] == [] and "are not known here" in problem
    assert "zo-fits" in listed and "zo-chosen" not in listed


def test_a_pasted_configuration_is_a_model_of_the_list() -> None:
    shape = catalogue.shape_of_text(memory.EXAMPLE)
    assert shape.parameters == shape_of("llama-3-8b").parameters and shape.name == "your llama"
    said, listed, _, problem = drawn("H100 80 GB", memory.OWN, memory.EXAMPLE)
    assert not problem and "your llama (8.03 B parameters)" in said and "<b>your llama</b>" in listed
    for name in BUILT_IN:
        assert catalogue.shape_of_text(json.dumps(BUILT_IN[name])).parameters == shape_of(name).parameters


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "5",
        "{",
        "nothing of the kind",
        "[" * 15_000,
        '{"a":' * 3000,
        "9" * 5000,
        json.dumps(LLAMA | {"num_hidden_layers": 10**9}),
        json.dumps(LLAMA | {"hidden_size": 10**30}),
        json.dumps(LLAMA | {"hidden_size": -1}),
        json.dumps(LLAMA | {"hidden_size": 0.5}),
        json.dumps(LLAMA | {"intermediate_size": "wide"}),
        json.dumps(LLAMA | {"intermediate_size": [1, 2]}),
        json.dumps(LLAMA | {"num_key_value_heads": {"a": 1}}),
        json.dumps(LLAMA | {"num_attention_heads": 0}),
        json.dumps(LLAMA | {"head_dim": float("inf")}),
        json.dumps(LLAMA | {"hidden_act": ["silu"]}),
        json.dumps(LLAMA | {"vocab_size": None}),
        json.dumps(LLAMA | {"model_type": ["llama"]}),
        json.dumps({"model_type": "unheard-of"}),
        json.dumps({"model_type": "opt"}),
        json.dumps(LLAMA | {"more": "x" * 20_000}),
    ],
)
def test_a_configuration_that_makes_no_model_is_one_sentence(text: str) -> None:
    with pytest.raises(InputError) as error:
        catalogue.shape_of_text(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    said, _, bars, problem = drawn("A100 40 GB", memory.OWN, text)
    assert "zo-error" in problem and bars["figure"]["data"] == [] and "parameters" not in said


def test_names_from_outside_are_text() -> None:
    named = json.dumps(LLAMA | {"_name_or_path": "<img src=x onerror=alert(1)>"})
    said, listed, _, problem = drawn("H100 80 GB", memory.OWN, named)
    assert "<img" not in said + listed + problem and "<img" in unescape(listed)
    assert "<img" not in drawn("H100 80 GB", "<img src=x>")[3]
    torn = drawn("H100 80 GB", memory.OWN, json.dumps(LLAMA | {"_name_or_path": "half \ud800"}))
    assert "your half ?" in torn[0] and torn[0].encode()


def test_a_folder_is_read_on_ones_own_machine_alone() -> None:
    """A hosted server tells strangers nothing of its folders."""
    folder = model_folder()
    assert not drawn("H100 80 GB", folder)[3]
    for place in (folder, str(Path(folder).parent / "none"), "/etc", "~", "../.."):
        assert "are not known here" in drawn("H100 80 GB", place, limits=HOSTED)[3], place


@pytest.mark.parametrize("free", [0, -1, None, "many", float("nan"), float("inf"), 1e9, True])
def test_free_memory_is_a_number_of_gigabytes(free: Any) -> None:
    said, listed, _, problem = drawn(memory.OTHER, "gpt2", free=free)
    assert "zo-error" in problem and said == listed == ""
