"""Rows of text from files: what is read, how it is split, and one sentence for what is wrong."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from zocore.data.rewards import Reward
from zocore.data.texts import Row, read_texts
from zocore.errors import InputError


def jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_paragraphs_of_a_text_file(tmp_path: Path) -> None:
    """Each paragraph is a row that knows its first line; lines of one stay together."""
    (tmp_path / "t.txt").write_text("\n".join(f"line {n}\nmore\n\n" for n in range(10)))
    task = read_texts(tmp_path / "t.txt")
    rows = [*task.train, *task.dev, *task.test]
    assert (len(task.train), len(task.dev), len(task.test)) == (7, 1, 2)
    places = {row.fields["text"]: row.place for row in rows if isinstance(row, Row)}
    assert places["line 1\nmore"] == "t.txt, line 5" and len(places) == 10


def test_prompts_from_columns_keep_their_row(tmp_path: Path) -> None:
    """A template makes the prompt, the answer may be a list, and all columns stay."""
    rows = [{"q": f"what is {n}?", "a": [str(n), f"no. {n}"], "level": n} for n in range(10)]
    task = read_texts(jsonl(tmp_path / "q.jsonl", rows), template="Q: {q}\nA:", answer_column="a")
    one = next(row for row in task.train if row.fields["level"] == "3" or row.fields["q"])
    assert one.fields["prompt"] == f"Q: {one.fields['q']}\nA:"
    assert json.loads(one.fields["answer"])[0] in one.fields["q"]


def test_rows_with_nothing_to_read_are_left_out_and_named(tmp_path: Path) -> None:
    """Of a template's columns, of the answer, and of the one column that is the prompt."""
    full = [{"q": f"what is {n}?", "prompt": f"{n}", "a": str(n)} for n in range(10)]
    holes: list[dict[str, Any]] = [
        *full[:4],
        {"q": "", "prompt": "x", "a": "1"},
        *full[4:],
        {"q": "why?", "prompt": "", "a": None},
    ]
    path = jsonl(tmp_path / "q.jsonl", holes)
    whole = read_texts(jsonl(tmp_path / "whole.jsonl", full), template="Q: {q}", answer_column="a")
    asked = read_texts(path, template="Q: {q}", answer_column="a")
    assert [row.fields for row in asked.train] == [row.fields for row in whole.train]
    assert asked.notes == ("q.jsonl: 2 rows left out, with nothing in 'q' or 'a', in lines 5, 12",)
    alone = read_texts(path)
    assert len(alone.train + alone.dev + alone.test) == 11
    assert alone.notes == ("q.jsonl: 1 row left out, with nothing in 'prompt', in line 12",)


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([{"prompt": "a"}] * 3, {}, "3 rows, too few"),
        ([{"prompt": "a"}] * 10, {"template": "{q}"}, r"names \{q\}"),
        ([{"prompt": "a"}] * 10, {"answer_column": "a"}, "no column 'a'"),
        ([{"q": ""}] * 10, {"template": "{q}"}, "no row left with a text in 'q'"),
        ([{"prompt": "a", "a": ""}] * 10, {"answer_column": "a"}, "no row left with a text in 'prompt' and 'a'"),
    ],
)
def test_wrong_rows_are_one_sentence(rows: list, options: dict, said: str, tmp_path: Path) -> None:
    """With the line where there is one."""
    with pytest.raises(InputError, match=said):
        read_texts(jsonl(tmp_path / "q.jsonl", rows), **options)


REWARDS = """
import math
def fine(prompt, completion, row): return len(completion) + int(row["n"])
def true(prompt, completion, row): return "x" in completion
def raises(prompt, completion, row): return 1 / 0
def words(prompt, completion, row): return "good"
def nothing(prompt, completion, row): pass
def nan(prompt, completion, row): return math.nan
"""
ROW = Row({"prompt": "hello", "n": "2"}, 0, "p.jsonl, line 7")


def reward(folder: Path, name: str) -> Reward:
    """A reward from the file above."""
    (folder / "r.py").write_text(REWARDS)
    return Reward(f"{folder / 'r.py'}:{name}")


def test_a_reward_reads_the_row(tmp_path: Path) -> None:
    """It is called with prompt, completion and all columns, and may answer true or false."""
    assert reward(tmp_path, "fine")("hello", "abc", ROW) == 5.0
    assert reward(tmp_path, "true")("hello", "abc", ROW) == 0.0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", "raised ZeroDivisionError"),
        ("words", "returned str where a number"),
        ("nothing", "returned NoneType where a number"),
        ("nan", "returned nan, which is no finite number"),
    ],
)
def test_a_bad_reward_is_one_sentence_with_the_prompt(name: str, said: str, tmp_path: Path) -> None:
    """What it did, and for which line of which file."""
    with pytest.raises(InputError, match=rf"^the reward {said}.* for the prompt of p.jsonl, line 7 \('?hello'?\)"):
        reward(tmp_path, name)("hello", "abc", ROW)


def test_a_reward_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, a missing function, a file that fails, and a name that is none."""
    with pytest.raises(InputError, match="has no function 'other'"):
        reward(tmp_path, "other").ready()
    (tmp_path / "bad.py").write_text("import nowhere_at_all")
    with pytest.raises(InputError, match="bad.py cannot be run: ModuleNotFoundError"):
        Reward(f"{tmp_path / 'bad.py'}:f").ready()
    with pytest.raises(InputError, match="there is no file"):
        Reward("nowhere.py:f").ready()
    with pytest.raises(InputError, match="must be says=WORD, full-stop, short, em, f1 or FILE.py:function"):
        Reward("rouge!")


def test_answers_as_rewards_need_answers() -> None:
    """The built-in scores read the row's answer, and say so where there is none."""
    assert Reward("em")("q", " Two.", Row({"answer": "two"}, 0)) == 1.0
    with pytest.raises(InputError, match="needs the right answer"):
        Reward("f1")("q", "two", ROW)
