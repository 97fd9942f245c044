"""Datasets of the hub, and folders laid out like them, as tables: `hub:owner/name[@revision][:configuration]`.

Read by the package `datasets`, which is not needed otherwise. No code of a dataset is ever run.
"""

import json
import re
from pathlib import Path
from typing import Any

from zocore.data.files import Table
from zocore.errors import InputError

PREFIX = "hub:"
ADDRESS = re.compile(r"(?P<name>[^@:]+)(@(?P<revision>[^:]+))?(:(?P<config>.+))?")
SPLITS = {"train": ("train",), "dev": ("dev", "validation", "valid", "val", "validation_matched"), "test": ("test",)}
PARQUET = "refs/convert/parquet"  # the branch where the hub keeps a dataset's tables, whatever its own files are


def is_hub(data: str) -> bool:
    """Return whether a --data setting names a dataset of the hub."""
    return data.startswith(PREFIX)


def hub_tables(data: str) -> dict[str, Table]:
    """Return the splits of a dataset, those among train, dev and test that it has; every value as text.

    Labels that are numbers with names become the names; a label that is none (-1) is missing. A folder laid out as a
    dataset is read likewise. Raises InputError with one sentence for what cannot be read.
    """
    parts = ADDRESS.fullmatch(data.removeprefix(PREFIX))
    if parts is None:
        raise InputError(f"--data must be hub:owner/name, with @revision and :configuration if need be, not {data!r}")
    splits = _loaded(parts["name"], parts["config"], parts["revision"])
    named = {ours: next((name for name in theirs if name in splits), None) for ours, theirs in SPLITS.items()}
    if named["train"] is None:
        raise InputError(f"the dataset {parts['name']!r} has no split 'train': its splits are {', '.join(splits)}")
    return {ours: _table(parts["name"], splits[name]) for ours, name in named.items() if name is not None}


def _loaded(name: str, config: str | None, revision: str | None) -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError(
            'rows on the hub need the package datasets: pip install "datasets>=4,<6", or name a folder with --data'
        ) from None
    try:
        datasets.disable_progress_bars()
        if revision == PARQUET or (config and (Path(name) / config).is_dir()):  # there each configuration is a folder
            return datasets.load_dataset(name, data_dir=config or "default", revision=revision)
        return datasets.load_dataset(name, config, revision=revision)
    except Exception as error:  # of a dozen classes of three packages
        raise InputError(_reason(name, error)) from error


def _reason(name: str, error: Exception) -> str:
    """One sentence on why a dataset cannot be loaded, and what to do."""
    message = " ".join(str(error).split())
    if "scripts are no longer supported" in message:
        return (
            f"the dataset {name!r} is made by a script, which is not run: the hub may have its tables, "
            f"as {PREFIX}{name}@{PARQUET}"
        )
    if "gated dataset" in message:
        return f"the dataset {name!r} is gated: accept its terms on its page and log in with `hf auth login`"
    if "doesn't exist on the Hub" in message:
        return f"there is no dataset {name!r} on the hub, or it is private: check its name, or log in"
    if "Config name is missing" in message or "BuilderConfig" in message:
        choices = re.findall(r"\[(.*?)\]", message)
        some = f" one of {choices[0][:300]}" if choices else ""
        return f"the dataset {name!r} has several configurations: choose{some} with {PREFIX}{name}:CONFIGURATION"
    if isinstance(error, OSError) or "offline" in message.lower() or "Couldn't reach" in message:
        return (
            f"the dataset {name!r} was never downloaded and the hub cannot be reached: connect to the network, or give "
            "a local file or folder"
        )
    return f"the dataset {name!r} cannot be loaded: {message[:300].rstrip('.') or type(error).__name__}"


def _table(name: str, split: Any) -> Table:
    if not len(split):
        raise InputError(f"the dataset {name!r} has no rows in its split {str(split.split)!r}")
    labels = {column: feature.names for column, feature in split.features.items() if hasattr(feature, "int2str")}
    rows = [{column: _text(value, labels.get(column)) for column, value in row.items()} for row in split]
    return Table(Path(Path(name).name), tuple(split.features), rows, range(1, len(rows) + 1))


def _text(value: Any, labels: list[str] | None) -> str:
    """A value as a table file would hold it."""
    if labels is not None and isinstance(value, int):
        return labels[value] if value >= 0 else ""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value).strip()
