"""Rewards by name: what each is worth, and that a word is taken literally."""

import pytest

from zocore.data.built_in_rewards import BUILT_IN, built_in
from zocore.data.rewards import Reward
from zocore.data.texts import Row
from zocore.errors import InputError

ROW = Row({"prompt": "p", "answer": "the right one"}, 0, "a.jsonl, line 1")


@pytest.mark.parametrize(
    ("source", "completion", "worth"),
    [
        ("says=happy", " She was Happy.", 1.0),
        ("says=happy", " unhappy", 0.0),
        ("says=very happy", " very, very  happy", 1.0),
        ("says=.*", None, None),
        ("says=h.ppy", " happy", 0.0),
        ("says=(a+)+$", " aaaaaaaaaaaaaaaaaaaaaaaaaaaa!", 0.0),
        ("full-stop", " It ends. \n", 1.0),
        ("full-stop", " It ends", 0.0),
        ("short", "", 1.0),
        ("short", "one two three four five", 0.75),
        ("short", "word " * 50, 0.0),
        ("em", " Right one\nand more", 1.0),
        ("f1", "right", 2 / 3),
    ],
)
def test_what_a_completion_is_worth(source: str, completion: str | None, worth: float | None) -> None:
    if completion is None:
        with pytest.raises(InputError, match="needs a word"):
            Reward(source)
        return
    assert Reward(source)("p", completion, ROW) == pytest.approx(worth)


@pytest.mark.parametrize("source", ["says", "says=", "says=" + "x" * 101, "loud", "full-stop=5", "os.system", ":f", ""])
def test_what_is_no_reward_is_refused(source: str) -> None:
    with pytest.raises(InputError, match="--reward"):
        Reward(source)


def test_a_reward_of_answers_says_that_there_is_none() -> None:
    for name in ("em", "f1"):
        with pytest.raises(InputError, match="needs the right answer of each row"):
            Reward(name)("p", "text", Row({"prompt": "p"}, 0, "here"))


def test_all_are_listed_and_none_has_a_file() -> None:
    for name, row in BUILT_IN.items():
        source = f"{name}=x" if row.takes_word else name
        assert built_in(source) is not None and Reward(source).version == ""
