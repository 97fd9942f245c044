"""The command line as a user meets it: every command, every kind of bad input, Ctrl-C, kill and resume."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.places import ROOT
from tests.support.short_runs import data_file, model_folder
from zocore.cli import main
from zocore.methods import METHODS
from zocore.runs.events import Event, RunEnded, StepDone
from zocore.runs.progress import Progress
from zocore.runs.recording import EVENTS, read_recording


def base(**changes: Any) -> list[str]:
    """Options of a run of three steps on a tiny model; None leaves one out."""
    options: dict[str, Any] = {
        "model": model_folder(),
        "data": data_file(),
        "template": "{text} It was",
        "label_words": "terrible,great",
        "steps": 3,
        "batch_size": 4,
        "lr": 1e-3,
        "eps": 1e-3,
        "device": "cpu",
    }
    options |= changes
    return [
        word
        for name, value in options.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]


def train(out: Path, *extra: str, **changes: Any) -> int:
    """`zocore train` in this process."""
    return main(["train", *base(**changes), "--out", str(out), *extra])


def command(*words: str) -> list[str]:
    """The same in another process."""
    return [sys.executable, "-m", "zocore", *words]


def environment() -> dict[str, str]:
    """Its environment: this checkout, offline, one thread."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run folders without a name go under a folder of the test's own; no test asks the network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert train(out) == 0
    return out


def test_train_tells_the_run_from_header_to_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output names method, model, task and cost, then progress, accuracies, answers, the folder."""
    assert train(tmp_path / "run", "--eval-every", "2", "--measure-every", "2") == 0
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert lines[0].startswith("feedback on ")
    assert "1.33 forward passes a step (cost 1.33)" in told
    assert "step 3/3  loss " in told
    assert "dev after step 2: accuracy" in told
    assert "estimator after step 0: variance" in told
    assert "held-out accuracy " in told
    assert "ETA 0:00" in told
    assert sum("(true: " in line for line in lines) == 5
    assert lines[-1] == f"run folder: {tmp_path / 'run'}"
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "events.jsonl", "summary.json"}


def test_runs_without_a_name_are_numbered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --out each run gets the next number under runs/, with method and task in its name."""
    assert main(["train", *base()]) == 0
    assert main(["train", *base(method="grzo")]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["0001-feedback-data", "0002-grzo-data"]


def test_a_terminal_gets_one_live_line_and_a_file_gets_plain_ones(finished: Path) -> None:
    """On a terminal the step's line is redrawn; elsewhere there is no carriage return and no escape."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for out in (Terminal(), io.StringIO()):
        progress = Progress(out, finished)
        for event in read_recording(finished).events:
            progress.show(event)
        assert "step 3/3" in out.getvalue()
        assert ("\r\x1b[Kstep 3/3" in out.getvalue()) == out.isatty()
        assert ("\r" in out.getvalue()) == out.isatty()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_from_the_command_line(method: str, tmp_path: Path) -> None:
    """Each method runs with its defaults and ends finished."""
    assert train(tmp_path / "run", method=method, lr=None, eps=None, steps=2) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["method"], summary["steps"]) == ("finished", method, 2)


def test_replay_export_and_predict_answer_from_the_run_folder(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands on a finished run say what they did and return 0."""
    assert main(["replay", str(finished), "--verify"]) == 0
    assert "verified: bitwise equal" in capsys.readouterr().out
    assert main(["replay", str(finished), "--step", "1"]) == 0
    assert "after step 1 with 2 of 2 forward passes" in capsys.readouterr().out
    assert train(tmp_path / "weights", method="mezo") == 0
    assert main(["replay", str(tmp_path / "weights"), "--step", "1"]) == 0
    assert "after step 1 without a forward pass" in capsys.readouterr().out
    assert main(["export", str(finished), "--to", str(tmp_path / "model")]) == 0
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert main(["export", str(finished), "--to", str(tmp_path / "delta"), "--delta"]) == 0
    assert sorted(path.name for path in (tmp_path / "delta").iterdir()) == ["README.md", "delta.safetensors"]
    capsys.readouterr()
    base_model, file = read_recording(finished).config.model, str(tmp_path / "delta" / "delta.safetensors")
    assert main(["predict", str(finished), "good food", "a bad film"]) == 0
    answers = capsys.readouterr().out
    assert main(["predict", base_model, "--delta", file, "good food", "a bad film"]) == 0
    assert capsys.readouterr().out == answers
    assert main(["export", base_model, "--delta", file, "--to", str(tmp_path / "again model")]) == 0
    whole = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert (tmp_path / "again model" / "model.safetensors").read_bytes() == whole
    assert main(["predict", base_model, "--step", "2", "--delta", file, "good food"]) == 2
    assert "do not go together" in capsys.readouterr().err
    assert main(["predict", str(finished), "good food", "a bad film"]) == 0
    said = capsys.readouterr()
    assert [line.rsplit("  ", 1)[1] for line in said.out.splitlines()] == ["good food", "a bad film"]
    assert said.err == ""
    # the exported folder is a model like any other
    assert train(tmp_path / "again", model=str(tmp_path / "model")) == 0


def test_compare_memory_and_bench_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands that measure print a table and return 0."""
    from zocore.bench import bench

    monkeypatch.setattr(bench, "SHAPES", {"llama-15M": lambda: tiny.model("llama", vocab_size=1000)})
    options = base(steps=None, lr=None)
    words = ["--methods", "mezo,grzo", "--seeds", "0", "--forward-cost", "8", "--lrs", "mezo=1e-3,grzo=1e-3"]
    assert main(["compare", *options, *words, "--out", "race"]) == 0
    assert "| mezo | 0.001 | 4 | 8 | 8 |" in capsys.readouterr().out
    assert (tmp_path / "race" / "race.json").is_file()
    assert main(["memory", "--model", model_folder(), "--method", "mezo"]) == 0
    assert "mezo" in capsys.readouterr().out.lower()
    last = ["--subspaces", "top:1", "--methods", "mezo,adamw", "--repeats", "1"]
    assert main(["frozen", *base(steps=None, lr=None), *last]) == 0
    assert capsys.readouterr().out.count("top:1") == 2
    assert main(["bench", "--batch-size", "1", "--tokens", "4", "--repeats", "1"]) == 0
    assert "MeZO as published" in capsys.readouterr().out


def file(path: Path, text: str | bytes) -> str:
    """Write a file and return its path."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def rows(*pairs: tuple[str, object]) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in pairs)


def empty_folder(path: Path) -> str:
    """A model folder with a configuration and no weights."""
    path.mkdir()
    tiny.config("llama").save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return str(path)


def odd_model(path: Path) -> str:
    """A model folder of an architecture with layers that per-example directions do not know."""
    import transformers

    config = transformers.MambaConfig(
        vocab_size=len(tiny.tokenizer()), hidden_size=16, num_hidden_layers=1, state_size=4
    )
    transformers.MambaForCausalLM(config).save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return str(path)


NO_DATA = {"data": None, "template": None, "label_words": None}
GOOD = [("the film was good", 1), ("the film was bad", 0)] * 8

# what is wrong: the options, and what the sentence must name
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown model": ({"model": "no/such-model"}, "'no/such-model'"),
    "no such folder": ({"model": "./nowhere/"}, "'./nowhere/'"),
    "folder without weights": ({"model": lambda t: empty_folder(t / "bare")}, "has no weights"),
    "folder without anything": ({"model": lambda t: str(t)}, "no config.json"),
    "unknown task": ({**NO_DATA, "task": "poetry"}, "'poetry'"),
    "unknown method": ({"method": "magic"}, "'magic'"),
    "missing file": ({"data": "nowhere.csv"}, "'nowhere.csv'"),
    "empty file": ({"data": lambda t: file(t / "empty.csv", "")}, "empty.csv is empty"),
    "header only": ({"data": lambda t: file(t / "head.csv", "text,label\n")}, "no rows"),
    "not UTF-8": ({"data": lambda t: file(t / "latin.csv", b"text,label\n" + b"caf\xe9,1\nx,0\n" * 9)}, "not UTF-8"),
    "UTF-16": ({"data": lambda t: file(t / "wide.csv", "text,label\n".encode("utf-16"))}, "UTF-16"),
    "one label": ({"data": lambda t: file(t / "one.jsonl", rows(*[("good", 1)] * 16))}, "one label only"),
    "missing text column": ({"data": lambda t: file(t / "l.csv", "label\n" + "1\n0\n" * 8)}, "column"),
    "missing label column": ({"data": lambda t: file(t / "t.csv", "text\n" + "good\nbad\n" * 8)}, "label"),
    "column that is not there": ({"label_column": "mood"}, "'mood'"),
    "long line": ({"data": lambda t: file(t / "long.jsonl", rows(*GOOD, ("x" * 100_001, 1)))}, "longer than"),
    "too few rows": ({"data": lambda t: file(t / "few.jsonl", rows(*GOOD[:4]))}, "too few"),
    "broken JSON": ({"data": lambda t: file(t / "b.jsonl", rows(*GOOD) + "{\n")}, "line 17"),
    "unknown label word": ({"label_words": "5=great,0=terrible"}, "'5'"),
    "too few label words": ({"label_words": "great"}, "label words"),
    "equal label words": ({"label_words": "great,great"}, "different"),
    "template without a field": ({"template": "It was"}, "no field"),
    "template of another column": ({"template": "{body} It was"}, "{body}"),
    "words without data": ({**NO_DATA, "label_words": "a,b"}, "--label-words"),
    "no steps": ({"steps": 0}, "--steps"),
    "negative steps": ({"steps": -3}, "--steps"),
    "steps in words": ({"steps": "many"}, "--steps"),
    "lr nan": ({"lr": "nan"}, "--lr"),
    "lr inf": ({"lr": "inf"}, "--lr"),
    "lr zero": ({"lr": 0}, "--lr"),
    "lr negative": ({"lr": -1e-3}, "--lr"),
    "eps nan": ({"eps": "nan"}, "--eps"),
    "eps inf": ({"eps": "inf"}, "--eps"),
    "eps negative": ({"eps": -1e-3}, "--eps"),
    "eps zero": ({"eps": 0.0}, "--eps"),
    "no batch": ({"batch_size": 0}, "--batch-size"),
    "no micro-batch": ({"micro_batch": 0}, "--micro-batch"),
    "negative seed": ({"seed": -1}, "--seed"),
    "unknown noise": ({"noise": "pink"}, "--noise"),
    "unknown dtype": ({"dtype": "fp8"}, "--dtype"),
    "unknown device": ({"device": "abacus"}, "abacus"),
    "no GPU": ({"device": "cuda:99"}, "cuda:99"),
    "unknown option": ({"wings": 2}, "--wings"),
    "option of another method": ({"pool": 4}, "--pool"),
    "clip without qzo": ({"clip": 1.0}, "--clip"),
    "qzo on all weights": ({"method": "qzo", "subspace": "all"}, "qzo and the subspace 'all'"),
    "subspace of nothing": ({"subspace": "no_such_layer"}, "'no_such_layer'"),
    "bad pattern": ({"subspace": "(["}, "regular expression"),
    "grzo on unknown layers": ({"method": "grzo", "model": lambda t: odd_model(t / "mamba")}, "per-example directions"),
    "scale of one example": ({"method": "grzo", "scale": "std", "batch_size": 1}, "do not go together"),
    "backprop on scales": ({"method": "sgd", "subspace": "scales"}, "do not go together"),
    "in-place in 16 bits": ({"dtype": "bf16", "carrier": "in-place"}, "in-place"),
    "another kind of model": ({"kind": "masked"}, "cannot be loaded"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, one line that names the culprit, nothing else said, and no run folder left behind."""
    changes, culprit = BAD[name]
    made = {key: value(tmp_path) if callable(value) else value for key, value in changes.items()}
    capsys.readouterr()
    try:
        status: Any = train(tmp_path / "run", **made)
    except SystemExit as exit_:  # from the reading of the options
        status = exit_.code
    said = capsys.readouterr()
    assert status == 2
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    assert said.err.startswith("zocore: ")
    assert culprit in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "run").exists()


OTHERS: dict[str, tuple[list[str], str]] = {
    "no command": ([], "COMMAND"),
    "unknown command": (["dance"], "dance"),
    "used folder": (["train", "--out", "RUN"], "already holds a run"),
    "resume a finished run": (["resume", "RUN"], "is finished"),
    "resume nothing": (["resume", "nowhere"], "is not a run folder"),
    "replay nothing": (["replay", "nowhere"], "is not a run folder"),
    "replay a step it has not": (["replay", "RUN", "--step", "9"], "no step 9"),
    "export to a full folder": (["export", "RUN", "--to", "RUN"], "not empty"),
    "export to nowhere": (["export", "RUN"], "--to"),
    "predict nothing": (["predict", "RUN"], "text"),
    "race without a budget": (["compare", "--methods", "mezo"], "budget"),
    "race with two budgets": (
        ["compare", "--methods", "mezo", "--forward-cost", "9", "--forward-passes", "9"],
        "budget",
    ),
    "race for nothing": (["compare", *base(), "--methods", "mezo", "--forward-cost", "1"], "does not buy"),
    "race for ever": (["compare", "--methods", "mezo", "--forward-cost", "inf"], "budget"),
    "race of a stranger": (["compare", "--methods", "mezo,magic", "--forward-cost", "9"], "'magic'"),
    "rate of a stranger": (["compare", "--methods", "mezo", "--lrs", "grzo=1", "--forward-cost", "9"], "'grzo'"),
    "rates in words": (["compare", "--methods", "mezo", "--lrs", "fast", "--forward-cost", "9"], "--lrs"),
    "seeds in words": (["compare", "--methods", "mezo", "--seeds", "a", "--forward-cost", "9"], "--seeds"),
    "memory of nothing": (["memory", "--model", "nowhere"], "nowhere"),
    "memory of magic": (["memory", "--method", "magic"], "'magic'"),
    "memory in fp8": (["memory", "--dtype", "fp8"], "fp8"),
    "bench of no examples": (["bench", "--batch-size", "0"], "at least 1"),
    "bench of no rounds": (["bench", "--repeats", "0"], "at least 1"),
    "memory of no examples": (["memory", "--batch-size", "-3"], "-3"),
    "a prefix of nothing": (["frozen", "--model", model_folder(), "--subspaces", "all"], "no block frozen"),
    "bench of nothing": (["bench", "--shape", "sphere"], "'sphere'"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_bad_input_to_other_commands_gets_one_sentence(
    name: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2 and one line that names the culprit; the run that was named stays byte for byte."""
    words, culprit = OTHERS[name]
    if words[:1] == ["compare"]:
        words = [word for number, word in enumerate(words) if word != "--steps" and words[number - 1] != "--steps"]
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    capsys.readouterr()
    try:
        status: Any = main([str(finished) if word == "RUN" else word for word in words])
    except SystemExit as exit_:
        status = exit_.code
    said = capsys.readouterr()
    assert status == 2
    assert len(said.err.splitlines()) == 1, said.err
    assert said.err.startswith("zocore: ")
    assert culprit in said.err
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_bad_input_looks_the_same_from_a_shell(tmp_path: Path) -> None:
    """In a process of its own too: status 2, one line, no traceback, no run folder."""
    done = subprocess.run(
        command("train", *base(subspace="nothing"), "--out", "run"),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()


def test_a_failed_run_returns_1_and_keeps_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run whose losses stop being numbers ends with status 1, the reason told and the summary written."""
    assert train(tmp_path / "run", eps=1e38, steps=20) == 1
    assert "failed: the loss was not a finite number in 5 steps in a row" in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["skipped"]) == ("failed", 5)


def test_an_error_inside_a_step_returns_1_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure in the middle is told in a line, without a traceback, and the run can be resumed."""
    from zocore.runs.session import Session

    whole = Session.losses

    def losses(self: Session, step: int) -> Any:
        if step == 2:
            raise MemoryError
        return whole(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "losses", losses)
        assert train(tmp_path / "run") == 1
    said = capsys.readouterr()
    assert "failed: out of memory" in said.out
    assert said.err == ""
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert train(tmp_path / "other") == 0
    ends = [read_recording(tmp_path / name).end for name in ("run", "other")]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0].weights_fingerprint == ends[1].weights_fingerprint


def test_an_interrupt_before_the_first_event_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C twice while the model loads gives status 130 and takes the empty folder back."""
    from zocore.runs import loop

    def interrupted(*_: Any, **__: Any) -> Iterator[Event]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(loop, "run", interrupted)
    assert train(tmp_path / "run") == 130
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where the run folder should go is told in a line."""
    file(tmp_path / "plain", "x")
    assert train(tmp_path / "plain" / "run") == 2
    assert "cannot make the run folder" in capsys.readouterr().err


LONG = 100_000  # steps that no test waits for


def started(tmp_path: Path, steps: int) -> subprocess.Popen[str]:
    """A run in another process, past its third step."""
    process = subprocess.Popen(
        command("train", *base(steps=steps, eval_examples=4), "--out", "run"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    events = tmp_path / "run" / EVENTS
    while time.monotonic() < deadline and process.poll() is None:
        if events.exists() and events.read_bytes().count(b'"StepDone"') >= 3:
            return process
        time.sleep(0.02)
    process.kill()
    raise AssertionError(process.communicate())


def test_ctrl_c_ends_after_the_step_and_writes_the_summary(tmp_path: Path) -> None:
    """SIGINT to the process: status 0, a recording that ends as stopped, a summary, and no traceback."""
    process = started(tmp_path, LONG)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "stopping after this step" in err
    assert "Traceback" not in err
    assert "\r" not in out + err  # this is a pipe
    assert "\x1b" not in out + err
    assert "stopped: stopped after step" in out
    assert "held-out accuracy" in out
    recording = read_recording(tmp_path / "run")
    assert isinstance(recording.events[-1], RunEnded)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("stopped", recording.steps[-1].step)
    assert summary["loss_after"] > 0
    assert main(["replay", str(tmp_path / "run"), "--verify"]) == 0


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """SIGKILL at some step, then resume: the final weights are those of a run that was never killed."""
    steps = 150
    process = started(tmp_path, steps)
    process.kill()
    process.communicate()
    done = len([e for e in read_recording(tmp_path / "run").events if isinstance(e, StepDone)])
    assert 3 <= done < steps
    assert main(["resume", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["forward_passes"]) == (
        "finished",
        steps,
        steps + -(-steps // 8),
    )
    assert train(tmp_path / "whole", steps=steps, eval_examples=4) == 0
    whole = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["weights_fingerprint"] == whole["weights_fingerprint"]
    assert summary["loss_after"] == whole["loss_after"]


@pytest.mark.parametrize(
    "name", ["train", "compare", "memory", "bench", "verify", "replay", "resume", "export", "predict"]
)
def test_help_says_what_each_option_is_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every option of every command has a word of help."""
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert "RUN" in told or "--batch-size" in told
    lines = told.split("options:")[1].splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  --"):
            words = line.split(maxsplit=2)
            assert len(words) > 2 or lines[number + 1].startswith("       "), line


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_cannot_show_a_letter_ends_nothing(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cyrillic labels on a narrow terminal are escaped, and the run goes to its end."""
    odd = "".join(json.dumps({"text": f"хорошо {i}", "label": ("да", "нет")[i % 2]}) + "\n" for i in range(30))
    data = file(tmp_path / "data.jsonl", odd)
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding))
    assert train(tmp_path / "run", data=data, label_words="да=great,нет=terrible", steps=2) == 0
    assert b"labels \\u0434\\u0430" in shown.getvalue()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "finished"


def test_an_output_that_nobody_reads_ends_nothing(tmp_path: Path) -> None:
    """`train | head -1`: the reader goes after a line, the run goes to its end without a word of complaint."""
    process = subprocess.Popen(
        command("train", *base(method="mezo", steps=30, eval_every=1, eval_examples=4), "--out", "run"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith(b"mezo on ")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=120) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "finished"


def test_no_output_at_all_ends_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was started without streams, as some services do, works all the same."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["verify", str(finished)]) == 0
    assert main(["verify", "nowhere"]) == 2


def test_an_argument_that_is_no_text_is_one_sentence(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes that are not UTF-8 (Python hands them on as half characters) are told; nothing is begun."""
    for words in (["predict", str(finished), "caf\udce9"], ["train", "--data", "caf\udce9.csv", "--out", "run"]):
        with pytest.raises(SystemExit) as end:
            main(words)
        said = capsys.readouterr().err
        assert end.value.code == 2
        assert len(said.splitlines()) == 1 and "is not text in UTF-8" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_polite_kill_ends_after_the_step(tmp_path: Path) -> None:
    """SIGTERM, as from a queue or a service manager, ends a run as Ctrl-C does."""
    process = started(tmp_path, LONG)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "stopped: stopped after step" in out
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "stopped"
