"""Runs on a reward of written text: what is measured and told, replay, and what goes wrong without loss."""

import json
from math import isnan
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.short_runs import home, model_folder, same, settings, weights
from zocore.config import RunConfig
from zocore.data.texts import as_row, prompt_of
from zocore.runs.events import CompletionsShown, EvalDone, RunEnded, RunStarted, StepDone
from zocore.runs.loop import run
from zocore.runs.opening import check, open_session
from zocore.runs.recording import claim, read_recording, record
from zocore.runs.replay import replay_run
from zocore.runs.task import read
from zocore.runs.timeline import open_timeline

REWARD = """
def vowels(prompt, completion, row):
    return sum(letter in "aeiou" for letter in completion) / 10
def picky(prompt, completion, row):
    if row["n"] == "9":
        raise RuntimeError("no nines")
    return 1.0
"""


def config(function: str = "vowels", **changes: Any) -> RunConfig:
    """A short run on twenty prompts with a reward of vowels."""
    data, code = home() / "prompts.jsonl", home() / "rewards.py"
    if not data.exists():
        data.write_text("".join(json.dumps({"prompt": f"the film {n}", "n": n}) + "\n" for n in range(20)))
        code.write_text(REWARD)
    values: dict[str, Any] = {"method": "mezo", "objective": "reward", "reward": f"{code}:{function}", "steps": 3}
    values |= {"data": str(data), "max_new_tokens": 6, "batch_size": 4, "lr": 1e-2, "eps": 0.05, "device": "cpu"}
    return RunConfig(model=model_folder(), **values | changes)


def take(folder: Path, wanted: RunConfig) -> list[Any]:
    """Run and record."""
    claim(folder)
    return list(record(run(wanted), folder))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 1.0},
        {"method": "fzoo", "directions": 3},
        {"method": "grzo", "subspace": "writers"},
        {"method": "mezo-greedy", "pool": 2, "subspace": "lora"},
        {"micro_batch": 3, "temperature": 0.7},
    ],
)
def test_a_run_on_a_reward_replays(changes: dict, tmp_path: Path) -> None:
    """Values are minus rewards, evaluations tell their mean, and the weights come back bit for bit."""
    events = take(tmp_path, config(**changes))
    steps = [event for event in events if isinstance(event, StepDone)]
    assert len(steps) == 3 and all(value <= 0 for step in steps for value in step.loss_plus)
    for event in events:
        if isinstance(event, EvalDone):
            assert event.scores and event.scores["reward"] == pytest.approx(-event.loss) and isnan(event.accuracy)
    shown = [event for event in events if isinstance(event, CompletionsShown)]
    assert len(shown) == 2 and len(shown[0].prompts) == len(shown[0].completions) == len(shown[0].scores) == 4
    assert replay_run(tmp_path, None, verify=True).proved


def test_both_sides_of_a_pair_draw_the_same(tmp_path: Path) -> None:
    """At an offset of zero the rewards are equal though tokens are drawn; another step draws others."""
    session = open_session(config(temperature=1.5))
    one, again = session.losses(1), session.losses(1)
    assert torch.equal(one(), again())
    drawn = [session.objective.batch(session.examples(1), session.key(step)) for step in (1, 2)]
    assert not torch.equal(*(part.draws for part in drawn))  # type: ignore[attr-defined]


def test_micro_batches_write_what_the_batch_writes() -> None:
    """The draws of a row are its own, however the batch is cut."""
    whole, parts = open_session(config(temperature=1.0)), open_session(config(temperature=1.0, micro_batch=1))
    torch.testing.assert_close(whole.losses(1)(), parts.losses(1)())


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Stopped after two steps and gone on."""
    wanted = config(temperature=1.0, steps=4)
    whole = take(tmp_path / "whole", wanted)[-1]
    claim(tmp_path / "cut")
    asked = iter([False, False, True])  # before each step
    list(record(run(wanted, lambda: next(asked)), tmp_path / "cut"))
    recording = read_recording(tmp_path / "cut")
    end = list(record(run(recording.config, recording=recording), tmp_path / "cut"))[-1]
    assert isinstance(whole, RunEnded) and isinstance(end, RunEnded)
    assert recording.last == 2 and end.weights_fingerprint == whole.weights_fingerprint


def test_a_reward_that_fails_loses_nothing(tmp_path: Path) -> None:
    """The run ends with one sentence that names the prompt's line, and the weights are the base model's."""
    session = open_session(config())
    before = weights(session)
    with pytest.raises(ValueError, match=r"raised RuntimeError \(no nines\) for the prompt of prompts.jsonl, line 10"):
        take(tmp_path, config("picky", eval_examples=1))
    end = read_recording(tmp_path).end
    assert end is not None and end.status == "failed" and end.reason.startswith("the reward raised RuntimeError")
    steps = read_recording(tmp_path).last
    assert same(before, weights(session)) and steps < 5


def test_a_changed_reward_is_not_gone_on_with(tmp_path: Path) -> None:
    """The file's hash stands in the header; a replay needs no reward at all."""
    code = tmp_path / "own.py"
    code.write_text(REWARD)
    take(tmp_path / "run", _with(code))
    recording = read_recording(tmp_path / "run")
    assert isinstance(recording.header, RunStarted) and len(recording.header.versions["reward"]) == 64
    code.write_text(REWARD + "\n# other\n")
    with pytest.raises(ValueError, match="the file of the reward has changed"):
        next(run(recording.config, recording=recording))
    code.unlink()
    assert replay_run(tmp_path / "run", None, verify=False).lines


def _with(code: Path) -> RunConfig:
    return RunConfig(**config(steps=1).to_json() | {"reward": f"{code}:vowels"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "feedback"}, "reward has none; take --method fzoo"),
        ({"method": "activity"}, "a completion takes one for each token; take --method fzoo"),
        ({"method": "adamw"}, "its gradient is zero"),
        ({"data": None, "task": "topic", "template": "x"}, "--template needs --data"),
        ({"reward": "says="}, "needs a word"),
        ({"label_words": "a,b"}, "--label-words and --objective reward"),
        ({"k_shot": 2}, "--k-shot and --objective reward"),
        ({"reward": "nowhere.py:f"}, "there is no file 'nowhere.py'"),
        ({"max_new_tokens": 128}, "leave no room for a prompt"),
    ],
)
def test_what_does_not_go_together(changes: dict, said: str) -> None:
    """One sentence before the first event."""
    with pytest.raises(ValueError, match=said):
        next(run(config(**changes)))


def test_reward_and_objective_go_together() -> None:
    """Neither without the other; an encoder cannot write."""
    with pytest.raises(ValueError, match="--objective reward and --reward go together"):
        RunConfig(objective="reward")
    with pytest.raises(ValueError, match="--objective reward and --reward go together"):
        RunConfig(reward="em")
    with pytest.raises(ValueError, match="cannot write: take a decoder"):
        next(run(RunConfig(**config().to_json() | {"model": settings(model="bert").model})))


TEXT = "\n\n".join(f"the film {number} was {'good' if number % 2 else 'bad'} a b" for number in range(20))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "grzo", "subspace": "writers"},
        {"method": "fzoo", "directions": 3, "subspace": "writers:1"},
        {"method": "activity", "subspace": "writers:1"},
        {"method": "mezo", "micro_batch": 3},
    ],
)
def test_a_run_on_text_replays(changes: dict, tmp_path: Path) -> None:
    """Loss per token and perplexity are told, texts are shown continued, and the weights come back bit for bit."""
    (tmp_path / "t.txt").write_text(TEXT)
    events = take(
        tmp_path / "run", config(objective="lm", **{"reward": None, "data": str(tmp_path / "t.txt")} | changes)
    )
    found = [event for event in events if isinstance(event, EvalDone)]
    assert all(event.scores and event.scores["perplexity"] > 1 for event in found) and found[0].loss != found[1].loss
    assert sum(isinstance(event, CompletionsShown) for event in events) == 2
    assert replay_run(tmp_path / "run", None, verify=True).proved


def test_text_is_learned_by_backprop_and_not_by_label_errors(tmp_path: Path) -> None:
    """AdamW lowers the same loss; learned feedback says that there are no labels."""
    (tmp_path / "t.txt").write_text(TEXT)
    wanted = config(objective="lm", reward=None, data=str(tmp_path / "t.txt"), method="adamw", lr=1e-2, steps=4)
    before, after = [event.loss for event in run(wanted) if isinstance(event, EvalDone)]
    assert after < before
    with pytest.raises(ValueError, match="lm has none; take --method fzoo"):
        next(run(RunConfig(**wanted.to_json() | {"method": "feedback"})))


@pytest.mark.slow
def test_the_bundled_model_learns_a_reward(tmp_path: Path) -> None:
    """Of 28 beginnings it is told whether it went on with "pleased"; those held out rise by half or more."""
    things = ["food", "soup", "waiter", "hotel", "room", "film", "plot", "book", "story", "phone", "camera"]
    things += ["price", "service", "music"]
    lines = [json.dumps({"prompt": f"{whose} {thing}"}) for whose in ("The", "My") for thing in things]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    (tmp_path / "r.py").write_text("def pleased(prompt, completion, row):\n    return float('pleased' in completion)\n")
    wanted = RunConfig(method="fzoo", directions=4, subspace="writers:2", lr=5e-3, eps=1e-2, schedule="constant")
    asked = {"objective": "reward", "reward": f"{tmp_path / 'r.py'}:pleased", "data": str(tmp_path / "prompts.jsonl")}
    events = list(run(RunConfig(**wanted.to_json() | asked | {"max_new_tokens": 16, "steps": 40})))
    before, after = [event.scores["reward"] for event in events if isinstance(event, EvalDone) and event.scores]
    assert after >= before + 0.5


def test_a_bundled_task_is_prompts_whose_answers_are_its_label_words() -> None:
    """Without a file a reward or the loss of the answer's tokens has the bundled examples to go on."""
    for objective, reward in (("reward", "em"), ("lm", None)):
        task = read(RunConfig(task="topic", objective=objective, reward=reward))
        labelled = read(RunConfig(task="topic"))
        first, row = labelled.train[0], as_row(task.train[0])
        assert (
            prompt_of(row) == first.fields["text"] + " Topic:"
            and row.fields["answer"] == labelled.label_words[first.label]
        )
        assert len(task.test) == len(labelled.test) and task.label_names == ()


def test_ones_own_sentences_are_prompts_that_are_not_judged(tmp_path: Path) -> None:
    """They come first, before and after, and a timeline writes after any prompt what the run wrote."""
    claim(tmp_path)
    events = list(record(run(config(), sentences=["the great film"]), tmp_path))
    before, after = [event for event in events if isinstance(event, CompletionsShown)]
    assert before.prompts[0] == after.prompts[0] == "the great film"
    assert isnan(before.scores[0]) and len(before.scores) == len(before.prompts) == 5
    timeline = open_timeline(tmp_path)
    timeline.go(3)
    assert timeline.completions(after.prompts[:1]) + timeline.completions(after.prompts[1:]) == after.completions


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({}, "masked", "cannot write"),
        ({"max_tokens": 16, "max_new_tokens": 16}, None, "leave no room"),
        ({"method": "feedback"}, None, "take --method fzoo"),
        ({"reward": "loud"}, None, "--reward must be"),
    ],
)
def test_what_cannot_run_is_known_before_anything_is_opened(changes: dict, kind: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(
            RunConfig(**{"objective": "reward", "reward": "short", "method": "mezo", "model": "no/model"} | changes),
            kind,
        )
