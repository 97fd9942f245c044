"""A thousand damaged recordings, settings and data files: each is right, or told in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.recordings import folder_with, lines_of, plain, six_steps
from tests.support.short_runs import data_file, model_folder
from zocore.cli import main
from zocore.data.tasks import read_task
from zocore.errors import InputError
from zocore.runs.opening import open_session
from zocore.runs.rebuilding import check_base, replay
from zocore.runs.recording import EVENTS, begun, examine
from zocore.runs.replay import rebuild

pytestmark = pytest.mark.slow
Change = Callable[[Random, bytes], bytes]


def byte_changed(rng: Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def digit_changed(rng: Random, content: bytes) -> bytes:
    digits = [i for i, byte in enumerate(content) if byte in b"0123456789"]
    if not digits:
        return content
    at = rng.choice(digits)
    return content[:at] + rng.choice(b"0123456789".replace(content[at : at + 1], b"")).to_bytes() + content[at + 1 :]


def cut_out(rng: Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.randint(1, 200) :]


def put_in(rng: Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.choice([rng.randbytes(9), b"\n", b"\0" * 512, b"[" * 5000, b"null", b"1"]) + content[at:]


def lines_moved(rng: Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    line = lines[rng.randrange(len(lines))]
    how = rng.choice(["out", "twice", "elsewhere"])
    if how != "twice":
        lines.remove(line)
    if how != "out":
        lines.insert(rng.randrange(len(lines) + 1), line)
    return b"".join(lines)


def cut_off(rng: Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def zeros_at_the_end(rng: Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + b"\0" * (len(content) - at)


DAMAGE: list[Change] = [byte_changed, digit_changed, cut_out, put_in, lines_moved, cut_off, zeros_at_the_end]


@pytest.mark.parametrize("method", ["mezo", "grzo"])
def test_five_hundred_damaged_recordings_hold_nothing_that_was_not_written(method: str, tmp_path: Path) -> None:
    """What is read is always what was written up to some line; damage is told unless only the end is missing."""
    rng, good = Random(method), six_steps(method)
    content, events = b"".join(lines_of(good)), examine(good).events
    told = 0
    for _ in range(500):
        damaged = content
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            damaged = rng.choice(DAMAGE)(rng, damaged or content)
        folder = folder_with(tmp_path / "run", [damaged])
        if b"\n" not in damaged:  # a header that was not finished is no recording yet
            assert not begun(folder)
            continue
        found = examine(folder)
        assert found.events == events[: len(found.events)]
        missing = content.startswith(damaged[: damaged.rfind(b"\n") + 1])  # an end that was not yet written
        assert found.damage is not None or missing
        told += found.damage is not None
        if found.damage and rng.random() < 0.02 and found.events:
            step = found.damage.step
            assert rebuild(folder, step)[1].fingerprint() == rebuild(good, step)[1].fingerprint()
    assert told > 300


ODD: list[Any] = [None, True, -1, 0, 5, 2**70, 1e400, float("nan"), "x", "", [], {}, [[]], ["x"], [None], [1e400]]
ODD += [{"a": 1}, {"examples": 0}, [{"examples": 4}], [[[1, 2]]], [2**40], {"0": [[5]]}, {"0": 5}, {"shape": [2]}]


def test_a_thousand_old_recordings_with_wrong_values_are_told_or_replayed(tmp_path: Path) -> None:
    """Without seals a changed value may pass for another: never a traceback, and always a sentence or weights."""
    rng, lines = Random(4), plain(lines_of(six_steps("grzo")))
    recording = examine(folder_with(tmp_path / "run", lines))
    session = open_session(recording.config, recording.header.frozen)
    told, sentences = 0, []
    for _ in range(1000):
        changed = list(lines)
        for _ in range(rng.choice([1, 1, 2])):
            at = rng.randrange(len(lines))
            record = json.loads(lines[at])
            name = rng.choice([*record, "touched", "responses", "unknown"])
            record[name] = rng.choice(ODD)
            changed[at] = json.dumps(record).encode() + b"\n"
        folder_with(tmp_path / "run", changed)
        try:
            found = examine(tmp_path / "run")
            told += found.damage is not None
            if found.events:
                check_base(session, found)
                replay(session, found.steps)
        except ValueError as error:
            sentences.append(str(error))
    assert told > 500 and not [text for text in sentences if "\n" in text]


SETTINGS: dict[str, list[Any]] = {
    "method": ["mezo", "grzo", "mezo-gv", "mezo-greedy", "fzoo", "qzo", "openai-es", "n-spsa", "sgd", "adamw", "magic"],
    "subspace": ["auto", "all", "lora", "scales", "embed", "(", "nothing"],
    "quantise": [None, "nf4", "int8", "fp5"],
    "kind": [None, "causal", "masked", "encoder", "poem"],
    "batch-size": [1, 2, 4, 0, -1, "x"],
    "micro-batch": [None, 1, 3, 0],
    "lr": [None, 1e-3, 1e-30, 1e30, 0, -1, "nan", "inf"],
    "eps": [None, 1e-3, 1e-30, 1e38, 0, "nan"],
    "schedule": [None, "linear", "cubic"],
    "seed": [0, 1, 2**62, -1],
    "split-seed": [0, 3, -3],
    "noise": [None, "rademacher", "pink"],
    "rank": [0, 1, 2, 999, -1],
    "keep": [1.0, 0.5, 1e-9, 0, -1, 2, "nan"],
    "directions": [None, 1, 2, 0, -5],
    "pool": [None, 2, 1, 0],
    "share": [None, 0.5, 0, 1, -1],
    "clip": [None, 1.0, 0, -1, "nan"],
    "scale": [None, "std", "raw", "odd"],
    "update": ["auto", "sgd", "momentum", "adam", "eve"],
    "decay": [0, 0.1, -1, "inf"],
    "carrier": ["scratch", "in-place", "pigeon"],
    "dtype": [None, "bf16", "fp16", "fp8"],
    "max-tokens": [8, 32, 4, 10**9],
    "eval-examples": [4, 0],
    "label-words": ["terrible,great", "great", "a,a", "great=1", ""],
    "template": ["{text} It was", "{text}", "It was", "{label}{text}", "{other}", "{text} {label} {mask}"],
}


@pytest.mark.parametrize("count", [pytest.param(60, id="60"), pytest.param(1000, id="1000", marks=pytest.mark.soak)])
def test_random_settings_run_or_are_told_in_one_sentence(
    count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 0 or 1 with a summary, or 2 with one line and no folder; never a traceback."""
    monkeypatch.chdir(tmp_path)
    rng, statuses = Random(5), {0: 0, 1: 0, 2: 0}
    for number in range(count):
        chosen = {"label-words": "terrible,great", "template": "{text} It was", "batch-size": 4, "eval-examples": 4}
        for name in rng.sample(sorted(SETTINGS), rng.choice([1, 2, 2, 3, 4])):
            chosen[name] = rng.choice(SETTINGS[name])
        words = [f"--{name}={value}" for name, value in chosen.items() if value is not None]
        folder = tmp_path / str(number)
        model = rng.choice(["llama", "llama", "gpt2", "bert", "opt"])
        given = ["--model", model_folder(model), "--data", data_file(), "--steps", "2", "--device", "cpu", *words]
        capsys.readouterr()
        try:
            status = main(["train", *given, "--out", str(folder)])
        except SystemExit as end:
            status = int(str(end.code))
        said = capsys.readouterr()
        statuses[status] += 1
        if status == 2:
            assert len(said.err.splitlines()) == 1 and said.err.startswith("zocore: "), (words, model, said.err)
            assert not folder.exists(), (words, model)
        else:
            assert said.err == "" and (folder / "summary.json").exists(), (words, model, said.err)
            assert examine(folder).damage is None and (folder / EVENTS).exists()
    print(f"{count} settings: {statuses[0]} finished, {statuses[1]} failed and said why, {statuses[2]} refused")
    assert statuses[0] > count / 8 and statuses[2] > count / 4


LABELS = ["good", "bad", "", "nan", "NaN", "1", "1.0", "-inf", "é", "a,b", 'a"b', "x" * 300, "\u2028", "null", "0"]
TEXTS = [
    "fine film",
    "",
    '"quoted"',
    "two\nlines",
    "tab\there",
    "\ud83d".encode("utf-8", "replace").decode(),
    "漢字",
    ";",
]


def random_file(rng: Random) -> tuple[str, bytes]:
    """A table of odd rows in some format, most of them damaged afterwards."""
    labels = rng.sample(LABELS, rng.randint(1, 4))
    rows = [(rng.choice(TEXTS) + str(i), rng.choice(labels)) for i in range(rng.choice([0, 3, 40, 60, 60, 60]))]
    if rng.random() < 0.5:
        odd = [None, None, float("nan"), 1, 2.5, float("nan"), [1], {"a": 1}, True]
        made = [{"text": t, "label": rng.choice(odd) if rng.random() < 0.02 else n} for t, n in rows]
        whole = rng.choice(["lines"] * 8 + ["list", "nested"])
        text = json.dumps(made if whole == "list" else {"rows": made})
        if whole == "lines":
            text = "".join(json.dumps(row) + "\n" for row in made)
        name = rng.choice(["a.jsonl"] * 8 + ["a.json"])
    else:
        mark, name = rng.choice([(",", "a.csv"), (";", "a.csv"), ("\t", "a.tsv")])
        quoted = [mark.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
        text = "\n".join([f"text{mark}label", *quoted]) + "\n"
    content = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.3:
        content = rng.choice([byte_changed, cut_out, put_in, lines_moved, cut_off])(rng, content or b"x")
    return name, content


def test_a_thousand_data_files_are_read_or_told_in_one_sentence(tmp_path: Path) -> None:
    """A task that is the same when read again, with every label apart and no row twice, or one sentence."""
    rng, read = Random(6), 0
    sentences: list[str] = []
    for _ in range(1000):
        name, content = random_file(rng)
        path = tmp_path / name
        path.write_bytes(content)
        try:
            task = read_task(path)
        except InputError as error:
            sentences.append(str(error))
            continue
        read += 1
        assert read_task(path) == task
        assert len(set(task.label_names)) == len(task.label_names) >= 2
        assert not {"", "nan", "NaN"} & set(task.label_names)
        assert {e.label for e in task.train} == set(range(len(task.label_names)))
    assert read > 150 and len(sentences) > 150
    assert not [text for text in sentences if "\n" in text or len(text) > 1000]
