"""What a run lowers, in the form: fields that depend on one another, the price of writing, and no code by a link."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app import results
from app.charts import plots
from app.form import aims, controls, cost, cost_card, data_form, forms, guard, recipes, share, text_reading
from app.form.work import work
from app.jobs.job import new_job
from app.jobs.limits import HOSTED, Limits
from app.jobs.questions import QUESTIONS, Shelf
from app.jobs.speeds import Speeds
from app.jobs.view import View
from app.tabs import completions, export, live
from app.tabs.live import Drawn, Look
from tests.support.places import RECORDED
from zocore.config import RunConfig
from zocore.data.built_in_rewards import BUILT_IN
from zocore.data.named import named_tasks
from zocore.errors import InputError
from zocore.objectives import OBJECTIVES
from zocore.recipes.recipe import recipes as all_recipes
from zocore.runs.events import CompletionsShown, EvalDone, Event, RunStarted, StepDone

HOSTILE = "<script>alert(1)</script>"
REWARD = RunConfig(method="fzoo", objective="reward", reward="says=happy", max_new_tokens=24, temperature=0.5)
CONFIGS = [
    RunConfig(method="mezo", objective="accuracy"),
    RunConfig(method="fzoo", objective="f1"),
    RunConfig(objective="margin"),
    RunConfig(method="mezo", objective="lm", metric="f1", max_new_tokens=8),
    RunConfig(method="mezo", objective="lm", train_examples=40),
    REWARD,
    replace(REWARD, reward="full-stop", temperature=0.0),
    RunConfig(method="mezo", task="rte", k_shot=16, eval_examples=1000),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_form_holds_every_objective(config: RunConfig) -> None:
    """Settings come back from the form, from a link, and as a command; the numbers are the engine's presets."""
    config = forms.with_presets(config)
    assert forms.to_config(forms.to_form(config)) == config
    assert share.decode(share.encode(config)) == (config, "play")
    assert f"--objective {config.objective}" in export.command(config) or config.objective == "loss"
    compile(export.script(config), "run.py", "exec")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_only_what_an_objective_uses_is_shown_and_sent(name: str) -> None:
    """A hidden reward or metric never reaches a run of another objective."""
    row, values = OBJECTIVES[name], forms.to_form(REWARD) | {"objective": name, "metric": "em", "method": "mezo"}
    shown = aims.shown(name, "says")
    assert shown["reward"] == shown["word"] == (row.judge == "reward") and shown["metric"] == (row.judge == "metric")
    assert shown["max_new_tokens"] == bool(row.text) and shown["k_shot"] != bool(row.text)
    config = forms.to_config(values)
    assert (config.reward == "says=happy") == (row.judge == "reward") and bool(config.metric) == (row.judge == "metric")


@pytest.mark.parametrize("name", ["accuracy", "f1", "reward"])
def test_the_presets_follow_the_objective(name: str) -> None:
    """Where there is no gradient the marked eps is the engine's, ten times as far out, and its origin says so."""
    values = forms.to_form(RunConfig(method="mezo")) | {"objective": name}
    changes = controls.rechosen(values)
    assert float(changes["eps"]["value"]) == 10 * float(forms.to_form(RunConfig(method="mezo"))["eps"])
    assert "not tuned for this objective" in changes["origin"] and "10 times as far out" in changes["origin"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": "accuracy", "method": "feedback"}, "take method fzoo, or objective margin"),
        ({"objective": "f1", "method": "grzo"}, "it asks for a value of each example"),
        ({"objective": "reward", "method": "adamw"}, "its gradient is zero"),
        (
            {"objective": "reward", "model": "FacebookAI/roberta-large", "method": "mezo"},
            "cannot write: take a decoder",
        ),
    ],
)
def test_what_cannot_work_is_said_beside_the_control_and_on_the_card(changes: dict, said: str, tmp_path: Path) -> None:
    """The engine's own sentence, in the page's names of the settings, before anything is started."""
    values = forms.to_form(RunConfig()) | changes
    note = controls.rechosen(values)["aim"]
    assert said in note and "zo-error" in note and "--" not in note
    with pytest.raises(ValueError):
        cost.cost(forms.to_config(values), Speeds(tmp_path / "speeds.json"))


def test_what_is_written_is_priced() -> None:
    """Each token of a completion is a forward with noise of its own, in the work, the seconds and on the card."""
    plain = RunConfig(method="mezo", steps=100, eval_examples=10)
    few, many = (replace(REWARD, method="mezo", steps=100, eval_examples=10, max_new_tokens=n) for n in (1, 64))
    assert work(many) > 20 * work(few) >= 0.9 * 20 * work(plain)
    assert cost._guess(many) > 20 * cost._guess(plain)
    bill, small = cost.predicted(replace(many, max_tokens=512)), cost.predicted(plain)
    assert bill is not None and small is not None and bill.total > small.total
    judged = RunConfig(method="mezo", objective="lm", steps=1, eval_examples=1000)
    assert work(replace(judged, metric="f1", max_new_tokens=64)) > 1.5 * work(judged)
    priced = cost.cost(many, Speeds(Path("nowhere.json")))
    assert "writing up to 64 tokens" in cost_card.card(priced) and cost_card.facts(priced)["tokens_a_forward"] == 64


def test_a_hosted_server_is_not_overloaded_by_long_completions() -> None:
    longest = replace(REWARD, method="n-spsa", directions=32, max_new_tokens=64, steps=5000, batch_size=64)
    assert work(longest) > HOSTED.work
    assert work(replace(REWARD, steps=40, eval_examples=50, max_new_tokens=16)) < HOSTED.work


FILES = ["rewards.py:score", "/tmp/rewards.py:score", "os:system", "evil.py:f=happy", "says"]


@pytest.mark.parametrize("source", FILES)
def test_no_code_comes_from_a_stranger(source: str) -> None:
    """Not by the form, a program or a link: one sentence each, and no file is looked for."""
    values = forms.to_form(REWARD) | {"reward": source, "word": ""}
    config = forms.to_config(values)
    sent = guard.settings({"objective": "reward", "reward": source, "method": "fzoo"}, HOSTED)
    for one in (config, sent):
        with pytest.raises(InputError, match="runs no code of its visitors|needs a word"):
            guard.checked(one, HOSTED, Path("/nowhere"))
    held = {"run": {"objective": "reward", "reward": source}, "tab": "play"}
    code = base64.urlsafe_b64encode(json.dumps(held).encode()).decode().rstrip("=")
    with pytest.raises(InputError, match="no reward in a file of code|needs a word"):
        share.decode(code)
    with pytest.raises(InputError):
        share.encode(replace(REWARD, reward=source))


def test_a_function_of_ones_own_stays_in_the_form_on_ones_own_machine() -> None:
    own = forms.with_presets(replace(REWARD, reward="rewards.py:pleased"))
    changes = controls.filled(own)
    assert ("rewards.py:pleased", "rewards.py:pleased") in changes["reward"]["choices"]
    assert forms.to_config(forms.to_form(own)) == own == guard.checked(own, Limits(), Path("/nowhere"))


@pytest.mark.parametrize("name", list(all_recipes()))
def test_a_recipe_fills_the_form(name: str, tmp_path: Path) -> None:
    """What the form then sends are the recipe's settings; its note says cost, paper, and where its model is."""
    wanted = replace(recipes.config(name), clip=None)  # a method's own defaults are left out
    assert forms.to_config(forms.to_form(recipes.config(name))) == wanted
    store: Any = type("Store", (), {"limits": Limits(), "root": tmp_path})()
    said = recipes.note(name, store)
    assert "predicted, not measured" in said and "hours" in said and "arXiv" in said
    assert "is not on this machine" in said and f"zocore train --recipe {name}" in said
    store.limits = HOSTED
    assert "this server takes" in recipes.note(name, store)
    assert cost.predicted(recipes.config(name)) is not None
    assert recipes.note(recipes.NONE, store) == ""


def test_the_papers_tasks_say_where_their_rows_are() -> None:
    offered = {name for _, name in recipes.tasks()}
    assert {"sst2", "rte", "copa", "verdict"} <= offered
    assert {name for name, row in named_tasks().items() if not row.generated} <= offered
    assert "stanfordnlp/sst2" in recipes.task_note("sst2") and "accuracy" in recipes.task_note("sst2")
    assert recipes.task_note("topic") and recipes.task_note("made up") == ""
    with pytest.raises(InputError, match="takes the tasks"):
        guard.checked(RunConfig(task="sst2"), HOSTED, Path("/nowhere"))


def header(**changes: Any) -> RunStarted:
    found = Event.from_json(RECORDED.read_text().splitlines()[0])
    assert isinstance(found, RunStarted)
    return replace(found, config=found.config | changes, labels=[])


def stepped(number: int, moved: float) -> StepDone:
    return StepDone(number, -0.5, [1.0], [0.9], [0.5], [0.5], [0], 1e-4, 1e-3, 2, 2.0, 0.1, 10.0, 5, moved=moved)


def written(step: int, completion: str) -> CompletionsShown:
    return CompletionsShown(step, [f"{HOSTILE} prompt", "two"], [completion, ""], [HOSTILE, ""], [1.0, 0.25])


def test_a_run_of_a_reward_is_shown_by_what_it_is(tmp_path: Path) -> None:
    """Curves are named for the score, the share that moved is drawn, and completions stand before and after."""
    job = new_job(tmp_path, "ann", [REWARD], "run")
    job.turn("running")
    job.add(0, header(objective="reward", reward="says=happy", method="fzoo"))
    _, drawn = live.tick(job, job.lane.view, 0, Drawn(), Look())
    for event in (
        EvalDone(0, "test", -0.25, float("nan"), 8, 0.0, {"reward": 0.25}), written(0, "before"), stepped(1, 0.4),
        EvalDone(1, "dev", -1.0, float("nan"), 8, 0.0, {"reward": 1.0}), written(1, f"now {HOSTILE}"),
        EvalDone(1, "test", -1.0, float("nan"), 8, 0.0, {"reward": 1.0}),
    ):  # fmt: skip
        job.add(0, event)
    news, _ = live.tick(job, job.lane.view, 0, drawn, Look())
    shown = news.accuracy["figure"]
    assert shown["layout"]["yaxis"]["title"]["text"] == "reward: says=happy"
    assert [trace["y"] for trace in shown["data"]] == [[1.0], [0.25, 1.0]]
    assert news.loss["figure"]["layout"]["yaxis"]["title"]["text"] == "minus the reward"
    assert news.moved["figure"]["data"][0]["y"] == [0.4] and not news.moved["figure"]["absent"]
    assert "before" in news.probes and "now" in news.probes and "<script" not in news.probes
    assert "<em>nothing</em>" in news.probes and ">0.25</b>" in news.probes
    assert "test reward 0.25 → 1" in results.result(job)
    json.dumps(shown, allow_nan=False)


def test_a_run_of_the_loss_shows_no_share_that_moved() -> None:
    view = View.of([header(objective="loss"), stepped(1, 1.0)])
    assert plots.moved(view)["absent"] and view.score == "accuracy"


def test_completions_alone_are_shown_once() -> None:
    """Before the first step there is nothing to compare with."""
    view = View.of([header(objective="reward", reward="short"), written(0, "only")])
    assert completions.of_run(view).count("only") == 1


def test_a_file_of_prompts_is_read_as_texts(tmp_path: Path) -> None:
    """Its rows, its sizes and its answers, as a run reads them; text is never markup."""
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"{HOSTILE} {i}", "answer": HOSTILE} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = lambda name, **facts: json.loads(json.dumps(QUESTIONS[name](Shelf(), facts)))  # noqa: E731
    table = asked("rows", path=str(path), most=10**6)
    assert table["count"] == 20 and table["label"] == "answer" and "<script" not in data_form.first_rows(table)
    values = {"source": data_form.OWN, "objective": "reward", "data": str(path), "label_column": "answer"}
    settings = data_form.data_settings(values | {"template": "", "text_columns": ["prompt"], "label_words": "a,b"})
    found = asked("written", **settings)
    assert sum(found["counts"]) == 20 and found["kind"] == "prompt"
    assert "20</b> rows" in text_reading.report(found) and "<script" not in text_reading.example(found)
    with pytest.raises(InputError, match="over the limit"):
        asked("rows", path=str(path), most=10)
    facts = {
        "config": RunConfig(objective="reward", reward="em", **settings).to_json(),
        "tokenizer": "",
        "causal": True,
    }
    assert asked("texts", **facts)["characters"] == max(len(row["prompt"] + row["answer"]) for row in rows)


def test_every_built_in_reward_is_on_offer() -> None:
    assert [name for _, name in aims.REWARDS] == list(BUILT_IN)
    for name, row in BUILT_IN.items():
        source = aims.joined(name, "happy")
        assert aims.split(source) == (name, "happy" if row.takes_word else "")
