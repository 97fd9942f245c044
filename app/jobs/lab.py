"""Models that visitors ask outside their runs: one request at a time, a few kept ready, each visitor's own."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

Thing = TypeVar("Thing")
Answer = TypeVar("Answer")
IDLE = 600.0  # seconds after which an unused model is dropped


class Lab:
    """Keeps the last few things made, by key. A key must hold the visitor's secret when the thing can be moved."""

    def __init__(self, most: int = 3) -> None:
        self._most = most
        self._kept: OrderedDict[str, tuple[float, object]] = OrderedDict()
        self._lock = threading.Lock()

    def use(self, key: str, make: Callable[[], Thing], do: Callable[[Thing], Answer]) -> Answer:
        """Make the thing or take it from the shelf, and return what `do` finds; a failed one is not put back."""
        with self._lock:
            self._drop_idle()
            known = self._kept.pop(key, None)
            thing: Thing = make() if known is None else known[1]  # type: ignore[assignment]
            answer = do(thing)
            self._kept[key] = (time.monotonic(), thing)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            return answer

    def drop(self, start: str) -> None:
        """Forget the things whose key starts so."""
        with self._lock:
            for key in [key for key in self._kept if key.startswith(start)]:
                del self._kept[key]

    def _drop_idle(self) -> None:
        old = time.monotonic() - IDLE
        for key in [key for key, (used, _) in self._kept.items() if used < old]:
            del self._kept[key]
