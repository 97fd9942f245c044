"""The server's side of a child process: starting it, ordering, listening, and ending it when it goes too far."""

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from app.jobs import wire
from app.jobs.wire import Happened, Message, Ready, Stop

AHEAD = 1000  # messages read before somebody takes them; then the child waits
THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")  # of a child, where the page has to stay quick
BEAT = 0.1  # seconds between two looks at a child that says nothing


class Died(RuntimeError):
    """The child is gone; the message says why, in one sentence."""


@dataclass
class Child:
    """One child and the messages it sends."""

    orders: IO[str]
    messages: IO[str]
    kill: Callable[[], None]
    pid: int = 0
    ready: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    _news: "queue.Queue[Message | Happened | None]" = field(default_factory=lambda: queue.Queue(AHEAD))

    def __post_init__(self) -> None:
        threading.Thread(target=self._listen, name="zocore child", daemon=True).start()

    def _listen(self) -> None:
        with suppress(ValueError, OSError):
            while line := self.messages.readline(wire.MOST):
                message = wire.read(line)
                self.ready.set()
                if not isinstance(message, Ready):
                    self._news.put(message)
        self.gone.set()
        self.ready.set()
        self._news.put(None)

    def order(self, message: Message) -> None:
        """Send an order; one that is gone is noticed where its messages end."""
        with suppress(ValueError, OSError):
            self.orders.write(wire.write(message))
            self.orders.flush()

    def news(self, seconds: float) -> Message | Happened | None:
        """Return the next message, None when there is none for so long. Raises Died when there is no more."""
        try:
            message = self._news.get(timeout=seconds)
        except queue.Empty:
            return None
        if message is None:
            self._news.put(None)
            raise Died("its process ended before it did: the machine may have run out of memory")
        return message

    def end(self) -> None:
        """End it now."""
        self.kill()
        with suppress(ValueError, OSError):
            self.orders.close()

    @property
    def memory(self) -> int:
        """Bytes it holds in memory; 0 where the system does not tell."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return 0


@dataclass(frozen=True)
class Leash:
    """How far a child may go."""

    seconds: float  # of the clock
    memory: int = 0  # bytes; 0 for any
    grace: float = 3.0  # seconds between a stop and its end


def follow(child: Child, leash: Leash, stop: Callable[[], bool] = lambda: False) -> Iterator[Message | Happened]:
    """Yield the messages of a child until the caller has what it wants.

    Raises Died when the child is gone, or was ended because it went too far or did not stop.
    """
    limit, stopping = time.monotonic() + leash.seconds, 0.0
    while True:
        now = time.monotonic()
        if stop() and not stopping:
            stopping = now
            child.order(Stop())
        if stopping and now > stopping + leash.grace:
            child.end()
            raise Died(f"it did not stop within {leash.grace:.0f} s and was ended")
        if now > limit + leash.grace:
            child.end()
            raise Died(f"it took longer than {in_words(leash.seconds)} and was ended")
        if leash.memory and child.memory > leash.memory:
            child.end()
            raise Died(f"it went over the limit of {leash.memory / 1e9:.3g} GB of memory and was ended")
        message = child.news(BEAT)
        if message is not None:
            yield message


def in_words(seconds: float) -> str:
    """Return a limit of time in words."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def spawn(memory: int = 0, polite: int = 0) -> Child:
    """Start a child of this machine's, with so many bytes to hold, behind the page by so many steps of `nice`.

    One that is behind the page leaves it a core too, unless the environment says otherwise.
    """
    root = str(Path(__file__).parents[2])
    paths = [root, os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    if polite:
        environment = {name: str(_threads()) for name in THREADS} | environment
    command = [sys.executable, "-m", "app.jobs.child", "--memory", str(memory)]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    if polite and hasattr(os, "setpriority"):  # from here, so that its imports come after the page too
        os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + polite)
    assert process.stdin is not None and process.stdout is not None

    def kill() -> None:
        process.kill()
        process.wait()

    return Child(process.stdin, process.stdout, kill, process.pid)


def _threads() -> int:
    return max(1, (os.cpu_count() or 1) - 1)


class Spares:
    """Keeps one child ready, so that nobody waits for imports."""

    def __init__(self, launch: Callable[[], Child], delay: float = 4.0) -> None:
        self._launch, self._delay = launch, delay
        self._spare: Child | None = None
        self._lock = threading.Lock()
        self._closed = False

    def prepare(self) -> None:
        """Start the spare, unless there is one."""
        with self._lock:
            if not self._closed and (self._spare is None or self._spare.gone.is_set()):
                self._spare = self._launch()

    def take(self) -> Child:
        """Return the spare, or a new child where there is none; the next spare starts a little later."""
        with self._lock:
            child, self._spare = self._spare, None
            if child is None or child.gone.is_set():
                child = self._launch()
        later = threading.Timer(self._delay, self.prepare)  # the one just taken has the machine first
        later.daemon = True
        later.start()
        return child

    def close(self) -> None:
        """End the spare; no other is started."""
        with self._lock:
            self._closed = True
            if self._spare is not None:
                self._spare.end()
