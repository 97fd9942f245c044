"""Questions to models and files outside a run: asked of one child, one at a time, with a limit of time."""

import threading
from typing import Any

from app.jobs.process import Child, Died, Leash, Spares, follow
from app.jobs.wire import Answer, Ask
from zocore.errors import InputError

MOST_WAITING = 8


class Lab:
    """Owns the child that answers; a new one takes its place when it had to be ended."""

    def __init__(self, spares: Spares, leash: Leash) -> None:
        self._spares, self._leash = spares, leash
        self._child: Child | None = None
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MOST_WAITING)

    def ask(self, question: str, **facts: Any) -> Any:
        """Return what a question of `questions.QUESTIONS` finds. Raises InputError when it finds nothing.

        Also when too many wait already, or the child took too long or too much memory.
        """
        if not self._places.acquire(blocking=False):
            raise InputError("others are asking too: try again in a moment")
        try:
            with self._lock:
                return self._asked(question, facts)
        finally:
            self._places.release()

    def _asked(self, question: str, facts: dict[str, Any]) -> Any:
        child = self._child
        if child is None or child.gone.is_set():
            child = self._child = self._spares.take()
        child.order(Ask(question, facts, self._leash.seconds))
        try:
            for message in follow(child, self._leash):
                if isinstance(message, Answer):
                    if message.problem:
                        raise InputError(message.problem)
                    return message.value
        except Died as death:
            self._child = None
            raise InputError(f"the answer did not come: {death}") from None
        raise AssertionError("a child is followed until it answers or dies")

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.end()
