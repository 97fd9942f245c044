"""The left-hand side of the Play tab: everything that decides a run, and only what the chosen method uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from app import words
from app.form import catalogue, forms
from app.form.data_form import DataForm, data_settings
from app.jobs.store import Limits
from zocore.config import RunConfig
from zocore.data.tasks import bundled_tasks
from zocore.methods import METHODS

HELP = {name: f.metadata["help"] for name, f in RunConfig.__dataclass_fields__.items()}
TITLES: Mapping[str, str] = {"keep": "share that moves", "lr": "Learning rate", "eps": "Probe distance eps"}


@dataclass
class Controls:
    """The components of the form."""

    preset: gr.Radio
    parts: dict[str, gr.components.Component]  # in the order of forms.NAMES
    about: gr.HTML  # the method in one sentence
    origin: gr.HTML
    data: DataForm
    extra: dict[str, gr.components.Component] = field(default_factory=dict)

    @property
    def inputs(self) -> list[gr.components.Component]:
        """All that `collect` reads, in its order."""
        return [*self.parts.values(), *self.data.inputs]


def collect(values: tuple[Any, ...] | list[Any], limits: Limits) -> RunConfig:
    """Return the settings of the form. Raises InputError with one sentence."""
    count = len(forms.NAMES)
    data = data_settings(*values[count:])
    config = forms.to_config(dict(zip(forms.NAMES, values[:count], strict=True)), data)
    guard(config, limits)
    return config


def guard(config: RunConfig, limits: Limits) -> None:
    """Raise InputError when a hosted server's visitor names a folder of the server."""
    if not limits.folders and config.model != "bundled" and config.model not in catalogue.HUB:
        forms.check_hub_id(config.model)


def build(config: RunConfig, preset: gr.Radio, most: int) -> Controls:
    """Lay the controls out, filled from a configuration."""
    values = forms.to_form(config)
    parts: dict[str, gr.components.Component] = {}
    parts["model"] = gr.Dropdown(
        catalogue.choices(),
        value=values["model"],
        label="Model",
        allow_custom_value=True,
        elem_id="zo-model",
        info="On offer with what a MeZO step on 16 short texts takes; or write any hub id or folder.",
    )
    data = DataForm.build(bundled_tasks(), values["task"], most)
    parts["method"] = gr.Dropdown(forms.METHOD_CHOICES, value=values["method"], label="Method", elem_id="zo-method")
    about = gr.HTML(method_note(config.method), elem_classes="zo-note")
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
    origin = gr.HTML(origin_note(config), elem_classes="zo-note zo-origin")
    with gr.Row(elem_classes="zo-pair"):
        parts["steps"] = gr.Number(
            values["steps"], label="Steps", precision=0, minimum=1, elem_id="zo-steps", min_width=120
        )
        parts["seed"] = gr.Number(
            values["seed"], label="Seed", precision=0, minimum=0, elem_id="zo-seed", min_width=120
        )
    _advanced(parts, values, forms.shown(config.method))
    ordered = {name: parts[name] for name in forms.NAMES[:3]} | {"task": data.task}
    ordered |= {name: parts[name] for name in forms.NAMES[4:]}
    return Controls(preset, ordered, about, origin, data)


def _advanced(parts: dict[str, gr.components.Component], values: Mapping[str, Any], shown: Mapping[str, bool]) -> None:
    with gr.Accordion("Advanced", open=False):
        for names in (("batch_size", "max_tokens"), ("eval_every", "measure_every")):
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
        for name in ("directions", "pool", "share", "clip"):
            whole = 0 if name in ("directions", "pool") else None
            parts[name] = gr.Number(
                values[name],
                label=label(name),
                info=HELP[name],
                precision=whole,
                visible=shown[name],
                elem_id=f"zo-{name}",
            )
        for name in ("scale", "noise", "schedule", "update", "quantise", "dtype"):
            offered = [("preset", "auto")] if name != "scale" else []
            offered += [(c, c) for c in RunConfig.__dataclass_fields__[name].metadata["choices"] if c != "auto"]
            parts[name] = gr.Dropdown(
                offered, value=values[name], label=label(name), info=HELP[name], visible=shown.get(name, True)
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


def filled(config: RunConfig) -> list[Any]:
    """Return updates that show a configuration: for `parts` in order, then the two notes."""
    values, shown = forms.to_form(config), forms.shown(config.method)
    updates: list[Any] = []
    for name in forms.NAMES:
        more: dict[str, Any] = {"visible": shown[name]} if name in shown else {}
        if name in ("lr", "eps"):
            more["choices"] = forms.choices(name, config)
        updates.append(gr.update(value=values[name], **more))
    return [*updates, method_note(config.method), origin_note(config)]


def rechosen(*values: Any) -> list[Any]:
    """Return updates after the model, method or subspace changed: new lists of lr and eps at their presets."""
    form = dict(zip(forms.NAMES, values, strict=True))
    config = forms.bare(form)
    fresh = forms.to_form(config)
    shown = forms.shown(config.method)
    updates: list[Any] = []
    for name in forms.NAMES:
        if name in ("lr", "eps"):
            updates.append(
                gr.update(value=fresh[name], choices=forms.choices(name, config), visible=shown.get(name, True))
            )
        elif name == "directions":
            updates.append(gr.update(value=forms.option(config.method, name), visible=shown[name]))
        else:
            updates.append(gr.update(visible=shown[name]) if name in shown else gr.skip())
    return [*updates, method_note(config.method), origin_note(config)]
