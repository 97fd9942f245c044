"""One's own data, step by step: what was read, the words, the template, and what the model gets wrong afterwards."""

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from app.form import data_form, reading
from app.jobs.questions import QUESTIONS, Shelf
from app.tabs import mistakes
from tests.support.places import RECORDED
from tests.support.short_runs import settings
from zocore.data.columns import match_words
from zocore.errors import InputError
from zocore.runs.events import EvalDone
from zocore.runs.loop import run
from zocore.runs.recording import record

HOSTILE = "<script>alert(1)</script>"
COLUMNS = {"text_columns": None, "label_column": None, "template": None, "label_words": None}


def asked(name: str, **facts: Any) -> Any:
    return json.loads(json.dumps(QUESTIONS[name](Shelf(), facts)))


def written(folder: Path, rows: list[str], head: str = "text,label") -> str:
    path = folder / "own.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return str(path)


def test_the_report_counts_rows_duplicates_and_labels(tmp_path: Path) -> None:
    rows = [f"sentence {i},{'bad' if i % 3 else 'good'}" for i in range(30)]
    rows += ["sentence 0,good", "sentence 0,bad", "nothing,", "nothing,nan"]
    task = asked("prompt", data=written(tmp_path, rows), most=10**6, **COLUMNS)
    assert task["balance"] == [21, 11] and task["labels"] == ["bad", "good"]
    assert (task["repeated"], task["disagreeing"], task["unlabelled"]) == (2, 1, 2)
    shown = reading.report(task)
    assert "<b>32</b> of 34 rows" in shown and "<b>2</b> without a label (lines 34, 35)" in shown
    assert "<b>2</b> rows with a text that came before" in shown and "more than one label: 1" in shown
    assert "Always answering bad would be right in 66%" in shown
    assert "Ready: press Start" in data_form.example(task)


def test_a_row_without_a_label_is_dropped_where_the_column_is_named_too(tmp_path: Path) -> None:
    """The page always names the column; labels, preview and report go on without such rows."""
    path = written(tmp_path, [*(f"sentence {i},{i % 2}" for i in range(20)), "nothing,"])
    assert asked("labels", path=path, label="label", texts=["text"], most=10**6)["labels"] == ["0", "1"]
    task = asked("prompt", data=path, most=10**6, **(COLUMNS | {"text_columns": "text", "label_column": "label"}))
    assert task["unlabelled"] == 1 and sum(task["counts"]) == 20


def test_a_row_with_an_empty_text_is_dropped_and_named(tmp_path: Path) -> None:
    """One empty cell rejected the whole file; a label that only such rows have is none."""
    rows = [f"sentence {i},{('bad', 'good')[i % 2]}" for i in range(20)]
    path = written(tmp_path, [",bad", *rows, '"  ",odd', ","])
    named = COLUMNS | {"text_columns": "text", "label_column": "label"}
    for columns in (COLUMNS, named):
        task = asked("prompt", data=path, most=10**6, **columns)
        assert task["labels"] == ["bad", "good"] and sum(task["counts"]) == 20
        shown = reading.report(task)
        assert "<b>20</b> of 22 rows" in shown and "<b>2</b> with an empty text (lines 2, 23)" in shown
        assert "at random" not in shown
    assert asked("labels", path=path, label="label", texts=["text"], most=10**6)["labels"] == ["bad", "good"]


def test_rows_beyond_what_a_run_reads_are_counted() -> None:
    task = {
        "counts": [70_000, 10_000, 20_000],
        "rows": 300_005,
        "unlabelled": 5,
        "lines": [2],
        "textless": 0,
        "repeated": 0,
    }
    shown = reading.report(task | {"labels": ["x", "y"], "balance": [99_000, 1000]})
    assert "<b>200,000</b> at random" in shown and "zo-warning" in shown


def test_numbers_get_words_that_are_only_proposed(tmp_path: Path) -> None:
    """From another column of the file where it has names; else by their count; names stay themselves."""
    plain = written(tmp_path, [f"sentence {i},{i % 2}" for i in range(20)])
    assert asked("labels", path=plain, label="label", texts=None, most=10**6) == {"labels": ["0", "1"], "names": None}
    assert reading.words_for(["0", "1"]) == "0 = no\n1 = yes"
    assert reading.words_for(["1", "2", "3", "4", "5"]).endswith("5 = great")
    assert reading.words_for(["good", "bad"]) == "good = good\nbad = bad"
    assert reading.words_for([str(i) for i in range(40)]) == ""
    named = written(tmp_path, [f"text {i},{i % 2},{('sad', 'glad')[i % 2]}" for i in range(20)], "text,label,name")
    found = asked("labels", path=named, label="label", texts=["text"], most=10**6)
    assert reading.words_for(found["labels"], found["names"]) == "0 = sad\n1 = glad"


@pytest.mark.parametrize(
    ("lines", "given"),
    [
        ("0 = no\n1 = yes", "0=no,1=yes"),
        ("0=no,1=yes", "0=no,1=yes"),
        ("no\nyes", "no,yes"),
        ("", ""),
        ("a=b = no\nc = yes", "a=b=no,c=yes"),
    ],
)
def test_words_are_read_by_line(lines: str, given: str) -> None:
    assert reading.joined(lines) == given


@pytest.mark.parametrize("labels", [["0", "1"], ["1", "2", "3"], [str(i) for i in range(12)], ["yes", "no"]])
def test_proposed_words_are_taken(labels: list[str]) -> None:
    words = match_words(reading.joined(reading.words_for(labels)), labels)
    assert len(set(words)) == len(labels)


def test_the_template_suits_the_kind_of_model() -> None:
    columns = ["premise", "claim"]
    assert reading.template_for("encoder", columns) == "{premise}\n{claim}"
    assert reading.template_for("masked", columns).endswith("Answer: {label}.")
    assert (
        reading.template_for(None, columns)
        == reading.template_for("causal", columns)
        == "{premise}\n{claim}\nAnswer: {label}"
    )
    assert reading.template_for(None, []) == ""


def test_a_files_text_is_never_markup(tmp_path: Path) -> None:
    rows = [f"{HOSTILE} {i},{HOSTILE}{i % 2}" for i in range(20)]
    path = written(tmp_path, rows, f"{HOSTILE},label")
    table, task = asked("table", path=path, most=10**6), asked("prompt", data=path, most=10**6, **COLUMNS)
    for shown in (data_form.first_rows(table), reading.report(task), data_form.example(task)):
        assert "<script" not in shown and "<script" in unescape(shown)


def test_confusions_and_worst_errors_are_those_of_the_runs_test(tmp_path: Path) -> None:
    """The matrix holds every test example once, its diagonal the accuracy that the run ended with."""
    config = settings(steps=4, eval_examples=20)
    events = list(record(run(config), tmp_path))
    last = [event for event in events if isinstance(event, EvalDone)][-1]
    found = asked("mistakes", folder=str(tmp_path), steps=4, count=3, characters=10)
    matrix = found["matrix"]
    assert sum(map(sum, matrix)) == last.examples and found["step"] == 4
    assert sum(row[i] for i, row in enumerate(matrix)) / last.examples == pytest.approx(last.accuracy)
    wrong = last.examples - sum(row[i] for i, row in enumerate(matrix))
    assert len(found["worst"]) == min(3, wrong)
    assert [one["right"] for one in found["worst"]] == sorted(one["right"] for one in found["worst"])
    assert all(len(one["text"]) <= 10 and one["truth"] != one["answer"] for one in found["worst"])


def test_errors_are_shown_as_text_and_many_labels_as_a_list() -> None:
    labels = [HOSTILE, "b"]
    worst = [{"text": HOSTILE, "truth": 0, "answer": 1, "sure": 0.9, "right": 0.1}]
    shown = mistakes.shown({"step": 3, "labels": labels, "matrix": [[1, 1], [0, 2]], "worst": worst})
    assert "<script" not in shown and "<b>3</b> of 4 right" in shown and "is <b>&lt;script" in shown
    many = [[1] * 20 for _ in range(20)]
    shown = mistakes.shown({"step": 3, "labels": [f"l{i}" for i in range(20)], "matrix": many, "worst": []})
    assert "taken for" in shown and "No error among them" in shown


def test_a_run_without_a_step_has_no_errors_to_show(tmp_path: Path) -> None:
    from app.form.starting import Guest
    from app.jobs.store import JobStore
    from tests.support.thread_child import launcher
    from tests.support.toy_engine import toy

    assert RECORDED.is_file()
    store = JobStore(tmp_path, launch=launcher(toy))
    job = store.start("ann", [settings(steps=5000)])
    with pytest.raises(InputError, match="still under way"):
        mistakes.mistakes(store, Guest("ann", ""), job.id)
    with pytest.raises(InputError, match="no such run"):
        mistakes.mistakes(store, Guest("ann", ""), "0" * 22)
    store.close()
