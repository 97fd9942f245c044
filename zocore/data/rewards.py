"""Rewards of completions: a function in a file of yours, or one that comes with the project.

Yours is `def reward(prompt, completion, row): ...` and returns a number, more for better; `row` holds the columns of
the prompt's row. The file is run when the first completion is judged, never to rebuild a recorded run.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

from zocore.data.answers import SCORES
from zocore.data.built_in_rewards import NAMES, built_in
from zocore.data.columns import shown
from zocore.data.texts import Row
from zocore.errors import InputError

Function = Callable[[str, str, Mapping[str, str]], Any]


@dataclass
class Reward:
    """What judges completions. Raises InputError for whatever a user's function does wrong."""

    source: str  # one that comes with the project, or FILE.py:function
    _function: Function | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._function = built_in(self.source)
        if self._function is None and not (self._parts()[0].name and self._parts()[1].isidentifier()):
            raise InputError(
                f"--reward must be {NAMES} or FILE.py:function, such as rewards.py:score, not {shown(self.source)}"
            )

    @property
    def name(self) -> str:
        """What an evaluation calls its mean."""
        return self.source if self.source in SCORES else "reward"

    @property
    def version(self) -> str:
        """The SHA-256 of the file, empty where there is none."""
        path = self._parts()[0]
        own = built_in(self.source) or not path.is_file()
        return "" if own else hashlib.sha256(path.read_bytes()).hexdigest()

    def ready(self) -> None:
        """Load the function."""
        self._function = self._function or self._loaded()

    def __call__(self, prompt: str, completion: str, row: Row) -> float:
        """Return the reward of a completion, a finite number."""
        self.ready()
        assert self._function is not None
        try:
            reward = self._function(prompt, completion, dict(row.fields))
        except InputError:
            raise
        except Exception as error:  # whatever a user's code may raise
            raise InputError(f"the reward raised {type(error).__name__} ({error}) for {_cited(row, prompt)}") from error
        if not isinstance(reward, Real):
            kind = type(reward).__name__
            raise InputError(f"the reward returned {kind} where a number is needed, for {_cited(row, prompt)}")
        value = float(reward)
        if not isfinite(value):
            raise InputError(f"the reward returned {value}, which is no finite number, for {_cited(row, prompt)}")
        return value

    def _parts(self) -> tuple[Path, str]:
        file, _, name = self.source.rpartition(":")
        return Path(file).expanduser(), name

    def _loaded(self) -> Function:
        path, name = self._parts()
        if not path.is_file():
            raise InputError(f"there is no file {str(path)!r} with a reward: check the path")
        spec = importlib.util.spec_from_file_location(f"zocore_reward_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise InputError(f"{path.name} is no Python file: name it .py")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise InputError(f"{path.name} cannot be run: {type(error).__name__}: {error}") from error
        function: Function | None = getattr(module, name, None)
        if not callable(function):
            raise InputError(f"{path.name} has no function {name!r}: define `def {name}(prompt, completion, row)`")
        return function


def _cited(row: Row, prompt: str) -> str:
    line = " ".join(prompt.split())
    return f"the prompt of {row.place} ({shown(line)})"
