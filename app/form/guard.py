"""What settings from outside may hold: on a hosted server no path, no pickle, no regular expression, no huge number."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from app.form import catalogue
from app.form.forms import check_hub_id
from app.jobs.limits import BOUNDS, MOST_TEXT, Limits
from zocore.config import RunConfig
from zocore.data.built_in_rewards import NAMES, built_in
from zocore.data.tasks import bundled_tasks
from zocore.errors import InputError
from zocore.subspaces.blocks import of_blocks
from zocore.subspaces.by_name import GLOB

NAMED = ("auto", "all", "lora", "scales")  # subspaces that are no pattern
SWITCHES = tuple(field.name for field in fields(RunConfig) if isinstance(field.default, bool))
PART = re.compile(r"[A-Za-z0-9_.*?-]{1,200}")  # of a parameter's name, with * and ? for what varies


def settings(values: object, limits: Limits) -> RunConfig:
    """Return the settings a program sent. Raises InputError or ValueError with one sentence for anything else."""
    if not isinstance(values, Mapping):
        raise InputError(f"settings are an object of names and values, not {_short(values)}")
    for name, value in values.items():
        if isinstance(value, bool) and name not in SWITCHES:
            raise InputError(f"{_short(name)} has the wrong type: {value}")
        if isinstance(value, str) and len(value) > MOST_TEXT:
            raise InputError(f"{_short(name)} has {len(value)} characters, over the limit of {MOST_TEXT}")
        if isinstance(value, Mapping | list) or not isinstance(name, str):
            raise InputError(f"{_short(name)} has the wrong type: {_short(value)}")
    if limits.hosted and values.get("data"):
        raise InputError("this server takes data by upload on its page, not by a path")
    return RunConfig.from_json(dict(values))


def checked(config: RunConfig, limits: Limits, uploads: Path) -> RunConfig:
    """Return the settings as this server runs them. Raises InputError for what a hosted one does not take."""
    if not limits.hosted:
        return config
    if config.model != "bundled" and config.model not in catalogue.HUB:
        check_hub_id(config.model)
        if not catalogue.downloaded(config.model):
            raise InputError("this server takes the models of its list and those it has downloaded before")
    if config.allow_pickle:
        raise InputError("this server loads safetensors only: leave allow_pickle out")
    if config.reward and built_in(config.reward) is None:
        raise InputError(f"this server runs no code of its visitors: the reward must be {NAMES}")
    if config.task not in bundled_tasks():
        raise InputError(f"this server takes the tasks {', '.join(bundled_tasks())}, and data by upload")
    if config.data and not Path(config.data).resolve().is_relative_to(uploads.resolve()):
        raise InputError("this server takes data by upload on its page, not by a path")
    _check_numbers(config)
    for field in fields(config):
        text = getattr(config, field.name)
        if isinstance(text, str) and len(text) > MOST_TEXT:
            raise InputError(f"{field.name} has {len(text)} characters, over the limit of {MOST_TEXT}")
    return replace(config, subspace=_pattern(config.subspace))


def _check_numbers(config: RunConfig) -> None:
    for name, (low, high) in BOUNDS.items():
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            raise InputError(f"on this server {name} is a number from {low:g} to {high:g}, not {_short(value)}")


def _pattern(subspace: str) -> str:
    """A part of a name, matched in linear time; the engine's own patterns are for one's own machine."""
    if subspace in NAMED or of_blocks(subspace):
        return subspace
    part = subspace.removeprefix(GLOB)
    if not PART.fullmatch(part):
        raise InputError(
            "this server takes a part of a parameter's name for the subspace, with * and ? for what varies, "
            "such as layers.*.self_attn, and no regular expression"
        )
    return GLOB + part


def _short(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)  # so that it stays on one line
    except (ValueError, TypeError, RecursionError):
        text = type(value).__name__
    return text if len(text) < 60 else text[:59] + "…"
