"""The recording is the checkpoint: events survive JSON, weights come back bitwise, a run goes on from any byte."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from tests.support import tiny
from tests.support.recordings import lines_of, plain, recorded
from tests.support.short_runs import BACKPROP, IN_PLACE, ZEROTH_ORDER, data_file, model_folder, same, settings, weights
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.noise import addressed
from zocore.runs.delta import open_delta, read_delta
from zocore.runs.events import EvalDone, Event, RunEnded, RunStarted, StepDone
from zocore.runs.export import write_model
from zocore.runs.loop import run, run_session
from zocore.runs.opening import open_session
from zocore.runs.predict import predictions
from zocore.runs.rebuilding import replay
from zocore.runs.recording import EVENTS, claim, read_recording, record
from zocore.runs.replay import (
    IN_PLACE_TOLERANCE,
    UNSEALED,
    difference,
    export_delta,
    export_run,
    predict_run,
    rebuild,
    replay_run,
)
from zocore.subspaces.quantised import prepare

HARD = [float("nan"), float("inf"), -float("inf"), 0.1, 1 / 3, -0.0, 5e-324, 1.7976931348623157e308, 1e22, 2**-1074]


EXAMPLES: dict[Any, Any] = {
    int: 7,
    str: 'a "quoted" line\nand another, ä 漢 \U0001f600',
    bool: True,
    float: 1 / 3,
    Any: [[0.5, 2], {"examples": 3}],
    type(None): None,
}


def example(hint: Any) -> Any:
    """A value of a type, numbers in lists being the hard ones."""
    if get_origin(hint) is list:
        (inner,) = get_args(hint)
        return HARD if inner is float else [example(inner), example(inner)]
    if get_origin(hint) is dict:
        return {"a": example(get_args(hint)[1]), "b": example(get_args(hint)[1])}
    return EXAMPLES[hint] if hint in EXAMPLES else example(get_args(hint)[0])


def example_of(kind: type[Event]) -> Event:
    """An event with a value of its type in every field."""
    hints = get_type_hints(kind)
    return kind(**{field.name: example(hints[field.name]) for field in fields(kind)})


def bits(value: Any) -> Any:
    """A value with floats as their exact text, so that NaN equals NaN and -0 is not 0."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value.hex()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("kind", Event.kinds.values(), ids=Event.kinds)
def test_events_survive_json_bit_for_bit(kind: type[Event]) -> None:
    """Every field of every kind of event comes back, floats with every bit, also those that are no numbers."""
    event = example_of(kind)
    line = event.to_json()
    back = Event.from_json(line)
    assert "\n" not in line
    assert type(back) is kind
    assert bits(list(vars(back).values())) == bits(list(vars(event).values()))
    assert len(get_type_hints(kind)) >= len(vars(back)) > 1


@pytest.mark.parametrize(
    "line", ['{"event":"StepDone","step":1', '{"event":"Nothing"}', "5", "[]", "", '{"step":1}', "null", '{"event":[]}']
)
def test_a_line_that_is_no_event_is_refused(line: str) -> None:
    """A torn line, an unknown kind and other JSON are each told in a few words."""
    with pytest.raises(ValueError, match="^it ") as error:
        Event.from_json(line)
    assert type(error.value) is ValueError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six GRZO steps with evaluations, which has every kind of line."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    recorded(folder, method="grzo", steps=6, eval_every=2, measure_every=4)
    return folder


def copy(finished: Path, to: Path, content: bytes) -> Path:
    """A folder with these events."""
    to.mkdir(parents=True)
    (to / EVENTS).write_bytes(content)
    return to


def test_a_recording_reads_back_as_what_was_told(tmp_path: Path) -> None:
    """The events in the file are those that the run yielded, and config.json is the header's."""
    told = recorded(tmp_path / "run", eval_every=2)
    assert list(read_recording(tmp_path / "run").events) == told
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert RunConfig.from_json(config).to_json() == told[0].config == config


def test_every_event_is_on_disk_before_the_next_one_is_made(tmp_path: Path) -> None:
    """Each event is flushed as it happens, so a kill loses nothing that was told."""
    claim(tmp_path / "run")
    told = []
    for event in record(run(settings()), tmp_path / "run"):
        told.append(event)
        assert list(read_recording(tmp_path / "run").events) == told


def test_a_torn_last_line_is_left_out_and_a_damaged_one_before_is_an_error(finished: Path, tmp_path: Path) -> None:
    """Cutting the last line anywhere loses that line alone; a damaged line in the middle is named in one sentence."""
    content = (finished / EVENTS).read_bytes()
    whole = read_recording(finished).events
    lines = content.splitlines(keepends=True)
    for cut in (1, 2, len(lines[-1]) // 2, len(lines[-1]) - 1):
        torn = copy(finished, tmp_path / f"torn{cut}", content[:-cut])
        assert read_recording(torn).events == whole[:-1]
    for number, damage in ((3, b"{}\n"), (5, lines[4][:50] + b"\n"), (6, b"\xff\xfe\n"), (7, b"17\n")):
        damaged = [*lines[: number - 1], damage, *lines[number:]]
        folder = copy(finished, tmp_path / f"damaged{number}", b"".join(damaged))
        with pytest.raises(InputError, match=f"line {number} is damaged") as error:
            read_recording(folder)
        assert "\n" not in str(error.value)


def test_a_folder_without_a_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """No folder, no events, no header: each is told apart."""
    with pytest.raises(InputError, match="is not a run folder"):
        read_recording(tmp_path / "nothing")
    copy(tmp_path, tmp_path / "torn", b'{"event":"RunStarted","conf')
    with pytest.raises(InputError, match="killed as it started"):
        read_recording(tmp_path / "torn")


def test_a_folder_that_holds_a_run_is_not_overwritten(finished: Path, tmp_path: Path) -> None:
    """A used folder is refused and left byte for byte; a file in the way is one sentence too."""
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    with pytest.raises(InputError, match="already holds a run"):
        claim(finished)
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot make the run folder"):
        claim(tmp_path / "file" / "run")


SUMMARY = {
    "method": "grzo",
    "seed": 0,
    "status": "finished",
    "steps": 6,
    "forward_passes": 12,
}
MEASURED = ("seconds", "steps_per_second", "loss_before", "loss_after", "accuracy_before", "accuracy_after")


def test_the_summary_has_every_field_and_the_numbers_of_the_events(finished: Path) -> None:
    """summary.json names method, model, task, seed and outcome, with the events' figures."""
    summary = json.loads((finished / "summary.json").read_text())
    assert {name: summary[name] for name in SUMMARY} == SUMMARY
    assert (summary["model"], summary["task"]) == (model_folder(), data_file())
    events = read_recording(finished).events
    tests = [e for e in events if isinstance(e, EvalDone) and e.split == "test"]
    assert [summary["loss_before"], summary["loss_after"]] == [e.loss for e in tests]
    assert [summary["accuracy_before"], summary["accuracy_after"]] == [e.accuracy for e in tests]
    end = events[-1]
    assert isinstance(end, RunEnded)
    for name in ("seconds", "steps_per_second", "peak_memory_bytes", "reason", "forward_cost", "weights_fingerprint"):
        assert summary[name] == getattr(end, name), name
    assert summary["peak_memory_bytes"] > 10**5


def test_a_summary_of_a_run_that_was_cut_off_has_every_field_too(tmp_path: Path) -> None:
    """Whatever ended a run, the same fields are there, and what was never found is null."""
    claim(tmp_path / "run")
    events = record(run(settings()), tmp_path / "run")
    for event in events:
        if isinstance(event, RunStarted):
            break
    events.close()  # type: ignore[attr-defined]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert (summary["steps"], summary["forward_passes"], summary["peak_memory_bytes"]) == (0, 0, 0)
    assert [summary[name] for name in MEASURED] == [0.0, 0.0, None, None, None, None]


def test_a_stopped_run_that_went_on_forgets_the_first_end(tmp_path: Path) -> None:
    """After a resume the summary tells the new end, and of a second cut no figures of the first."""
    claim(tmp_path / "run")
    seen: list[Event] = []
    for event in record(run(settings(steps=8), lambda: len(seen) > 5), tmp_path / "run"):
        seen.append(event)
    first = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert first["status"] == "stopped"
    going = record(run(settings(steps=8), recording=read_recording(tmp_path / "run")), tmp_path / "run")
    for event in going:
        if isinstance(event, StepDone):
            break
    going.close()  # type: ignore[attr-defined]
    cut = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (cut["status"], cut["steps"], cut["loss_after"]) == ("interrupted", first["steps"] + 1, None)
    assert "process ended" in cut["reason"]
    list(record(run(settings(steps=8), recording=read_recording(tmp_path / "run")), tmp_path / "run"))
    last = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (last["status"], last["steps"], last["loss_before"]) == ("finished", 8, first["loss_before"])
    assert last["forward_passes"] == 16


CUTS = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)


def cut_points(content: bytes) -> list[int]:
    """Bytes all over the file past the header, with the ends of lines and their neighbours among them."""
    start = content.index(b"\n") + 1
    ends = [i + 1 for i, byte in enumerate(content) if byte == 10]
    middle = ends[len(ends) // 2]
    spread = [start + int(share * (len(content) - start)) for share in CUTS]
    return sorted({start, middle - 1, middle, middle + 1, ends[-2] - 1, ends[-2], len(content) - 1, *spread})


@pytest.mark.parametrize("name", ["grzo", "adam", "qzo nf4", "bf16"])
def test_a_run_cut_off_at_any_byte_goes_on_to_the_same_weights(name: str, tmp_path: Path) -> None:
    """Killed anywhere past its header, a run resumes to the weights of an uninterrupted one, and replays whole."""
    told = recorded(tmp_path / "whole", **ZEROTH_ORDER[name], steps=6, eval_every=2)
    content = (tmp_path / "whole" / EVENTS).read_bytes()
    cuts = cut_points(content)
    for cut in cuts if name == "grzo" else cuts[2::4]:
        folder = copy(tmp_path, tmp_path / str(cut), content[:cut])
        again: list[Any] = list(
            record(run(settings(**ZEROTH_ORDER[name], steps=6, eval_every=2), recording=read_recording(folder)), folder)
        )
        assert again[-1].status == "finished"
        assert again[-1].weights_fingerprint == told[-1].weights_fingerprint, cut
        assert (again[-1].forward_passes, again[-1].steps) == (told[-1].forward_passes, 6)
        recording = read_recording(folder)
        assert [e.step for e in recording.steps] == [1, 2, 3, 4, 5, 6], cut
        assert [e.loss for e in recording.steps] == [e.loss for e in told if isinstance(e, StepDone)]
        assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
    recording, session = rebuild(folder)
    assert session.fingerprint() == told[-1].weights_fingerprint


def test_other_base_weights_data_or_noise_are_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resume on a changed base model, changed data or another noise says so in a sentence and writes nothing."""
    model, data = tiny.save(tmp_path / "model", "llama"), tmp_path / "data.jsonl"
    data.write_text(Path(data_file()).read_text())
    config = replace(settings(), model=str(model), data=str(data))
    folder = tmp_path / "run"
    claim(folder)
    list(record(run(config), folder))
    content = b"".join(lines_of(folder)[:-4])
    (folder / EVENTS).write_bytes(content)

    def refusal(call: Any) -> str:
        with pytest.raises(ValueError) as error:
            call()
        assert (folder / EVENTS).read_bytes() == content
        assert "\n" not in str(error.value)
        return str(error.value)

    def resume() -> Any:
        return list(record(run(config, recording=read_recording(folder)), folder))

    with monkeypatch.context() as patch:
        patch.setattr(addressed, "VERSION", addressed.VERSION + 1)
        assert "another version of the noise" in refusal(resume)
        assert "another version of the noise" in refusal(lambda: rebuild(folder))
    lines = data.read_text().splitlines()
    data.write_text("\n".join([lines[0].replace("terrible", "horrible"), *lines[1:]]) + "\n")
    assert "have changed since the run" in refusal(resume)
    data.write_text("\n".join(lines) + "\n")
    tiny.model("llama", seed=1).save_pretrained(model)
    assert "are not those the run started from" in refusal(resume)
    assert "are not those the run started from" in refusal(lambda: rebuild(folder))
    tiny.model("llama", seed=0).save_pretrained(model)
    assert resume()[-1].status == "finished"


@pytest.mark.parametrize("name", [*ZEROTH_ORDER, *IN_PLACE])
def test_a_replay_to_any_step_gives_the_live_weights_bitwise(name: str) -> None:
    """After every step the weights made again from the recorded line equal the live ones (in place: to rounding)."""
    live = open_session(settings(**(ZEROTH_ORDER | IN_PLACE)[name]))
    events, after = [], []
    for event in run_session(live):
        events.append(Event.from_json(event.to_json()))
        if isinstance(event, StepDone):
            after.append(weights(live))
    header, steps = events[0], [e for e in events if isinstance(e, StepDone)]
    assert isinstance(header, RunStarted)
    again = open_session(RunConfig.from_json(header.config), header.frozen)
    moved = 1 if live.method.name == "feedback" else 0  # its first step only learns: there is no feedback yet
    assert not same(weights(again), after[moved])
    for step, expected in zip(steps, after, strict=True):
        replay(again, [step])
        if name in IN_PLACE:
            largest = max(float(t.abs().max()) for t in expected)
            apart = max(float((a - b).abs().max()) for a, b in zip(weights(again), expected, strict=True))
            assert 0 < apart <= IN_PLACE_TOLERANCE * largest
        else:
            assert same(weights(again), expected), step.step


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mezo", "without a forward pass"),
        ("activity", "with 4 of 20 forward passes"),
        ("feedback onto scores", "with 4 of 8 forward passes"),
        ("feedback onto scores, a push in two", "with 4 of 6 forward passes"),
        ("feedback", "with 5 of 5 forward passes"),
    ],
)
def test_a_replay_says_what_it_takes(name: str, said: str, tmp_path: Path) -> None:
    """The forward passes of a replay stand in the header and in what is said, and the weights are proved with them."""
    header = recorded(tmp_path / "run", **ZEROTH_ORDER[name])[0]
    assert isinstance(header, RunStarted)
    verdict = replay_run(tmp_path / "run", None, verify=True)
    assert verdict.proved
    assert said in verdict.lines[0]
    assert (header.replay_passes == 0) == (name == "mezo")


@pytest.mark.parametrize("name", BACKPROP)
def test_what_cannot_be_replayed_says_so(name: str, tmp_path: Path) -> None:
    """A run of backprop cannot be rebuilt or resumed, and the sentence says why."""
    recorded(tmp_path / "run", **BACKPROP[name])
    with pytest.raises(ValueError, match="replay do not go together"):
        rebuild(tmp_path / "run")


def test_a_step_that_was_skipped_replays_to_nothing() -> None:
    """Replaying a skipped step leaves the weights and the rule's memory alone."""
    session = open_session(settings(update="adam"))
    before = weights(session)
    forward = session.objective.losses
    session.objective.losses = lambda batch: forward(batch) * float("nan")  # type: ignore[method-assign]
    steps = [e for e in run_session(session) if isinstance(e, StepDone)]
    replay(session, steps)
    assert all(e.skipped for e in steps)
    assert same(weights(session), before)
    assert not session.state


def test_verify_proves_the_end_an_earlier_step_and_the_lack_of_it(finished: Path, tmp_path: Path) -> None:
    """The end is proved by its fingerprint, an earlier step by doing it again, and a changed line is found out."""
    assert replay_run(finished, None, verify=False).lines[-1].startswith("fingerprint")
    end = replay_run(finished, None, verify=True)
    assert end.proved
    assert "the weights the run ended with" in end.lines[-1]
    early = replay_run(finished, 3, verify=True)
    assert early.proved
    assert "the same steps run again" in early.lines[-1]
    assert replay_run(finished, 0, verify=True).proved
    lines = plain(lines_of(finished))  # a recording without seals, where a change is not noticed before the proof
    number = next(i for i, line in enumerate(lines) if b'"StepDone","step":2,' in line)
    step = Event.from_json(lines[number])
    assert isinstance(step, StepDone)
    changed = replace(step, coefficients=[-step.coefficients[0], *step.coefficients[1:]])
    lines[number] = changed.to_json().encode() + b"\n"
    verdict = replay_run(copy(finished, tmp_path / "changed", b"".join(lines)), None, verify=True)
    assert not verdict.proved
    assert "NOT equal" in verdict.lines[-1]
    assert UNSEALED in verdict.lines
    for step_number in (-1, 7):
        with pytest.raises(InputError, match="has steps 0 to 6"):
            replay_run(finished, step_number, verify=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so nothing has to be rebuilt elsewhere")
def test_a_run_of_a_gpu_can_be_rebuilt_without_one(finished: Path, tmp_path: Path) -> None:
    """A recording that names a GPU is replayed on the CPU of a machine that has none, and goes on there."""
    lines = plain(lines_of(finished))
    lines[0] = lines[0].replace(b'"device":"cpu"', b'"device":"cuda"')
    assert b"cuda" in lines[0]
    _, session = rebuild(copy(finished, tmp_path / "gpu", b"".join(lines)))
    assert session.config.device == "cpu"
    assert same(weights(session), weights(rebuild(finished)[1]))
    third = next(n for n, line in enumerate(lines) if b'"event":"StepDone"' in line and b'"step":3,' in line)
    cut = read_recording(copy(finished, tmp_path / "cut", b"".join(lines[: third + 1])))
    events = list(run(cut.config, recording=cut))
    assert [event.step for event in events if isinstance(event, StepDone)] == [4, 5, 6]
    assert isinstance(events[0], RunStarted) and events[0].device == "cpu"


def test_verify_of_an_in_place_run_states_its_tolerance(tmp_path: Path) -> None:
    """In-place probes round on the way back: the verdict is true and says how far apart the weights are."""
    recorded(tmp_path / "run", carrier="in-place")
    verdict = replay_run(tmp_path / "run", None, verify=True)
    assert verdict.proved
    assert "verified to" in verdict.lines[-1]


def logits(model: Any, text: str, folder: str | Path) -> Tensor:
    """Next-token logits (V,) of a text."""
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        return model(input_ids=tokens["input_ids"], use_cache=False).logits[0, -1].float()


EXPORTED = ("mezo", "grzo", "bf16", "bf16 with masters", "gpt2", "qzo nf4", "qzo int8")
ADAPTED = ("lora", "grzo on lora", "lora, gpt2", "lora on nf4", "lora on int8")
TEXT = "the film was great It was"


@pytest.mark.parametrize("name", [*EXPORTED, *ADAPTED])
def test_an_export_is_a_folder_that_transformers_loads_to_the_same_logits(name: str, tmp_path: Path) -> None:
    """The written model answers as the run's own, and differently from the base."""
    recorded(tmp_path / "run", **ZEROTH_ORDER[name], steps=6)
    export_run(tmp_path / "run", tmp_path / "to", None, delta=False)
    _, session = rebuild(tmp_path / "run")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "to").eval()
    assert not [n for n, _ in loaded.named_modules() if "lora" in n]
    if "qzo" in name:
        prepare(loaded)  # or bitsandbytes' fast forwards round scales (4 bits) and activations (int8)
    written = logits(loaded, TEXT, tmp_path / "to")
    ours = logits(session.loaded.model, TEXT, tmp_path / "to")
    _, base = rebuild(tmp_path / "run", step=0)
    far = float((ours - logits(base.loaded.model, TEXT, tmp_path / "to")).abs().max())
    apart = float((written - ours).abs().max())
    assert far > 1e-3
    assert apart <= (1e-4 if "lora" in name else 1e-5)  # an adapter is folded in by one rounding of the sum


def test_an_exported_encoder_loads(tmp_path: Path) -> None:
    """A masked-language model is written whole, its head included."""
    recorded(tmp_path / "run", method="grzo", model="bert")
    export_run(tmp_path / "run", tmp_path / "to", None, delta=False)
    _, session = rebuild(tmp_path / "run")
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path / "to").eval()
    torch.testing.assert_close(
        logits(loaded, TEXT, tmp_path / "to"), logits(session.loaded.model, TEXT, tmp_path / "to")
    )


def test_an_exported_sentence_encoder_keeps_its_label_anchors(tmp_path: Path) -> None:
    """Opened again, it answers as the run's weights do: with the anchors of the base, not of the tuned weights."""
    model = str(tiny.save(tmp_path / "model", "bert", kind="encoder"))
    config = replace(settings(lr=1e-1, steps=6), model=model)
    claim(tmp_path / "run")
    list(record(run(config), tmp_path / "run"))
    export_run(tmp_path / "run", tmp_path / "to", None, delta=False)
    _, tuned = rebuild(tmp_path / "run")
    written = open_session(replace(config, model=str(tmp_path / "to")))
    texts = ["the film was great", "bad food"]
    expected = tuned.objective.probabilities(texts)
    torch.testing.assert_close(written.objective.probabilities(texts), expected)
    (tmp_path / "to" / "label_anchors.safetensors").unlink()
    without = open_session(replace(config, model=str(tmp_path / "to"))).objective.probabilities(texts)
    assert float((without - expected).abs().max()) > 1e-3
    other = open_session(replace(config, model=str(tmp_path / "to"), label_words="bad,good"))
    assert other.objective.probabilities(texts).shape == expected.shape


def test_an_export_that_is_killed_leaves_nothing_where_it_should_go(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target appears whole or not at all, and what was left beside it is taken away by the next export."""

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", killed)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # a kill cleans nothing up
        with pytest.raises(Killed):
            export_run(finished, tmp_path / "to", None, delta=False)
    assert not (tmp_path / "to").exists()
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "to").mkdir()  # an empty folder may wait there
    export_run(finished, tmp_path / "to", None, delta=False)
    assert [path.name for path in tmp_path.iterdir()] == ["to"]


def test_other_labels_in_the_data_are_refused(tmp_path: Path) -> None:
    """A rebuilt model whose labels have other names would be misread."""
    data = tmp_path / "data.jsonl"
    data.write_text(Path(data_file()).read_text())
    claim(tmp_path / "run")
    list(record(run(replace(settings(label_words=None), data=str(data))), tmp_path / "run"))
    data.write_text(data.read_text().replace('"label": 1', '"label": 7'))
    with pytest.raises(ValueError, match="the labels in the data are 0, 7 where the run had 0, 1"):
        rebuild(tmp_path / "run")


def test_an_old_recording_splits_a_single_file_by_its_seed(tmp_path: Path) -> None:
    """Recordings made when --seed also split the data go on with the split they had."""
    config = settings(seed=5, split_seed=5, steps=6)
    claim(tmp_path / "run")
    told = list(record(run(config), tmp_path / "run"))
    lines = plain(lines_of(tmp_path / "run"))
    lines[0] = lines[0].replace(b'"split_seed":5,', b"")
    assert b"split_seed" not in lines[0]
    third = next(n for n, line in enumerate(lines) if b'"event":"StepDone","step":3,' in line)
    cut = read_recording(copy(tmp_path, tmp_path / "old", b"".join(lines[:third])))
    assert cut.config.split_seed == 5
    again = list(record(run(cut.config, recording=cut), tmp_path / "old"))
    assert again[-1].weights_fingerprint == told[-1].weights_fingerprint  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["mezo", "lora", "one layer", "bf16 with masters", "qzo nf4", "qzo int8"])
def test_the_delta_alone_brings_the_weights_back(name: str, tmp_path: Path) -> None:
    """A safetensors file of what moved, laid over a fresh base, gives the run's weights bitwise."""
    recorded(tmp_path / "run", **ZEROTH_ORDER[name])
    export_run(tmp_path / "run", tmp_path / "to", None, delta=True)
    recording, session = rebuild(tmp_path / "run")
    _, base = rebuild(tmp_path / "run", step=0)
    assert not same(weights(base), weights(session))
    (file,) = (tmp_path / "to").glob("*.safetensors")
    assert sorted(load_file(file)) == sorted(leaf.name for leaf in session.leaves)
    delta, fingerprint = read_delta(file), recording.header.fingerprint
    delta.lay_over(base.leaves, base.loaded.model, fingerprint)
    assert same(weights(base), weights(session))
    text = ["the film was great"]
    assert torch.equal(base.objective.probabilities(text), session.objective.probabilities(text))
    if session.config.subspace != "scales":
        with pytest.raises(InputError, match="belongs to other base weights"):
            delta.lay_over(base.leaves, base.loaded.model, "0" * 64)
        with pytest.raises(InputError, match="holds other tensors"):
            delta.lay_over(base.leaves[:-1], base.loaded.model, fingerprint)


@pytest.mark.parametrize("name", ["mezo", "lora on nf4", "qzo nf4", "grzo, bert"])
def test_a_base_model_and_the_delta_answer_and_are_written_as_the_run(name: str, tmp_path: Path) -> None:
    """From the file and the base model alone, without the run or its data, come the run's weights and answers."""
    recorded(tmp_path / "run", **ZEROTH_ORDER[name])
    export_run(tmp_path / "run", tmp_path / "to", None, delta=True)
    _, session = rebuild(tmp_path / "run")
    (file,) = (tmp_path / "to").glob("*.safetensors")
    shutil.rmtree(tmp_path / "run")
    opened = open_delta(session.config.model, file)
    assert opened.task.train == ()
    assert same(weights(opened), weights(session))
    texts = ["the film was great", "bad food"]
    assert predictions(opened, texts) == predictions(session, texts)
    export_delta(session.config.model, file, tmp_path / "model")
    written = load_file(tmp_path / "model" / "model.safetensors")
    write_model(session, tmp_path / "expected")
    expected = load_file(tmp_path / "expected" / "model.safetensors")
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in written)


def test_a_delta_of_another_model_or_of_none_is_one_sentence(finished: Path, tmp_path: Path) -> None:
    """A base of other weights, a file that is none of ours, one that does not say how its model was loaded."""
    export_run(finished, tmp_path / "to", None, delta=True)
    file = tmp_path / "to" / "delta.safetensors"
    with pytest.raises(InputError, match="belongs to other base weights"):
        open_delta(model_folder("gpt2"), file)
    with pytest.raises(InputError, match="does not hold what a run changed"):
        open_delta("bundled", Path(model_folder()) / "model.safetensors")
    save_file(load_file(file), tmp_path / "bare.safetensors", {"format": "zocore delta 1"})
    with pytest.raises(InputError, match="export it again"):
        open_delta("bundled", tmp_path / "bare.safetensors")


def test_an_export_overwrites_nothing(finished: Path, tmp_path: Path) -> None:
    """A folder with something in it, or a file, is refused."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for target in (tmp_path / "full", tmp_path / "full" / "thesis.txt"):
        with pytest.raises(InputError, match="already exists"):
            export_run(finished, target, None, delta=False)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_predictions_are_the_tuned_models(finished: Path) -> None:
    """Each sentence gets the likeliest label and all probabilities of the weights at the step asked for."""
    texts = ["the film was great", "bad food"]
    for step in (None, 0, 2):
        _, session = rebuild(finished, step)
        expected: Sequence[Sequence[float]] = session.objective.probabilities(texts).tolist()
        for text, row, line in zip(texts, expected, predict_run(finished, texts, step), strict=True):
            assert line == f"{row.index(max(row))}  (0 {row[0]:.3f}, 1 {row[1]:.3f})  {text}"
    assert predict_run(finished, texts, 0) != predict_run(finished, texts, None)


def test_the_difference_of_sessions_is_the_largest_over_the_largest() -> None:
    """One element moved by a tenth of the largest weight is a difference of a tenth."""
    one, other = open_session(settings()), open_session(settings())
    largest = max(float(leaf.tensor.abs().max()) for leaf in one.leaves)
    other.leaves[1].tensor.view(-1)[3] += 0.1 * largest
    assert difference(one, one) == 0
    assert difference(one, other) == pytest.approx(0.1, rel=0.01)


def test_a_folder_left_by_a_start_that_was_killed_can_be_used_again(tmp_path: Path) -> None:
    """An empty recording holds no run; one with a header does."""
    (tmp_path / "events.jsonl").touch()
    claim(tmp_path)
    (tmp_path / "events.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="already holds a run"):
        claim(tmp_path)
