"""What is taken away does the same run again; links carry every setting; forms lose nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.form import cost, cost_card, data_form, forms, prompts, share
from app.form.controls import check_model
from app.jobs.limits import HOSTED, Limits
from app.jobs.speeds import COLD, WARM, Speeds, Timing, warm_up
from app.jobs.store import JobStore
from app.tabs import export
from tests.support import tiny
from tests.support.places import ROOT
from tests.support.thread_child import launcher
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.methods import METHODS, OPTIONS
from zocore.runs.events import EvalDone, StepDone
from zocore.runs.loop import run
from zocore.runs.opening import open_session


def small(folder: Path, **more: object) -> RunConfig:
    model = tiny.save(folder / "model", "llama")
    return RunConfig(**{"model": str(model), "steps": 4, "lr": 1e-3, "eval_examples": 8, "batch_size": 4} | more)  # type: ignore[arg-type]


def test_the_script_prints_the_numbers_of_the_run(tmp_path):
    config = small(tmp_path, method="n-spsa", directions=2)
    tests = [event for event in run(config) if isinstance(event, EvalDone) and event.split == "test"]
    shown = [f"test after step {e.step}: accuracy {e.accuracy:.4f}, loss {e.loss:.6f}" for e in tests]
    (tmp_path / "run.py").write_text(export.script(config))
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("test")] == shown
    assert len(export.script(config).splitlines()) < 60


def test_the_notebook_runs_and_agrees(tmp_path):
    import nbformat

    book = export.notebook(small(tmp_path))
    nbformat.validate(nbformat.reads(book, as_version=4))
    cells = ["".join(cell["source"]) for cell in json.loads(book)["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile(cell, "cell", "exec"), names)
    assert len([e for e in names["events"] if type(e).__name__ == "StepDone"]) == 4  # type: ignore[attr-defined]


def test_the_command_is_read_back_as_the_same_settings(tmp_path):
    import shlex

    from zocore.arguments import config_of
    from zocore.cli import _parser

    config = RunConfig(method="qzo", lr=3e-5, seed=7, template='{text} It "was"', allow_pickle=True)
    searched = RunConfig(method="mezo", auto_lr=True)
    for one in (config, searched):
        words = shlex.split(export.command(one))
        assert config_of(_parser().parse_args(words[3:])) == one
    found = replace(searched, lr=2e-3)  # as the run's header has it
    assert "--lr 0.002" in export.command(found) and "auto" not in export.command(found)
    assert "auto_lr=True" in export.script(searched) and "auto_lr" not in export.script(found)


def test_a_link_carries_everything_but_paths():
    config = RunConfig(method="grzo", lr=3e-4, seed=9, steps=77, data="/secret/place.csv", allow_pickle=True)
    found, tab = share.decode(share.encode(config, "race"))
    assert (found, tab) == (replace(config, data=None, allow_pickle=False), "race")


@pytest.mark.parametrize(
    "code", ["", "%%%", "e30", "x" * 5000, share.encode(RunConfig())[:-3], "eyJydW4iOnsibHIiOiJ4In19"]
)
def test_a_damaged_link_is_one_sentence(code):
    with pytest.raises(InputError, match="link"):
        share.decode(code)


@pytest.mark.parametrize("method", METHODS)
def test_form_and_settings_are_each_others_inverse(method):
    config = forms.with_presets(RunConfig(method=method, steps=50, seed=3))
    again = forms.to_config(forms.to_form(config))
    shown = forms.shown(method)
    for name in forms.NAMES:
        if shown.get(name, True) and name not in OPTIONS:
            assert getattr(again, name) == getattr(config, name), name
    assert forms.to_config(forms.to_form(again)) == again


def test_a_rate_to_be_found_goes_from_the_form_to_links_and_back(tmp_path):
    """It takes the place of the rate in the list, for methods that probe, and the card counts it at its most."""
    form = forms.to_form(RunConfig(method="mezo", steps=10)) | {"auto_lr": True}
    config = forms.to_config(form)
    assert config.searches and forms.with_presets(config).lr is None
    assert share.decode(share.encode(config))[0].searches
    assert forms.to_form(config)["auto_lr"] is True and float(forms.to_form(config)["lr"]) > 0
    assert forms.to_form(replace(config, lr=2e-3))["auto_lr"] is False  # what was found is a rate like any other
    assert not forms.to_config(form | {"method": "adamw"}).searches
    price = cost.cost(config, Speeds(tmp_path / "speeds.json"))
    assert (price.forwards, price.search) == (2 * (10 + 48), 48)
    assert "at most 116" in cost_card.card(price) and "48 × 2 for the rate" in cost_card.card(price)
    assert price.seconds > cost.cost(replace(config, lr=1e-3), Speeds(tmp_path / "speeds.json")).seconds


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lr", "fast", "must be a number"),
        ("lr", "nan", "finite"),
        ("lr", "-1", "above 0"),
        ("steps", 0, "at least 1"),
        ("model", " ", "choose a model"),
        ("seed", -1, "seed"),
        ("steps", "1e400", "number"),
    ],
)
def test_a_bad_value_is_one_sentence(name, value, said):
    with pytest.raises(ValueError, match=said):
        forms.to_config(forms.to_form(RunConfig()) | {name: value})


def test_only_the_methods_own_options_are_shown():
    on = ["eps", "auto_lr", "measure_every", "noise", "k_shot"]
    assert [name for name, shown in forms.shown("mezo").items() if shown] == on
    assert forms.shown("mezo-gv")["pool"] and not forms.shown("grzo")["pool"]
    assert not forms.shown("adamw")["eps"]


def test_a_sentence_encoder_has_a_rate_of_its_own(tmp_path):
    """The form and the engine agree on it, for the listed one and for a folder; other models keep the papers'."""
    folder = str(tiny.save(tmp_path / "encoder", "bert", "encoder"))
    listed = "sentence-transformers/all-MiniLM-L6-v2"
    for model in (folder, listed):
        assert (
            forms.with_presets(RunConfig(method="mezo", model=model, device="cpu")).lr
            == METHODS["mezo"].preset("all", "encoder").lr
        )
    assert (
        open_session(RunConfig(method="mezo", model=folder, device="cpu")).config.lr
        == METHODS["mezo"].preset("all", "encoder").lr
    )
    for model in ("openai-community/gpt2", str(tiny.save(tmp_path / "causal", "llama")), "nobody/nothing"):
        assert (
            forms.with_presets(RunConfig(method="mezo", model=model, device="cpu")).lr
            == METHODS["mezo"].preset("all", "large").lr
        )


def test_lists_are_log_spaced_with_the_preset_marked():
    listed = forms.choices("lr", RunConfig())
    assert sum("●" in label for label, _ in listed) == 1
    assert len(listed) < 12
    assert float(listed[-1][1]) / float(listed[0][1]) == pytest.approx(1e4, rel=0.05)


def test_the_cost_card_counts_forwards_and_learns_seconds(tmp_path):
    speeds = Speeds(tmp_path / "speeds.json")
    config = RunConfig(method="n-spsa", directions=4, steps=10)
    price = cost.cost(config, speeds)
    assert (price.forwards, price.measured) == (80, False)
    speeds.learn(config, 0.5)
    again = cost.cost(config, Speeds(tmp_path / "speeds.json"))
    assert (again.per_step, again.measured) == (0.5, True)
    assert "80" in cost_card.card(again)


def test_a_few_steps_tell_the_time_of_the_rest(tmp_path):
    """The first steps, in which things are compiled, do not count; the run's own steps refine what they told."""
    events = [e for e in run(small(tmp_path, steps=WARM + 4)) if isinstance(e, StepDone)]
    timing = Timing(WARM + 4)
    told = {event.step: timing.add(event) for event in events}
    assert [step for step, seconds in told.items() if seconds] == [WARM, WARM + 4]
    at = {event.step: event.seconds for event in events}
    assert told[WARM] == pytest.approx((at[WARM] - at[COLD]) / (WARM - COLD))
    assert told[WARM + 4] == pytest.approx((at[WARM + 4] - at[COLD]) / (WARM + 4 - COLD))


def test_a_timing_on_request_gives_up_on_a_model_that_is_too_slow(tmp_path, monkeypatch):
    """The card's button times real steps, and says so when not even one was done in time."""
    config = small(tmp_path, steps=10_000)
    assert 0 < warm_up(config) < 10
    monkeypatch.setattr("app.jobs.speeds.PATIENCE", -1.0)
    with pytest.raises(ValueError, match="not one step"):
        warm_up(config)


@pytest.fixture
def store(tmp_path) -> Iterator[JobStore]:
    made = JobStore(tmp_path / "runs", launch=launcher(run))
    yield made
    made.close()


def test_a_server_times_its_preset_before_it_is_asked(tmp_path, store):
    """What is found is remembered; what cannot work is left for Start to tell."""
    config = small(tmp_path)
    store.prepare(config)
    assert store.speeds.seconds(config) is not None
    store.prepare(replace(config, model=str(tmp_path / "nothing here")))
    assert len(store.speeds.known) == 1


def test_the_predicted_memory_follows_the_length_of_the_prompts(tmp_path, store):
    """Short texts are billed as short ones, a changed file is read again, and the cut is the most."""
    data = tmp_path / "data.csv"
    config = RunConfig(data=str(data))
    sizes = []
    for words in (4, 40, 4000):
        data.write_text("text,label\n" + "".join(f"{'word ' * words},{i % 2}\n" for i in range(20)))
        os.utime(data, ns=(words, words))
        prompts.measure_texts(config, store.files)
        sizes.append(prompts.texts(config).tokens)
    assert 4 <= sizes[0] < 40 <= sizes[1] < sizes[2] == config.max_tokens
    assert prompts.texts(replace(config, lr=1e-4, method="grzo", steps=7)).tokens == sizes[-1]
    data.unlink()
    assert prompts.texts(config).tokens == config.max_tokens  # what nobody measured is taken to be as long as it may be
    with pytest.raises(InputError, match="there is no file"):
        prompts.measure_texts(config, store.files)


@pytest.mark.parametrize("method", ["mezo", "grzo", "adamw"])
def test_the_predicted_memory_is_near_what_is_measured(method):
    """On the bundled model the bill is above the tensors of a real step, and by less than a third."""
    config = RunConfig(method=method, steps=3, eval_examples=1, device="cpu")
    measured = max(event.memory_bytes for event in run(config) if isinstance(event, StepDone))
    predicted = cost.predicted(config)
    assert predicted is not None
    assert measured <= predicted.total <= 1.34 * measured


def test_a_model_too_large_for_the_device_is_named_on_the_button(tmp_path):
    config = RunConfig(model="meta-llama/Meta-Llama-3-8B", device="cpu", dtype="fp32")
    price = cost.cost(config, Speeds(tmp_path / "s.json"))
    assert price.blocker.startswith("Needs") or price.room > price.bill.total


def test_a_hosted_server_opens_no_folder(tmp_path):
    for model in (str(tmp_path), "../somewhere", "/etc"):
        with pytest.raises(InputError, match="by hub id"):
            check_model(model, HOSTED)
        check_model(model, Limits())
    check_model("bundled", HOSTED)


def test_an_upload_over_the_limit_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "big.csv"
    path.write_bytes(b"text,label\n" + b"x" * 1000)
    with pytest.raises(InputError, match="over the limit"):
        data_form.keep_upload(str(path), tmp_path / "kept", 500)
    assert not (tmp_path / "kept").exists()
