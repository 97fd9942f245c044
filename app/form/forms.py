"""The form and the settings: which controls a method shows, their choices, and the way from one to the other."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from app.form import aims, catalogue
from zocore.config import RunConfig
from zocore.defaults import before_loading, preset
from zocore.errors import InputError
from zocore.methods import METHODS, OPTIONS, build
from zocore.models.files import HUB_ID
from zocore.objectives import OBJECTIVES
from zocore.presets import Preset

PRESETS: Mapping[str, RunConfig] = {
    "toy": RunConfig(task="verdict", steps=300, eval_every=50, eval_examples=200, measure_every=80),
    "cpu": RunConfig(model="sentence-transformers/all-MiniLM-L6-v2", steps=1000, eval_every=100, eval_examples=200),
    "gpu": RunConfig(model="Qwen/Qwen2.5-0.5B", steps=4000, eval_every=400, device="cuda", dtype="bf16"),
}
NAMES = (
    "model",
    "method",
    "objective",
    "reward",
    "metric",
    "max_new_tokens",
    "temperature",
    "subspace",
    "task",
    "k_shot",
    "train_examples",
    "lr",
    "auto_lr",
    "eps",
    "steps",
    "seed",
    "batch_size",
    "directions",
    "pool",
    "share",
    "clip",
    "mu",
    "alpha",
    "push_every",
    "scale",
    "sides",
    "tie",
    "onto",
    "noise",
    "schedule",
    "update",
    "quantise",
    "dtype",
    "max_tokens",
    "eval_every",
    "eval_examples",
    "measure_every",
)
SPREAD = (0.01, 0.0316, 0.1, 0.316, 1.0, 3.16, 10.0, 31.6, 100.0)  # of the lists of lr and eps, about the preset
OF_METHOD = ("directions", "sides")  # options whose default depends on the method
METHOD_CHOICES = [(row.title, name) for name, row in METHODS.items()]


def _preset(config: RunConfig) -> Preset:
    settled = before_loading(replace(config, device=None))  # no preset depends on it, and it may not be here
    rates = preset(replace(settled, kind=settled.kind or catalogue.kind(settled.model)))
    return replace(rates, eps=rates.eps * OBJECTIVES[config.objective].wider)


def choices(name: str, config: RunConfig) -> list[tuple[str, str]]:
    """Return the short list for lr or eps: log-spaced about the preset, which is marked."""
    best = getattr(_preset(config), name)
    return [(f"{best * k:.2g}" + ("  ●" if k == 1 else ""), f"{best * k:.2g}") for k in SPREAD]


def origin(config: RunConfig) -> str:
    """Return where the preset's numbers come from."""
    origin, row = _preset(config).origin, OBJECTIVES[config.objective]
    if config.objective == RunConfig.objective:
        return origin
    wide = f", and eps {row.wider:g} times as far out" if row.wider != 1 else ""
    return f"{origin}; the rate is the loss's, not tuned for this objective{wide}"


def with_presets(config: RunConfig) -> RunConfig:
    """Return the settings with lr and eps as the form shows them; a rate that the run looks for itself stays open."""
    rates = _preset(config)
    lr = config.lr or (None if config.searches else float(f"{rates.lr:.2g}"))
    return replace(config, lr=lr, eps=config.eps or float(f"{rates.eps:.2g}"))


def offered(name: str) -> list[tuple[str, Any]]:
    """Return the (label, value) pairs of a setting that is one of a few."""
    if name == "sides":
        return [("1, beside the clean forward", 1), ("2, plus and minus", 2)]
    choices = RunConfig.__dataclass_fields__[name].metadata["choices"]
    preset_ = [] if name in ("scale", "tie") else [("preset", "auto")]
    return [*preset_, *((choice, choice) for choice in choices if choice != "auto")]


def option(method: str, name: str) -> Any:
    """Return the default of a method's own option; of another method's, to fill a hidden control, if it has none."""
    taking = [row for row in (METHODS[method], *METHODS.values()) if name in row.options]
    return taking[0].options[name]


def shown(method: str, objective: str = RunConfig.objective, reward: object = None) -> dict[str, bool]:
    """Return which of the controls that depend on method and objective are of any use."""
    zeroth = METHODS[method].zeroth_order
    options = {name: name in METHODS[method].options for name in OPTIONS if name in NAMES}
    probed = dict.fromkeys(("eps", "auto_lr", "measure_every"), zeroth)
    return options | probed | {"noise": "law" in METHODS[method].options} | aims.shown(objective, reward)


def to_form(config: RunConfig) -> dict[str, Any]:
    """Return the values of the controls, in the order of NAMES."""
    searches, config = config.searches, with_presets(replace(config, auto_lr=False))
    values = {name: getattr(config, name) for name in NAMES} | {"auto_lr": searches}
    values |= {"lr": f"{config.lr:.2g}", "eps": f"{config.eps:.2g}"}
    values |= {name: values[name] or "auto" for name in ("noise", "schedule", "quantise", "dtype", "onto", "metric")}
    values["reward"], values["word"] = aims.split(config.reward)
    if config.keep != 1:
        values["subspace"] = "sparse"
    if config.rank:
        values["subspace"] = "low-rank"
    return values | {name: option(config.method, name) for name in OPTIONS if name in NAMES and values[name] is None}


def to_config(values: Mapping[str, Any], data: Mapping[str, Any] | None = None) -> RunConfig:
    """Return the settings a form holds. Raises InputError with one sentence."""
    method = values["method"]
    useful = shown(method, values["objective"], values["reward"])
    values = {**values, "reward": aims.joined(values["reward"], values["word"])}
    kept = {name: _typed(name, values[name]) for name in NAMES if useful.get(name, True)}
    own = METHODS[method].options
    kept = {name: None if name in own and value == own[name] else value for name, value in kept.items()}
    kept |= _subspace(values["subspace"]) | ({"lr": None} if kept.get("auto_lr") else {})
    kept["model"] = str(values["model"] or "").strip()
    if not kept["model"]:
        raise InputError("choose a model, or write a hub id or the path of a folder")
    config = RunConfig(**{**kept, **(data or {})}, device=values.get("device"))
    if config.batch_size < 2 and build(method, **config.options).per_example:
        title = METHODS[method].title
        raise InputError(f"{title} compares the examples of a batch with each other: take a batch of at least 2")
    return config


def bare(values: Mapping[str, Any]) -> RunConfig:
    """Return the settings that presets depend on, whatever else the form holds."""
    model = str(values["model"] or "bundled")
    objective = values["objective"]
    judged = aims.USUAL if OBJECTIVES[objective].judge == "reward" else None  # which one does not matter here
    more = _subspace(values["subspace"])
    return RunConfig(method=values["method"], model=model, objective=objective, reward=judged, **more)


def check_hub_id(model: str) -> None:
    """Raise InputError unless the model has the form of a hub id and is no folder of this machine."""
    if not HUB_ID.fullmatch(model) or Path(model).exists():
        raise InputError("this server takes models from the list or by hub id, such as org/name")


def _subspace(choice: str | None) -> dict[str, Any]:
    if choice == "sparse":
        return {"subspace": "auto", "keep": 0.25}
    return {"subspace": "auto", "rank": 4} if choice == "low-rank" else {"subspace": choice or "auto"}


_HINTS = get_type_hints(RunConfig)
_LABELS = {"lr": "The learning rate", "eps": "The probe distance eps", "steps": "The number of steps"}


def _typed(name: str, value: Any) -> Any:
    """A control's value as the field's type; "auto" and empty mean the default."""
    if value in (None, "", "auto"):
        default = next(field.default for field in fields(RunConfig) if field.name == name)
        return value if name in ("subspace", "update") and value == "auto" else default
    kinds = [kind for kind in (get_args(_HINTS[name]) or (_HINTS[name],)) if kind is not type(None)]
    try:
        number = kinds[0](value) if kinds[0] is not int else int(float(value))
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"{_LABELS.get(name, name)} must be a number, not {str(value)[:40]!r}") from None
    if isinstance(number, float) and not math.isfinite(number):
        raise InputError(f"{_LABELS.get(name, name)} must be a finite number")
    return number
