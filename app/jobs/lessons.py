"""Lessons: what a class answered to its teacher's question, kept on the server under a name that only links carry."""

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from app.jobs.job import hashed
from app.jobs.visitors import Visitors
from zocore.errors import InputError

MOST_ANSWERS, MOST_TEXT = 200, 500  # of a lesson, and characters of one
MOST_LESSONS = 500  # with answers; beyond them the oldest goes
KEPT = 14 * 86_400.0  # seconds after the last answer


def clean(text: str) -> str:
    """Return text from outside without halves of surrogate pairs, which are no characters and break every answer."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass
class Lessons:
    """Issues names of lessons and keeps their answers: one a visitor, in a file a lesson."""

    root: Path
    key: str  # of the server
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def issue(self) -> str:
        """Return the name of a new lesson, which nobody can guess; nothing is kept until somebody answers."""
        return self._names.issue()

    def known(self, name: object) -> bool:
        """Whether this server issued the name."""
        return isinstance(name, str) and self._names.welcome(name) == name

    def answer(self, name: str, visitor: str, text: str) -> None:
        """Keep a visitor's answer in place of an earlier one. Raises InputError when it cannot be."""
        answer = clean(text).strip()
        if not self.known(name):
            raise InputError("this lesson is not known here: ask for its link again")
        if not answer:
            raise InputError("write an answer first")
        if len(answer) > MOST_TEXT:
            raise InputError(f"an answer has at most {MOST_TEXT} characters, this one has {len(answer):,}")
        with self._lock:
            held, mine = self._read(name), hashed(visitor)
            if mine not in held and len(held) >= MOST_ANSWERS:
                raise InputError(f"the class has given {MOST_ANSWERS} answers, and a lesson keeps no more")
            if not held:
                self._make_room()
            held[mine] = answer
            self.root.mkdir(parents=True, exist_ok=True)
            partial = self._path(name).with_suffix(".partial")
            partial.write_text(json.dumps(held), encoding="utf-8")
            partial.replace(self._path(name))

    def answers(self, name: str) -> list[str]:
        """Return the answers in the order in which they first came, none for a name that is not known."""
        if not self.known(name):
            return []
        with self._lock:
            return list(self._read(name).values())

    @property
    def _names(self) -> Visitors:
        return Visitors(f"lesson {self.key}")  # so that no visitor's secret is one

    def _path(self, name: str) -> Path:
        return self.root / f"{hashed(name)}.json"

    def _read(self, name: str) -> dict[str, str]:
        try:
            answers = json.loads(self._path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(visitor): str(said) for visitor, said in answers.items()} if isinstance(answers, dict) else {}

    def _make_room(self) -> None:
        """Drop what nobody answered for long, and the oldest beyond a number."""
        files = sorted(self.root.glob("*.json"), key=lambda path: path.stat().st_mtime) if self.root.is_dir() else []
        old = [path for path in files if time.time() - path.stat().st_mtime > KEPT]
        for path in {*old, *files[: max(0, len(files) - MOST_LESSONS + 1)]}:
            path.unlink(missing_ok=True)
