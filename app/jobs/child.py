"""python -m app.jobs.child: the process in which a model runs. It does what comes on its standard input.

The server gives it one job, or questions one after the other, and reads what happens from its standard output.
Limits of memory and processor time are its own to set; the server watches its memory and the clock besides.
"""

import argparse
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import IO, Any, cast

from app.jobs import wire
from app.jobs.lanes import Engine, run_lanes, sentence
from app.jobs.questions import QUESTIONS, Shelf
from app.jobs.wire import Answer, Ask, Happened, Message, Over, Ready, Stop, Work
from zocore.config import RunConfig
from zocore.runs.loop import run


class Desk:
    """Takes the orders as they come, so that a stop is heard while a job runs."""

    def __init__(self, orders: IO[str], hang_up: Callable[[], None]) -> None:
        self._orders, self._hang_up = orders, hang_up
        self._waiting: queue.Queue[Message | None] = queue.Queue()
        self.stop = threading.Event()
        threading.Thread(target=self._listen, name="zocore orders", daemon=True).start()

    def _listen(self) -> None:
        with suppress(ValueError, OSError):
            for line in self._orders:
                order = wire.read(line)
                if isinstance(order, Stop):
                    self.stop.set()
                elif isinstance(order, Message):
                    self._waiting.put(order)
        self.stop.set()
        self._waiting.put(None)
        self._hang_up()

    @property
    def idle(self) -> bool:
        """Whether no order has come yet."""
        return self._waiting.empty()

    def __iter__(self) -> Iterator[Message]:
        while (order := self._waiting.get()) is not None:
            yield order


def serve(
    orders: IO[str],
    messages: IO[str],
    engine: Engine = run,
    hang_up: Callable[[], None] = lambda: None,
    allow: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Do what is ordered, line by line, until the server hangs up; `allow` is told the seconds of each order."""
    desk, shelf = Desk(orders, hang_up), Shelf()

    def tell(message: Message | Happened) -> None:
        messages.write(wire.write(message))
        messages.flush()

    if desk.idle:
        tell(Ready())
    for order in desk:
        with suppress(BrokenPipeError):
            if isinstance(order, Work):
                allow(order.seconds)
                _work(order, desk.stop.is_set, engine, tell)
            elif isinstance(order, Ask):
                allow(order.seconds)
                tell(_answer(order, shelf))


def _work(order: Work, stop: Callable[[], bool], engine: Engine, tell: Callable[[Message | Happened], None]) -> None:
    try:
        if order.sentence:
            engine = partial(cast(Any, engine), sentences=[order.sentence])
        for message in run_lanes(order, stop, engine):
            tell(message)
    except Exception as error:
        tell(Over(sentence(error)))
    else:
        tell(Over())


def _answer(order: Ask, shelf: Shelf) -> Answer:
    try:
        return Answer(QUESTIONS[order.question](shelf, order.facts))
    except Exception as error:
        shelf.clear()  # what failed half-way may be in any state
        return Answer(problem=sentence(error))


def limit_time(seconds: float) -> None:
    """Give this process so much more processor time; the system ends it when that is spent."""
    if seconds and sys.platform != "win32":
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime + seconds * (os.cpu_count() or 1)) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (spent, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def limit_memory(count: int) -> None:
    """Let allocations over so many bytes fail, so that a run too large ends in a sentence.

    The limit is on data, not on address space: torch and CUDA reserve far more addresses than they use.
    """
    if count and sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (count, count))


def warm_up() -> None:
    """Do a step of the bundled model, so that the first run finds everything imported and compiled."""
    for _ in run(RunConfig(steps=1, batch_size=2, eval_examples=1)):
        pass


def main() -> None:
    """Serve on standard input and output, which nothing else may write to."""
    parser = argparse.ArgumentParser(prog="python -m app.jobs.child")
    parser.add_argument("--memory", type=int, default=0, help="bytes of data; 0 for any")
    options = parser.parse_args()
    limit_memory(options.memory)
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to the server's log
    warm_up()
    serve(sys.stdin, messages, hang_up=lambda: os._exit(0), allow=limit_time)


if __name__ == "__main__":
    main()
