"""The left-hand side of the Play tab: everything that decides a run, and only what the chosen method uses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app import words
from app.form import aims, catalogue, forms, recipes
from app.form.data_form import DataForm, data_settings
from app.jobs.limits import Limits
from app.quiet import QUIET
from zocore.config import RunConfig
from zocore.methods import METHODS

HELP = {name: f.metadata["help"] for name, f in RunConfig.__dataclass_fields__.items()}
TITLES: Mapping[str, str] = {"keep": "share that moves", "lr": "Learning rate", "eps": "Probe distance eps"}


NUMBERS = (
    ("batch_size", "max_tokens"),
    ("eval_every", "eval_examples"),
    ("k_shot", "train_examples"),
    ("measure_every",),
)  # of the rows of Advanced


@dataclass
class Controls:
    """The components of the form, each under the name of what it sets."""

    preset: gr.Radio
    recipe: gr.Dropdown  # of a paper, which fills the form
    parts: dict[str, gr.components.Component]  # the fields of the method and the model, then those of the data
    notes: dict[str, gr.HTML]  # on the method, the recipe, the task, the objective, and whence the marked numbers are
    data: DataForm

    @property
    def inputs(self) -> list[gr.components.Component]:
        """What a handler takes to read the form; `named` tells which value is which."""
        return list(self.parts.values())

    def named(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return the values of `inputs` by name."""
        return dict(zip(self.parts, values, strict=True))

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What a handler fills with `updates`."""
        return [*self.parts.values(), *self.notes.values()]

    def updates(self, changes: Mapping[str, Any]) -> list[Any]:
        """Return one value for each of `outputs`: the change of that name, or nothing new."""
        return [changes.get(name, gr.skip()) for name in (*self.parts, *self.notes)]


def collect(values: Mapping[str, Any], limits: Limits) -> RunConfig:
    """Return the settings of a form read by name. Raises InputError with one sentence."""
    config = forms.to_config(values, data_settings(values))
    check_model(config.model, limits)
    return config


def check_model(model: str, limits: Limits) -> None:
    """Raise InputError when a hosted server's visitor names a folder of the server."""
    if limits.hosted and model != "bundled" and model not in catalogue.HUB:
        forms.check_hub_id(model)


def build(config: RunConfig, preset: gr.Radio, most: int) -> Controls:
    """Lay the controls out, filled from a configuration."""
    values = forms.to_form(config)
    parts: dict[str, gr.components.Component] = {}
    recipe = gr.Dropdown(recipes.CHOICES, value=recipes.NONE, label="A paper's recipe", elem_id="zo-recipe")
    notes = {"recipe note": gr.HTML("", visible=False, elem_id="zo-recipe-note", elem_classes="zo-note")}
    parts["model"] = gr.Dropdown(
        catalogue.choices(),
        value=values["model"],
        label="Model",
        allow_custom_value=True,
        elem_id="zo-model",
        info="Listed with the memory of a MeZO step on 16 short texts. You can also type a hub id or a folder.",
    )
    parts["objective"] = gr.Dropdown(
        aims.CHOICES, value=values["objective"], label="What a step lowers", elem_id="zo-objective", render=False
    )
    data = DataForm.build(recipes.tasks(), values["task"], most, parts["model"], parts["objective"])
    notes["task note"] = data.about
    parts["objective"].render()
    notes["aim"] = gr.HTML(aims.note(config), elem_id="zo-aim", elem_classes="zo-note")
    aims.build(parts, values)
    parts["method"] = gr.Dropdown(forms.METHOD_CHOICES, value=values["method"], label="Method", elem_id="zo-method")
    notes["about"] = gr.HTML(method_note(config.method), elem_classes="zo-note")
    parts["subspace"] = gr.Dropdown(
        words.SUBSPACES, value=values["subspace"], label="What moves", elem_id="zo-subspace"
    )
    with gr.Row(elem_classes="zo-pair"):
        for name in ("lr", "eps"):
            parts[name] = gr.Dropdown(
                forms.choices(name, config),
                value=values[name],
                label=TITLES[name],
                allow_custom_value=True,
                info=words.BREAKS[name],
                elem_id=f"zo-{name}",
                min_width=120,
            )
    parts["auto_lr"] = search = gr.Checkbox(
        values["auto_lr"],
        label=words.FIND_RATE,
        info=words.ABOUT_FIND_RATE,
        visible=forms.shown(config.method)["auto_lr"],
        elem_id="zo-auto-lr",
    )
    search.change(lambda on: gr.update(interactive=not on), search, parts["lr"], **QUIET)
    notes["origin"] = gr.HTML(origin_note(config), elem_classes="zo-note zo-origin")
    with gr.Row(elem_classes="zo-pair"):
        parts["steps"] = gr.Number(values["steps"], label="Steps", precision=0, elem_id="zo-steps", min_width=120)
        parts["seed"] = gr.Number(values["seed"], label="Seed", precision=0, elem_id="zo-seed", min_width=120)
    _advanced(parts, values, forms.shown(config.method, config.objective, values["reward"]))
    parts["task"] = data.task
    parts["device"] = gr.State(config.device)  # set by a preset that needs one
    return Controls(preset, recipe, parts | data.parts, notes, data)


def _advanced(parts: dict[str, gr.components.Component], values: Mapping[str, Any], shown: Mapping[str, bool]) -> None:
    with gr.Accordion("Advanced", open=False):
        for names in NUMBERS:
            with gr.Row(elem_classes="zo-pair"):
                for name in names:
                    parts[name] = gr.Number(
                        values[name],
                        label=label(name),
                        info=HELP[name],
                        precision=0,
                        visible=shown.get(name, True),
                        elem_id=f"zo-{name.replace('_', '-')}",
                        min_width=120,
                    )
        for name in ("directions", "pool", "share", "clip", "mu", "alpha", "push_every"):
            whole = 0 if name in ("directions", "pool", "push_every") else None
            parts[name] = gr.Number(
                values[name],
                label=label(name),
                info=HELP[name],
                precision=whole,
                visible=shown[name],
                elem_id=f"zo-{name.replace('_', '-')}",
            )
        for name in ("scale", "sides", "tie", "onto", "noise", "schedule", "update", "quantise", "dtype"):
            parts[name] = gr.Dropdown(
                forms.offered(name),
                value=values[name],
                label=label(name),
                info=HELP[name],
                visible=shown.get(name, True),
                elem_id=f"zo-{name}",
            )


def label(name: str) -> str:
    """Return a field's name as a label."""
    return name.replace("_", " ").capitalize()


def method_note(method: str) -> str:
    """One sentence on a method, its price and its paper."""
    row = METHODS[method]
    paper = f" · arXiv {row.paper}" if row.paper else ""
    return f"{row.summary}<br><b>{row.forwards}</b> forward passes a step{paper}"


def origin_note(config: RunConfig) -> str:
    """Where the marked numbers come from."""
    return f"● preset: {forms.origin(config)}"


def filled(config: RunConfig) -> dict[str, Any]:
    """Return the changes by which the form shows a configuration."""
    values = forms.to_form(config)
    shown = forms.shown(config.method, config.objective, values["reward"])
    listed = {name: forms.choices(name, config) for name in ("lr", "eps")}
    listed |= {"reward": aims.rewards(values["reward"]), "task": recipes.tasks(config.task)}
    changes: dict[str, Any] = {}
    for name in (*forms.NAMES, "word"):
        more: dict[str, Any] = {"visible": shown[name]} if name in shown else {}
        if name in listed:
            more["choices"] = listed[name]
        changes[name] = gr.update(value=values[name], **more)
    return changes | {"device": config.device, "task note": recipes.task_note(config.task)} | _notes(config)


def rechosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes after another model, method, subspace or objective: lists of lr and eps at their presets."""
    config = forms.bare(values)
    fresh, shown = forms.to_form(config), forms.shown(config.method, config.objective, values["reward"])
    changes: dict[str, Any] = {name: gr.update(visible=on) for name, on in shown.items()}
    for name in ("lr", "eps"):
        choices = forms.choices(name, config)
        changes[name] = gr.update(value=fresh[name], choices=choices, visible=shown.get(name, True))
    changes["device"] = None
    for name in forms.OF_METHOD:
        changes[name] = gr.update(value=forms.option(config.method, name), visible=shown[name])
    return changes | _notes(config)


def _notes(config: RunConfig) -> dict[str, str]:
    return {"about": method_note(config.method), "origin": origin_note(config), "aim": aims.note(config)}
