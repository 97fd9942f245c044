"""The link that carries a configuration: `?cfg=` with every setting that is not the default, and the open tab."""

import base64
import json
from dataclasses import fields
from typing import Any

from zocore.config import RunConfig
from zocore.errors import InputError

PRIVATE = ("data", "allow_pickle", "reward")  # a path says nothing elsewhere; nobody trusts pickles or code by a link
MOST = 4000  # characters of a link's code


def encode(config: RunConfig, tab: str = "play") -> str:
    """Return the code of a configuration and a tab."""
    changed = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in PRIVATE}
    changed = {name: value for name, value in changed.items() if value != getattr(RunConfig(), name)}
    text = json.dumps({"run": changed, "tab": tab}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(code: str) -> tuple[RunConfig, str]:
    """Return the configuration and the tab of a code. Raises InputError when it is damaged."""
    try:
        if len(code) > MOST:
            raise ValueError
        found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
        run = {name: value for name, value in found["run"].items() if name not in PRIVATE}
        return RunConfig.from_json(run), str(found.get("tab", "play"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError("the link's settings are damaged, so the page shows its own: ask for the link again") from None
