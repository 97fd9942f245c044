"""Cells in processes of one thread each, or one after the other in this process."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import torch

from zocore.errors import InputError
from zocore.tournament.cells import do
from zocore.tournament.ledger import Cell, Done
from zocore.tournament.plan import Plan

Stop = Callable[[], bool]
Start = Callable[[Cell], "Future[Done | None]"]

_asked_to_stop: Any = None  # the event that a worker shares with the process that started it


@contextmanager
def workers(plan: Plan, jobs: int, stop: Stop) -> Iterator[tuple[Start, Callable[[], None]]]:
    """Yield a way to start a cell, and one to ask the cells that run to stop after their step."""
    if jobs == 1:
        with _one_thread():
            yield lambda cell: _here(plan, cell, stop), lambda: None
        return
    context = get_context("spawn")  # a fork would inherit torch's threads
    asked = context.Event()
    pool: Executor = ProcessPoolExecutor(jobs, context, _begin, (asked,))
    with pool:
        yield lambda cell: pool.submit(_there, plan, cell), asked.set


def result(future: "Future[Done | None]") -> Done | None:
    """Return what a cell came to. Raises InputError when its process died."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise InputError(
            "a process of the tournament died, perhaps of memory: give the same command with fewer --jobs to go on"
        ) from None


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _here(plan: Plan, cell: Cell, stop: Stop) -> "Future[Done | None]":
    future: Future[Done | None] = Future()
    future.set_result(do(plan, cell, stop))
    return future


def _begin(asked: Any) -> None:
    """Set a worker up: one thread, and Ctrl-C left to the process that started it."""
    global _asked_to_stop
    _asked_to_stop = asked
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _there(plan: Plan, cell: Cell) -> Done | None:
    return do(plan, cell, _asked_to_stop.is_set)
