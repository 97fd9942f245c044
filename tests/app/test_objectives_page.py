"""Objectives without a gradient in a real browser: from the choice to the curve, and completions before and after."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny import save

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def pick(ann: Any, name: str, option: str) -> None:
    ann.page.click(f"#zo-{name} input")
    ann.page.get_by_role("option", name=option, exact=True).first.click()
    ann.page.wait_for_timeout(1000)


def test_accuracy_alone_is_chosen_started_and_rises(visit: Any) -> None:
    """With the method that needs an error the page says what to take instead; then dev accuracy goes up."""
    ann = visit()
    pick(ann, "objective", "Accuracy")
    ann.page.wait_for_selector("#zo-aim .zo-error:has-text('take method fzoo')")
    ann.page.wait_for_selector("#zo-card:has-text('do not go together')")
    assert ann.page.is_disabled("#zo-start")
    pick(ann, "method", "FZOO")
    ann.page.wait_for_selector("#zo-aim:has-text('only forward passes can lower it')")
    assert ann.page.input_value("#zo-eps input").split()[0] == "0.01"
    pick(ann, "task", "What is the sentence about?")
    ann.number("steps", 60)
    ann.page.get_by_role("button", name="Advanced").click()
    ann.number("eval-every", 20)
    ann.page.wait_for_selector("#zo-card:has-text('60 steps')")
    ann.page.click("#zo-start")
    assert "60 steps" in ann.until("finished", "failed", seconds=180)
    ann.page.wait_for_function("document.querySelector('#zo-accuracy .zo-plot').data[1].y.length === 2")
    dev, test = ann.page.evaluate("document.querySelector('#zo-accuracy .zo-plot').data.map((one) => [...one.y])")
    assert len(dev) == 3 and test[-1] > test[0] + 0.1 and max(dev) > test[0]
    title = "document.querySelector('#zo-{} .zo-plot').layout.yaxis.title.text"
    assert ann.page.evaluate(title.format("accuracy")) == "held-out accuracy"
    assert ann.page.evaluate(title.format("loss")) == "share of wrong answers"
    assert ann.page.is_visible("#zo-moved") and not ann.page.is_visible("#zo-foreseen")


def test_a_reward_of_text_shows_completions_before_and_after(visit: Any, tmp_path: Path) -> None:
    """A small model made here, prompts of one's own, a word as a reward: text, escaped, at both ends and in replay."""
    model, prompts = save(tmp_path / "model", "llama"), tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"<b>the</b> film {number}", "answer": "good"} for number in range(20)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ann = visit()
    ann.page.fill("#zo-model input", str(model))
    ann.page.keyboard.press("Enter")
    pick(ann, "method", "FZOO")
    pick(ann, "objective", "Reward of what it writes")
    pick(ann, "reward", "Says a word")
    ann.page.wait_for_selector("#zo-card:has-text('needs a word')")
    assert ann.page.is_disabled("#zo-start")
    ann.page.fill("#zo-word textarea, #zo-word input", "good")
    ann.page.keyboard.press("Tab")
    ann.page.click("#zo-source label:has-text('My own data')")
    ann.page.set_input_files("#zo-file input[type=file]", str(prompts))
    ann.page.wait_for_selector("#zo-prompt pre:has-text('<b>the</b> film')")
    assert "20 rows" in ann.page.inner_text("#zo-read") and not ann.page.is_visible("#zo-words")
    ann.number("max-new-tokens", 6)
    ann.number("steps", 3)
    ann.page.wait_for_selector("#zo-card:has-text('writing up to 6 tokens')")
    ann.page.fill("#zo-say textarea, #zo-say input", "<i>my</i> film")
    ann.page.click("#zo-start")
    assert "3 steps" in ann.until("finished", "failed", seconds=120)
    ann.page.wait_for_selector("#zo-probes dt:has-text('Step 3')")
    shown = ann.page.inner_text("#zo-probes")
    assert "<i>my</i> film" in shown and "<b>the</b> film" in shown and "Step 0" in shown
    assert ann.page.locator("#zo-probes p > b, #zo-probes p > i").count() == 0
    ann.page.click("#zo-ask")
    ann.page.wait_for_selector("#zo-answers dt:has-text('Step 3')", timeout=60_000)
    assert "--reward says=good" in ann.page.input_value("#zo-command textarea")


def test_a_recipe_fills_the_form_and_says_its_cost(visit: Any) -> None:
    ann = visit()
    pick(ann, "recipe", "OPT-13B on RTE with 1,000 examples, MeZO on LoRA")
    said = ann.page.inner_text("#zo-recipe-note")
    assert "predicted, not measured" in said and "facebook/opt-13b is not on this machine" in said
    assert ann.page.input_value("#zo-model input") == "facebook/opt-13b"
    assert "aps/super_glue" in ann.page.inner_text("#zo-task-note")
    ann.page.wait_for_selector("#zo-card:has-text('20,000 steps')")
    ann.page.click("#zo-preset label:has-text('Toy')")
    ann.page.wait_for_selector("#zo-card:has-text('300 steps')")
    assert ann.page.input_value("#zo-recipe input") == "none" and not ann.page.is_visible("#zo-recipe-note")
