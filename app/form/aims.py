"""What a run lowers, as controls: the objective, what judges written text, and how much is written."""

from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from app.form import catalogue
from app.words import plain
from zocore.config import RunConfig
from zocore.data.built_in_rewards import BUILT_IN
from zocore.objectives import OBJECTIVES
from zocore.runs.opening import check

CHOICES = [(row.title, name) for name, row in OBJECTIVES.items()]
REWARDS = [(row.title, name) for name, row in BUILT_IN.items()]
USUAL = "em"  # reward at first: what a bundled task's answers are judged by
NAMES = ("reward", "word", "metric", "max_new_tokens", "temperature")  # controls that only some objectives have
INFO = {
    "reward": "What judges each completion; more is better.",
    "word": "Taken literally, in any case.",
    "metric": "Besides the loss, in evaluations.",
    "max_new_tokens": "Longest completion. Each token is a forward.",
    "temperature": "0 writes the likeliest tokens.",
}


def split(reward: str | None) -> tuple[str, str]:
    """Return a reward as the form has it: its name and its word, or a source of the visitor's own whole."""
    name, equal, word = (reward or USUAL).partition("=")
    return (name, word) if name in BUILT_IN and bool(equal) == BUILT_IN[name].takes_word else (reward or USUAL, "")


def joined(name: object, word: object) -> str:
    """Return the reward of the form's two controls."""
    source = str(name or USUAL).strip()
    takes = source in BUILT_IN and BUILT_IN[source].takes_word
    return f"{source}={str(word or '').strip()}" if takes else source


def shown(objective: str, reward: object) -> dict[str, bool]:
    """Return which of the controls the objective has a use for."""
    row, name = OBJECTIVES[objective], str(reward or USUAL)
    judged = row.judge == "reward"
    writes = {name: bool(row.text) for name in ("max_new_tokens", "temperature")}
    labels = {"k_shot": not row.text}
    word = judged and name in BUILT_IN and BUILT_IN[name].takes_word
    return {"reward": judged, "word": word, "metric": row.judge == "metric"} | writes | labels


def reads_text(objective: object) -> bool:
    """Whether the objective reads texts and prompts, and no labels."""
    return objective in OBJECTIVES and bool(OBJECTIVES[str(objective)].text)


def note(config: RunConfig) -> str:
    """Say what the objective is, or why it does not go with the rest, as HTML."""
    try:
        check(config, catalogue.kind(config.model) if catalogue.is_named(config.model) else None)
    except ValueError as error:
        return f'<p class="zo-error" role="alert">{escape(plain(str(error)))}</p>'
    row = OBJECTIVES[config.objective]
    flat = " It has no gradient: only forward passes can lower it." if row.flat else ""
    return f"Lowers: {escape(plain(row.summary))}.{flat}"


def build(parts: dict[str, gr.components.Component], values: Mapping[str, Any]) -> None:
    """Lay out what depends on the objective, below it."""
    visible = shown(values["objective"], values["reward"])
    parts["reward"] = gr.Dropdown(
        rewards(values["reward"]),
        value=values["reward"],
        label="Reward",
        info=INFO["reward"],
        allow_custom_value=True,
        visible=visible["reward"],
        elem_id="zo-reward",
    )
    parts["word"] = gr.Textbox(
        values["word"],
        label="Word",
        info=INFO["word"],
        max_length=100,
        placeholder="happy",
        visible=visible["word"],
        elem_id="zo-word",
    )
    parts["metric"] = gr.Dropdown(
        [("nothing more", "auto"), *((BUILT_IN[name].title, name) for name in ("em", "f1"))],
        value=values["metric"],
        label="Also judge what it writes",
        info=INFO["metric"],
        visible=visible["metric"],
        elem_id="zo-metric",
    )
    with gr.Row(elem_classes="zo-pair"):
        for name, whole in (("max_new_tokens", 0), ("temperature", None)):
            parts[name] = gr.Number(
                values[name],
                label=name.replace("_", " ").capitalize(),
                info=INFO[name],
                precision=whole,
                visible=visible[name],
                elem_id=f"zo-{name.replace('_', '-')}",
                min_width=120,
            )


def rewards(chosen: str) -> list[tuple[str, str]]:
    """Return the rewards on offer, and one of the visitor's own where it is set."""
    return REWARDS if chosen in BUILT_IN else [*REWARDS, (chosen, chosen)]
