"""What the page says is so: verdicts, costs, warnings and notes, without a browser."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch

from app import words
from app.charts import cells, plots
from app.form import arithmetic, cost, cost_card, data_form, forms, prompts, reading
from app.form.controls import filled
from app.jobs.job import Job, Lane, new_job
from app.jobs.limits import Limits
from app.jobs.questions import QUESTIONS, Shelf, prompt, texts
from app.jobs.speeds import Speeds
from app.jobs.store import JobStore
from app.jobs.view import View
from app.tabs import export, layers, live, race, replay, stage, standings
from app.tabs.live import Drawn, Look
from tests.support.places import RECORDED
from tests.support.thread_child import launcher
from zocore.config import RunConfig
from zocore.data.tasks import read_task
from zocore.diagnostics.broken_runs import run_broken
from zocore.diagnostics.phase import Phase
from zocore.methods import METHODS
from zocore.models.files import BUNDLED
from zocore.runs.events import EvalDone, Event, RunEnded, SampleShown, StepDone, Warned
from zocore.runs.loop import run
from zocore.runs.opening import open_session

HEADER, *_ = [Event.from_json(line) for line in RECORDED.read_text().splitlines()[:1]]


def step(number: int, loss: float, cost_: float = 2.0, plus: float = 1.0, minus: float = 0.9) -> StepDone:
    return StepDone(
        number, loss, [plus], [minus], [0.5], [0.5], [0], 1e-4, 1e-3, 2 * number, cost_ * number, 0.1 * number, 10.0, 5
    )


def lane(method: str, seed: int, loss: float) -> Lane:
    made = Lane(RunConfig(method=method, seed=seed, steps=1), Path("nowhere"))
    for event in (
        HEADER, EvalDone(0, "test", 1.0, 0.5, 8, 0.0), step(1, 1.0), EvalDone(1, "test", loss, 0.6, 8, 0.0),
        RunEnded("finished", "", 1, 2, 2.0, 0.1, 10.0, 5, 0),
    ):  # fmt: skip
        made.add(event)
    return made


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        ({"mezo": [0.50], "grzo": [0.40]}, "one seed, which can be luck"),
        ({"mezo": [0.50, 0.52, 0.48], "grzo": [0.49, 0.47, 0.51]}, "No clear winner: <b>GRZO</b> and <b>MeZO</b>"),
        ({"mezo": [0.50, 0.51, 0.49], "grzo": [0.30, 0.31, 0.29]}, "<b>GRZO</b> has the lowest loss, by more than"),
    ],
)
def test_a_race_names_a_winner_only_where_the_seeds_agree(losses: dict[str, list[float]], sentence: str) -> None:
    lanes = [lane(method, seed, loss) for method, found in losses.items() for seed, loss in enumerate(found)]
    assert sentence in standings.table(lanes, None)
    assert "You said MeZO. " in standings.table(lanes, "mezo")


def test_a_race_spends_the_same_arithmetic_in_every_lane() -> None:
    """GRZO's forwards do twice the products, so it gets half the steps of MeZO."""
    lanes = race.lanes(RunConfig(), ["mezo", "grzo", "mezo-gv"], 1, 240)
    assert {one.method: one.steps for one in lanes} == {"mezo": 120, "grzo": 60, "mezo-gv": 40}
    assert {one.method: one.steps * arithmetic.price(one) for one in lanes} == dict.fromkeys(
        ("mezo", "grzo", "mezo-gv"), 240
    )
    for recorded in race.recorded():
        assert recorded.view.place.cost == pytest.approx(race_budget(), rel=0.04)
        header = recorded.view.header
        assert header is not None and header.cost_per_step == pytest.approx(arithmetic.price(recorded.config), rel=0.04)


@pytest.mark.parametrize("subspace", ["all", "top:2", "writers:2", "writers:1"])
@pytest.mark.parametrize("method", ["mezo", "grzo", "fzoo", "feedback", "activity"])
def test_the_price_of_a_step_is_what_the_run_counts(method: str, subspace: str) -> None:
    """From the model's sizes alone: frozen blocks once, twice the products where each example has a direction."""
    if METHODS[method].home == "writers:2":
        subspace = subspace.replace("all", "writers").replace("top", "writers")
    config = forms.with_presets(RunConfig(method=method, subspace=subspace, steps=100))
    assert arithmetic.price(config) == pytest.approx(open_session(config).cost_per_step, rel=0.04)
    assert arithmetic.affordable(config, arithmetic.price(config) * 100) in (99, 100)


def race_budget() -> float:
    from app.record import BUDGET

    return BUDGET


@pytest.fixture
def own_data(tmp_path: Path) -> RunConfig:
    path = tmp_path / "own.csv"
    rows = [
        f"the {word} one number {i},{name}" for i in range(20) for word, name in (("great", "good"), ("bad", "ill"))
    ]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return RunConfig(
        data=str(path), label_words="good=absolutely wonderful thing,ill=rather terrible affair", device="cpu", steps=2
    )


@pytest.mark.slow
def test_labels_of_several_tokens_are_counted_as_the_rows_they_take(own_data: RunConfig) -> None:
    """The bill is above what a step holds, and below twice that; it was a fifth when a label counted as one token."""
    facts: dict[str, Any] = {"config": replace(own_data, steps=400).to_json(), "tokenizer": str(BUNDLED)}
    sizes = texts(Shelf(), facts | {"causal": True})
    assert sizes["rows"] == 2 and sizes["options"] >= 3
    assert texts(Shelf(), facts | {"causal": False})["rows"] == 1
    prompts._MEASURED[prompts._text_key(own_data)] = sizes | {"rows": 1, "options": 1}
    short = cost.predicted(own_data)
    prompts._MEASURED[prompts._text_key(own_data)] = sizes
    bill = cost.predicted(own_data)
    assert bill is not None and short is not None and bill.total > short.total
    held = max(event.memory_bytes for event in run(own_data) if isinstance(event, StepDone))
    assert held <= bill.total <= 2 * held


def test_the_time_of_a_run_counts_its_evaluations(tmp_path: Path) -> None:
    speeds = Speeds(tmp_path / "speeds.json")
    config = RunConfig(steps=5, batch_size=16, eval_examples=400)
    speeds.learn(config, 0.1)
    price = cost.cost(config, speeds)
    assert price.seconds == pytest.approx(5 * 0.1 + cost.LOAD + 2 * 400 / 16 * 0.1 / arithmetic.price(config))
    assert cost.cost(replace(config, eval_every=1), speeds).seconds > 2 * price.seconds
    assert cost_card.facts(price)["seconds"] == price.seconds


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return new_job(tmp_path, "ann", [RunConfig()], "run")


def test_a_run_that_failed_at_once_shows_nothing_of_the_run_before(job: Job) -> None:
    """Its memory and axes are empty, and why it failed is said once."""
    before = Drawn("other run", 5, 40, 40, (2, 1, 2, 0), "finished")
    job.turn("failed", "there is no such model")
    news, _ = live.tick(job, job.lane.view, 0, before, Look())
    assert "No step was done yet" in json.dumps(news.memory) and news.memory["figure"]["data"] == []
    assert news.loss["figure"]["layout"]["xaxis"]["range"] == [0, 1]
    assert news.loss["figure"]["layout"]["uirevision"] == job.id
    assert "there is no such model" in news.status and "there is no such model" not in news.warnings


def test_answers_that_are_no_numbers_are_said_to_be_none(job: Job) -> None:
    """At lr 1e9 every probability is NaN: the page gets valid JSON and says so."""
    job.add(0, HEADER)
    job.add(0, SampleShown(0, ["a"], ["food"], [[0.5] * 6]))
    job.add(0, SampleShown(9, ["a"], ["food"], [[math.nan] * 6]))
    assert live.answers(job.lane.view)["cells"] == [["no answer", 0.0, 2]]
    assert "no answer" in live.probes(job.lane.view)
    json.dumps(live.answers(job.lane.view), allow_nan=False)


def test_ones_own_sentence_has_no_right_or_wrong_and_comes_first() -> None:
    labels = HEADER.labels  # type: ignore[attr-defined]
    before = SampleShown(0, ["mine", "theirs"], ["", "food"], [[0.9, *[0.02] * 5]] * 2)
    table = live.probe_table(before, before, labels)
    assert table.index("mine") < table.index("theirs")
    assert 'class="zo-bar unknown"' in table and ".zo-bar.unknown i" in (Path("app/tabs/tabs.css")).read_text()


@pytest.mark.slow
def test_a_learning_rate_a_hundred_times_too_high_is_called_that() -> None:
    """A loss that has jumped and sticks there is silent, but not because eps is small."""
    config = RunConfig(task="topic", steps=60, eval_examples=1, device="cpu")
    spoken = [event.message for event in run_broken("lr", config) if isinstance(event, Warned)]
    assert spoken and "learning rate is too high" in spoken[0] and not any("eps is too small" in one for one in spoken)


def test_the_preset_for_a_gpu_says_that_there_is_none(tmp_path: Path) -> None:
    """Choosing it fills the form on any machine; the card says what is missing, where Start then is disabled."""
    changes = filled(forms.PRESETS["gpu"])
    assert changes["device"] == "cuda"
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="needs a GPU, and this machine has none"):
            cost.cost(forms.PRESETS["gpu"], Speeds(tmp_path / "speeds.json"))


def test_no_number_is_refused_before_a_sentence_can_be_given(tmp_path: Path) -> None:
    """A component with a minimum raises before the handler, and the button seems dead."""
    from app.page import build

    store = JobStore(tmp_path, Limits(), launch=launcher(run))
    page = build(store)
    numbers = [part for part in page.blocks.blocks.values() if isinstance(part, gr.Number)]
    assert len(numbers) > 10
    assert [part.label for part in numbers if part.minimum is not None or part.maximum is not None] == []
    store.close()


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    rows = [f"sentence {i},{i % 2}" for i in range(20)]
    rows[3:3] = ["nothing,", "also nothing, "]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    task = read_task(path)
    assert sum(map(len, (task.train, task.dev, task.test))) == 20
    assert task.unlabelled == (5, 6) and task.rows == 22
    facts = {"data": str(path), "text_columns": None, "label_column": None, "template": None, "label_words": None}
    found = prompt(Shelf(), facts | {"most": 10**6})
    assert "<b>2</b> without a label (lines 5, 6)" in reading.report(found)
    shown = data_form.example(found)
    assert "Write a word for each under Label words, such as 0=terrible,1=great" in shown
    named = data_form.example(prompt(Shelf(), facts | {"most": 10**6, "label_words": "0=terrible,1=great"}))
    assert "Write a word" not in named


def test_a_waiting_run_says_how_long_it_may_wait(tmp_path: Path) -> None:
    def slow(config: RunConfig, stop: Any, recording: Any) -> Any:
        while not stop():
            pass
        yield from ()

    store = JobStore(tmp_path, Limits(), launch=launcher(slow))
    first = store.start("ann", [RunConfig()], expected=120.0)
    second = store.start("bob", [RunConfig()], expected=30.0)
    third = store.start("cy", [RunConfig()])
    assert (store.wait(second), store.wait(third)) == (120.0, 150.0)
    assert words.status(third, 2, store.wait(third)) == "queued, 3rd in line · about 2 min to wait"
    store.stop(first.id, "ann")
    store.close()


def test_the_script_says_how_to_get_the_package() -> None:
    assert "pip install" in export.script(RunConfig()).split('"""')[1]


def test_a_preset_for_a_gpu_names_no_command_line() -> None:
    """A page has no flags: settings are called as its labels call them."""
    for said in (
        "there is no GPU: leave --device out",
        "--batch-size must be at least 1",
        "take a smaller --micro-batch",
    ):
        assert "--" not in words.plain(said)
    assert words.plain("take --dtype fp32 or low-rank--ish words") == "take dtype fp32 or low-rank--ish words"
    assert "batch size must be" in cost_card.problem("--batch-size must be at least 1")


@pytest.mark.parametrize("method", METHODS)
def test_each_method_shows_its_own_options_and_keeps_what_was_chosen(method: str) -> None:
    chosen = {"mu": 0.7, "alpha": 0.5, "sides": 2, "tie": "none", "onto": "scores", "directions": 3, "pool": 6}
    own: dict[str, Any] = {name: value for name, value in chosen.items() if name in METHODS[method].options}
    config = forms.with_presets(RunConfig(method=method, batch_size=4, **own))
    assert {name for name, on in forms.shown(method).items() if on and name in chosen} == set(own)
    found = forms.to_config(forms.to_form(config))
    default = METHODS[method].options
    assert found.options == {name: value for name, value in own.items() if value != default[name]}
    assert forms.to_config(forms.to_form(forms.with_presets(RunConfig(method=method)))).options == {}


def test_the_share_foreseen_is_drawn_for_learned_feedback_alone() -> None:
    told = [replace(step(n, 1.0), unexplained=1 / n) for n in range(1, 4)]
    figure = plots.foreseen(View.of(told), "steps")
    assert figure["data"][0]["y"] == [0, 0.5, 0.66667] and not figure["absent"]
    assert plots.foreseen(View.of([step(1, 1.0)]))["absent"]
    assert "foresaw 50% of" in replay.foresaw(View.of(told), 2) and replay.foresaw(View.of(told), 0) == ""


def test_the_race_says_what_the_tournaments_measured() -> None:
    """Who ended lower than learned feedback, counted anew in the files of both."""
    feedback, lower = "feedback@writers:2", {"zeroth": 0, "linear-probe": 0, "adamw@writers:2": 0}
    tasks = 0
    for name in ("tournament", "verdict"):
        found: dict[str, dict[str, float]] = {}
        for one in json.loads(Path(f"docs/{name}/tournament.json").read_text())["standings"]:
            losses = [run_["loss"] for run_ in one["runs"]]
            found.setdefault(one["task"], {})[one["entry"]] = sum(losses) / len(losses) if losses else math.inf
        for entries in found.values():
            tasks += 1
            below = [entry for entry, loss in entries.items() if loss < entries[feedback]]
            named = {entry.partition("@")[0] for entry in below} & set(METHODS)
            lower["zeroth"] += any(METHODS[method].zeroth_order for method in named)
            for rival in ("linear-probe", "adamw@writers:2"):
                lower[rival] += rival in below
    assert (tasks, lower) == (9, {"zeroth": 0, "linear-probe": 2, "adamw@writers:2": 5})
    for said in ("on all nine tasks", "lower on two of the nine", "ended lower on five of eight"):
        assert said in words.MEASURED_RACE


def test_the_replayed_step_is_marked_on_the_share_foreseen() -> None:
    """With its own value of the recording; a step without one, or another method, has no mark."""
    view = View.of([replace(step(n, 1.0), unexplained=1 / n) for n in range(1, 4)])
    figure = plots.foreseen_at(view, 2)
    mark = figure["data"][1]
    assert (mark["x"], mark["y"], mark["name"]) == ([2], [0.5], "step 2: 50%")
    assert figure["layout"]["shapes"][0]["x0"] == 2 and figure["data"][0]["x"] == [1, 2, 3]
    seldom = View.of([replace(step(n, 1.0), unexplained=0.5 if n == 1 else None) for n in range(1, 4)])
    mark = plots.foreseen_at(seldom, 3)["data"][1]
    assert (mark["x"], mark["name"]) == ([1], "step 1: 50%, the last push up to step 3")
    assert len(plots.foreseen_at(view, 0)["data"]) == 1
    assert plots.foreseen_at(View.of([step(1, 1.0)]), 1)["absent"]


def test_a_recorded_step_is_opened_layer_by_layer() -> None:
    """Of the run that the page opens with: noise, what J carried back, its size, and the share that it foresaw."""
    view = stage.recorded()
    facts = {"folder": str(RECORDED.parent), "steps": view.steps, "step": 17}
    found = json.loads(json.dumps(QUESTIONS["pushes"](Shelf(), facts)))
    left = view.points[16].unexplained
    assert left is not None and found["foreseen"] == pytest.approx(max(0, 1 - left), abs=1e-4)
    html = layers.opened(found)
    assert "Step 17, layer by layer" in html and html.count("<details") == len(found["layers"]) == 4
    assert html.count("<svg") == 8 and "mlp.down_proj.weight" in html
    assert f"J foresaw {found['foreseen']:.0%} of the responses" in html
    assert all(one["learned"] > 0 and one["feedback"] > 0 for one in found["layers"])
    between = json.loads(json.dumps(QUESTIONS["pushes"](Shelf(), facts | {"step": 20})))
    silent = layers.opened(between)
    assert "This step pushed nothing" in silent and silent.count("<svg") == 4 and "foresaw" not in silent
    found["layers"][0]["name"] = "<script>"
    assert "<script>" not in layers.opened(found)


def _luminance(hue: str) -> float:
    parts = [int(hue[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def test_lines_show_on_the_dark_page() -> None:
    """Every method's line has a contrast of 4.5 to the panel; the faint line of each step has 3."""
    script = Path("app/charts/chart.js").read_text()
    lighter = dict(re.findall(r'"(#\w{6})": "(#\w{6})"', script))
    faint = float(re.findall(r"FAINT = ([\d.]+)", script)[0])
    panel = re.findall(r"\.dark \{.*?--zo-panel: (#\w{6})", Path("app/page.css").read_text(), re.S)[0]
    for name in METHODS:
        hue = lighter.get(plots.colour(name), plots.colour(name))
        if hue == plots.INK:
            continue
        mixed = [round(int(hue[i : i + 2], 16) * faint + int(panel[i : i + 2], 16) * (1 - faint)) for i in (1, 3, 5)]
        assert contrast(hue, panel) >= 4.5, name
        assert contrast("#" + "".join(f"{part:02x}" for part in mixed), panel) >= 3, name


def test_a_part_with_numbers_is_drawn_as_cells() -> None:
    part = Phase("Push", "text", "code", picture=[[1.0, -0.5], [0.0, 1.0]], rows="xi of <examples>")
    html = replay.phases(1, [part, Phase("Other", "text", "code")])
    assert html.count("<rect") == 4 and html.count("<svg") == 1
    assert f'fill="{cells.MINUS}" opacity="0.50"' in html and "xi of &lt;examples&gt;" in html


def test_what_frozen_blocks_gave_is_on_the_card_of_a_run_that_keeps_it() -> None:
    """The recorded toy run, on a CPU: what it keeps is predicted to a fifth of what was measured, which it doubles."""
    view = View.of([Event.from_json(line) for line in RECORDED.read_text().splitlines()])
    assert view.header is not None
    config, peak = RunConfig.from_json(view.header.config), max(point.memory for point in view.points)
    bill, other = cost.predicted(config), cost.predicted(config, "adamw")
    assert bill is not None and other is not None and other.kept == 0
    assert cost.needed(bill) == pytest.approx(peak, rel=0.2) and bill.total < 0.7 * peak
