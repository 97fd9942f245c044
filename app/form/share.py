"""The link that carries a configuration: `?cfg=` with every setting that is not the default, and the open tab."""

import base64
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from app.jobs.lessons import clean
from zocore.config import RunConfig
from zocore.data.built_in_rewards import NAMES, built_in
from zocore.errors import InputError

PRIVATE = ("data", "allow_pickle")  # a path says nothing elsewhere, and nobody trusts pickles by a link
MOST = 12_000  # characters of a link's code
MOST_LESSON, MOST_QUESTION = 1500, 300  # characters of a teacher's words


@dataclass(frozen=True)
class Lesson:
    """What a teacher adds to a link: words, a question, and the tabs that are used (none for all)."""

    text: str = ""
    question: str = ""
    tabs: tuple[str, ...] = ()


def encode(config: RunConfig, tab: str = "play", lesson: Lesson | None = None) -> str:
    """Return the code of a configuration and a tab, and of a lesson. Raises InputError for one that is too long."""
    _no_code(config.reward)
    changed = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in PRIVATE}
    changed = {name: value for name, value in changed.items() if value != getattr(RunConfig(), name)}
    held: dict[str, Any] = {"run": changed, "tab": tab}
    if lesson is not None:
        _check(lesson)
        held["lesson"] = asdict(lesson)
    text = json.dumps(held, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode("utf-8", "replace")).decode().rstrip("=")


def _no_code(reward: object) -> None:
    if isinstance(reward, str) and built_in(reward) is None:
        raise InputError(f"a link carries no reward in a file of code: take {NAMES}")


def _check(lesson: Lesson) -> None:
    for what, text, most in (("text", lesson.text, MOST_LESSON), ("question", lesson.question, MOST_QUESTION)):
        if len(text) > most:
            raise InputError(f"the {what} of a lesson has at most {most:,} characters, this one has {len(text):,}")


def lesson_of(code: str) -> Lesson | None:
    """Return the lesson in a link's code, None where there is none or it is not as `encode` makes it."""
    try:
        parts = _found(code)["lesson"]
        lesson = Lesson(clean(parts["text"]), clean(parts["question"]), tuple(map(clean, parts["tabs"])))
        _check(lesson)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return lesson


def _found(code: str) -> dict[str, Any]:
    if len(code) > MOST:
        raise ValueError
    content: dict[str, Any] = json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
    return content


def decode(code: str) -> tuple[RunConfig, str]:
    """Return the configuration and the tab of a code. Raises InputError when it is damaged."""
    try:
        content = _found(code)
        run = {name: value for name, value in content["run"].items() if name not in PRIVATE}
        _no_code(run.get("reward"))
        return RunConfig.from_json(run), str(content.get("tab", "play"))
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError("the link's settings are damaged, so the page shows its own: ask for the link again") from None
