"""Tasks from files: what is found unnamed, how rows are split, and a sentence for every bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import ROOT, SHARED
from zocore.config import RunConfig
from zocore.data.tasks import bundled_tasks, load_task, read_task
from zocore.data.template import Template
from zocore.errors import InputError
from zocore.runs.task import read

ROWS = [(f"sentence number {i}, about something", "good" if i % 3 else "bad") for i in range(30)]


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def csv_text(rows=ROWS, header="text,label", separator=","):
    return "\n".join([header, *(f'"{text}"{separator}{label}' for text, label in rows)]) + "\n"


def json_text(rows=ROWS, **more):
    return "".join(json.dumps({"text": text, "label": label} | more) + "\n" for text, label in rows)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", csv_text()),
        ("a.csv", "\ufeff" + csv_text().replace("\n", "\r\n")),
        ("a.csv", csv_text(header="text;label", separator=";")),
        ("a.tsv", csv_text(header="text\tlabel", separator="\t").replace('"', "")),
        ("a.jsonl", json_text()),
    ],
)
def test_the_same_rows_from_every_format(tmp_path, name, text):
    task = read_task(write(tmp_path, name, text), seed=3)
    everything = task.train + task.dev + task.test
    assert sorted((e.fields["text"], task.label_names[e.label]) for e in everything) == sorted(ROWS)
    assert task.label_names == task.label_words == ("bad", "good")
    assert task.template == "{text}"


def test_the_split_is_stratified_and_follows_the_seed(tmp_path):
    path = write(tmp_path, "a.csv", csv_text())
    task = read_task(path, dev_share=0.2, test_share=0.3)
    assert [sum(e.label == k for e in task.dev) for k in (0, 1)] == [2, 4]
    assert [sum(e.label == k for e in task.test) for k in (0, 1)] == [3, 6]
    assert task == read_task(path, dev_share=0.2, test_share=0.3)
    assert task.dev != read_task(path, dev_share=0.2, test_share=0.3, seed=1).dev


def test_a_folder_keeps_its_own_splits(tmp_path):
    for split, rows in (("train", ROWS), ("dev", ROWS[:4]), ("test", ROWS[4:10])):
        write(tmp_path, f"{split}.jsonl", json_text(rows))
    task = read_task(tmp_path)
    assert (len(task.train), len(task.dev), len(task.test)) == (30, 4, 6)


def test_of_a_folder_of_two_the_held_out_file_is_the_test(tmp_path):
    write(tmp_path, "train.csv", csv_text())
    write(tmp_path, "validation.csv", csv_text(ROWS[:5]))
    task = read_task(tmp_path)
    assert len(task.test) == 5
    assert len(task.train) + len(task.dev) == 30


def test_columns_are_found_by_what_they_hold(tmp_path):
    lines = [f"{i},{i % 2},a rather long remark {i}" for i in range(20)]
    task = read_task(write(tmp_path, "a.csv", "\n".join(["id,liked,remark", *lines])))
    assert task.label_names == ("0", "1")
    assert list(task.train[0].fields) == ["remark"]


def test_a_template_names_the_columns_of_a_pair(tmp_path):
    text = json_text(premise="It rains.", hypothesis="It is wet.")
    task = read_task(write(tmp_path, "a.jsonl", text), template='{premise}\nSo "{hypothesis}"? {label}')
    assert dict(task.train[0].fields) == {"premise": "It rains.", "hypothesis": "It is wet."}


def test_the_field_text_stands_for_any_text_column(tmp_path):
    path = write(tmp_path, "a.csv", csv_text(header="remark,label"))
    assert read_task(path, template="{text} It was {label}").template == "{remark} It was {label}"


@pytest.mark.parametrize("words", ["terrible,great", "good=great, bad=terrible", ["terrible", "great"]])
def test_label_words_in_order_or_by_name(tmp_path, words):
    path = write(tmp_path, "a.csv", csv_text())
    assert read_task(path, label_words=words).label_words == ("terrible", "great")


def test_number_labels_are_ordered_by_size(tmp_path):
    rows = [(text, str(i % 11)) for i, (text, _) in enumerate(ROWS * 2)]
    assert read_task(write(tmp_path, "a.csv", csv_text(rows))).label_names == tuple(map(str, range(11)))


def test_rows_with_an_empty_text_are_left_out_and_named(tmp_path):
    """One of them rejected the whole file; the others are split as though it had never been there."""
    whole = read_task(write(tmp_path, "a.csv", csv_text()))
    rows = [("", "good"), *ROWS[:9], ("  ", "odd"), *ROWS[9:]]
    task = read_task(write(tmp_path, "b.csv", csv_text(rows)))
    assert (task.train, task.dev, task.test) == (whole.train, whole.dev, whole.test)
    assert (task.textless, task.unlabelled, task.rows, task.label_names) == ((2, 12), (), 32, ("bad", "good"))
    assert "b.csv: 2 rows left out, with nothing in 'text', in lines 2, 12" in task.notes
    assert whole.notes == ()


def test_of_a_pair_both_texts_are_needed_in_every_split(tmp_path):
    lines = [json.dumps({"premise": "It rains.", "hypothesis": f"{i} drops.", "label": i % 2}) for i in range(30)]
    holes = [json.dumps({"premise": "It rains.", "label": 1}), json.dumps({"hypothesis": "Wet.", "label": 0})]
    write(tmp_path, "train.jsonl", "\n".join([*holes, *lines]))
    write(tmp_path, "test.jsonl", "\n".join([*lines[:9], holes[0]]))
    task = read_task(tmp_path, template="{premise} {hypothesis}")
    assert len(task.train) + len(task.dev) == 30 and len(task.test) == 9
    assert task.textless == (1, 2)
    assert task.notes[1] == "test.jsonl: 1 row left out, with nothing in 'premise' or 'hypothesis', in line 10"


def test_of_a_long_file_a_random_part_is_taken(tmp_path):
    task = read_task(write(tmp_path, "a.csv", csv_text()), max_rows=20)
    kept = [int(e.fields["text"].split()[2].rstrip(",")) for e in task.train + task.dev + task.test]
    assert len(kept) == 20
    assert max(kept) > 20


NUMBERS = [(text, f"{i}.5") for i, (text, _) in enumerate(ROWS * 10)]
BAD_FILES = {
    "empty": ("a.csv", "", "a.csv is empty"),
    "header only": ("a.csv", "text,label\n", "no rows"),
    "blank": ("a.jsonl", "\n\n", "no rows"),
    "not UTF-8": (
        "a.csv",
        csv_text().encode() + b"caf\xe9,good\n",
        "line 32 has the byte 0xe9 at position 4",
    ),
    "UTF-16": ("a.csv", csv_text().encode("utf-16"), "UTF-16"),
    "binary": ("a.csv", b"text,label\n\x00\x01", "binary"),
    "spreadsheet": ("a.csv", b"PK\x03\x04rest", "spreadsheet"),
    "compressed": ("a.jsonl", b"\x1f\x8b\x08rest", "unpack"),
    "format": ("a.doc", "x", "cannot tell the format"),
    "one label": ("a.csv", csv_text([(t, "good") for t, _ in ROWS]), "one label only, 'good'"),
    "no header": ("a.csv", ",\na,b\n", "column names"),
    "twice": ("a.csv", "text,text\na,b\n", "two columns named 'text'"),
    "ragged": ("a.csv", csv_text() + "one,two,good\n", "line 32 has 3 cells where the header has 2"),
    "ragged tabs": ("a.tsv", "text\tlabel\na\tb\tc\n", "take tabs out"),
    "open quote": ("a.csv", csv_text() + '"never ends,good\n', "quotes"),
    "bad JSON": ("a.jsonl", json_text() + "{'text': 1}\n", "line 31 is not valid JSON"),
    "deep JSON": ("a.jsonl", "[" * 90_000 + "\n", "line 1 is not valid JSON"),
    "JSON list": ("a.jsonl", '["a", "b"]\n', "line 1 is not a JSON object"),
    "half a pair": ("a.jsonl", '{"text": "\\ud800", "label": "good"}\n', "line 1 has half of a surrogate"),
    "long line": (
        "a.csv",
        csv_text() + "x" * 100_001 + ",good\n",
        "line 32 is longer than 100000 characters",
    ),
    "huge line": ("a.csv", csv_text() + "x" * 900_000, "line 32 is longer than 100000 characters"),
    "no text at all": ("a.csv", csv_text([("", name) for _, name in ROWS]), "has no row left with a text in 'text'"),
    "no label at all": ("a.csv", csv_text([(text, "") for text, _ in ROWS]), "has no row with anything in"),
    "rows in a list": ("a.json", json.dumps([{"text": t, "label": n} for t, n in ROWS]), "holds its rows in one list"),
    "rows in an object": ("a.json", json.dumps({"data": [{"text": t, "label": n} for t, n in ROWS]}), "'data'"),
    "columns in an object": ("a.json", '{"text": {"0": "a"}, "label": {"0": "b"}}', "orient='records'"),
    "rows in a line": ("a.jsonl", json.dumps({"rows": [{"text": "a"}]}) + "\n", "line 1 holds a list inside an object"),
    "lines as .json": ("a.json", json_text(), "if each line of it is one, name it .jsonl"),
    "nothing like a label": ("a.csv", csv_text(NUMBERS, "text,number"), "looks like a label"),
    "too many labels": ("a.csv", csv_text(NUMBERS), "300 distinct values"),
    "label alone": ("a.csv", "label\ngood\nbad\n", "a text column is missing"),
    "too few rows": ("a.csv", csv_text(ROWS[:6]), "6 rows, too few"),
    "rare label": ("a.csv", csv_text([*ROWS, ("well", "odd")]), "the label 'odd' has only 1 rows"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_get_one_sentence(tmp_path, case):
    name, text, message = BAD_FILES[case]
    with pytest.raises(InputError) as caught:
        read_task(write(tmp_path, name, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


BAD_WISHES: dict[str, tuple[dict[str, Any], str]] = {
    "label column": ({"label_column": "mood"}, "no column 'mood': its columns are text, label"),
    "text column": ({"text_columns": ["txt"]}, "no column 'txt'"),
    "same column": ({"text_columns": ["label"], "label_column": "label"}, "both the text and the label"),
    "no field": ({"template": "It was {label}"}, "has no field"),
    "unknown field": ({"template": "{text} {title}"}, "names {title}, but the text columns are text"),
    "two answers": ({"template": "{text} {label} {mask}"}, "more than one"),
    "few words": ({"label_words": "great"}, "1 label words for 2 labels"),
    "equal words": ({"label_words": "great,great"}, "must be different"),
    "unknown label": ({"label_words": "good=great,awful=terrible"}, "given for 'awful'"),
    "missing label": ({"label_words": {"good": "great"}}, "no label word is given for 'bad'"),
    "half named": ({"label_words": "good=great,terrible"}, "'terrible' has no label"),
    "shares": ({"dev_share": 0.6, "test_share": 0.5}, "together below 1"),
    "size": ({"max_bytes": 500}, "over the limit"),
}


@pytest.mark.parametrize("case", BAD_WISHES)
def test_bad_wishes_get_one_sentence(tmp_path, case):
    wishes, message = BAD_WISHES[case]
    with pytest.raises(InputError) as caught:
        read_task(write(tmp_path, "a.csv", csv_text()), **wishes)
    assert message in str(caught.value)


def test_a_path_that_holds_no_data(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        read_task(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match=r"no train\.jsonl"):
        read_task(tmp_path)


def test_a_label_that_only_the_test_has(tmp_path):
    write(tmp_path, "train.jsonl", json_text())
    write(tmp_path, "test.jsonl", json_text([("well", "odd")]))
    with pytest.raises(InputError, match="line 1: the label 'odd' is"):
        read_task(tmp_path)


def test_quotes_keep_line_ends_and_errors_keep_their_line(tmp_path):
    text = csv_text() + '"one\ntwo",good\n"",good\n'
    assert "line 34" in read_task(write(tmp_path, "b.csv", text)).notes[0]
    text = text.replace('"",good', '"",good,bad')
    with pytest.raises(InputError, match="line 34"):
        read_task(write(tmp_path, "a.csv", text))


def test_a_template_knows_where_its_fields_stand():
    filled = Template("Say {a} and {b}: {label}!").fill({"a": "one", "b": "two"}, "yes")
    assert filled.text == "Say one and two: yes!"
    assert [filled.text[start:end] for start, end in filled.fields] == ["one", "two"]
    assert filled.answer is not None
    assert filled.text[filled.answer :] == "yes!"
    assert Template("{a} It was {label}.").before_answer().text == "{a} It was"
    with pytest.raises(InputError, match=r"move \{b\} before"):
        Template("{a} {label} {b}").before_answer()


def test_bundled_tasks_are_whole():
    if not bundled_tasks():
        pytest.skip("the bundled tasks have not been made yet")
    for name in bundled_tasks():
        task = load_task(name)
        assert len(task.label_words) == len(task.label_names) == len({e.label for e in task.train})
        assert not {str(e.fields) for e in task.train} & {str(e.fields) for e in task.test}
        Template(task.template).check(tuple(task.train[0].fields))


def test_an_unknown_bundled_task():
    with pytest.raises(InputError, match="no bundled task"):
        load_task("poetry")


MISSING = ["NaN", "null", '""', '"  "', '"nan"']


def test_rows_without_a_label_are_left_out_and_counted(tmp_path):
    """Nothing, null and NaN in any writing: the rows go, the count and the lines are told, the order stays."""
    odd = "".join(f'{{"text": "what now {i}", "label": {value}}}\n' for i, value in enumerate(MISSING))
    task = read_task(write(tmp_path, "a.jsonl", json_text() + odd + '{"text": "no label here"}\n'))
    assert task.label_names == ("bad", "good")
    assert len(task.train + task.dev + task.test) == len(ROWS)
    assert task.notes == ("a.jsonl: 6 rows left out, with nothing or NaN for 'label', in lines 31, 32, 33, 34, 35, 36",)
    whole = read_task(write(tmp_path, "b.jsonl", json_text()))
    assert (task.train, task.dev, task.test, whole.notes) == (whole.train, whole.dev, whole.test, ())
    numbers = [(text, str(i % 3)) for i, (text, _) in enumerate(ROWS)] + [("what", "NaN")] * 4 + [("now", "")]
    task = read_task(write(tmp_path, "c.csv", csv_text(numbers)))
    assert task.label_names == ("0", "1", "2") and "5 rows left out" in task.notes[0]


def test_no_order_depends_on_hashing(tmp_path):
    """The same task in processes with other hash seeds, for labels of every sort."""
    names = ["nan", "inf", "-inf", "1", "1.0", "01", "b", "a", "1e3", "1000", "é"]
    path = write(tmp_path, "a.csv", csv_text([(text, names[i % 11]) for i, (text, _) in enumerate(ROWS * 4)]))
    code = f"from zocore.data.tasks import read_task as r; t = r({str(path)!r}); print(ascii((t.label_names, t.dev)))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1


def test_seeds_of_a_run_share_one_split(tmp_path):
    """--seed leaves what is held out alone, so that seeds can be compared; --split-seed moves it."""
    path = write(tmp_path, "a.csv", csv_text())
    first, second, third = (
        read(RunConfig(data=str(path), seed=seed, split_seed=split)) for seed, split in ((0, 0), (1, 0), (0, 1))
    )
    assert (first.train, first.dev, first.test) == (second.train, second.dev, second.test)
    assert first.test != third.test


def test_two_hundred_and_fifty_six_labels_are_taken(tmp_path):
    """As many as intents in banking77, and more."""
    rows = [(f"sentence {i}", f"label {i % 256}") for i in range(256 * 3)]
    assert len(read_task(write(tmp_path, "a.csv", csv_text(rows))).label_names) == 256


def test_digits_as_label_words_are_told_with_what_to_do(tmp_path):
    """A column that names the numbers is proposed; without one, how to name them; words that speak need no advice."""
    rows = [(f"text {i}", i % 2, ("bad", "good")[i % 2]) for i in range(30)]
    lines = "\n".join(["text,label,label_text", *(f"{t},{n},{name}" for t, n, name in rows)])
    named = read_task(write(tmp_path, "a.csv", lines), label_column="label")
    assert "'label_text' has their names" in named.word_note and "--label-words 0=bad,1=good" in named.word_note
    assert read_task(tmp_path / "a.csv", label_column="label", label_words="0=bad,1=good").word_note == ""
    bare = read_task(write(tmp_path, "b.csv", csv_text([(t, str(n)) for t, n, _ in rows])))
    assert "name the labels, as in --label-words 0=bad" in bare.word_note
    assert read_task(write(tmp_path, "c.csv", csv_text())).word_note == ""


def test_real_sentences():
    folder = SHARED / "data" / "sst2"
    if not folder.is_dir():
        pytest.skip("needs the folder of real data: set ZOCORE_SHARED")
    task = read_task(folder, template="{text} It was {label}", label_words="0=terrible,1=great")
    assert (len(task.train), len(task.dev), len(task.test)) == (6920, 872, 1821)
    assert task.label_words == ("terrible", "great")
