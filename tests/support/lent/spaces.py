"""Stands in for the package `spaces` where there is no GPU to lend: only its folder on the path makes it `spaces`.

As there, each call runs in a process forked for it, whose arguments and results are pickled and whose globals do not
come back; a call without a request is refused, also one for more seconds than are left of the quota; the process is
killed at its deadline, and cannot start processes of its own through `multiprocessing`.
"""

import inspect
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext

QUOTA = "STAND_IN_QUOTA"  # a file that holds the seconds that are left; no file, no end
FACTOR = 1.5
fork = multiprocessing.get_context("fork")


def GPU(task: Callable[..., Iterator[Any]], duration: Callable[..., int]) -> Callable[..., Iterator[Any]]:
    """Return the generator as one that gets the GPU for the seconds that `duration` says for its arguments."""
    assert inspect.isgeneratorfunction(task)

    def lent(*arguments: Any) -> Iterator[Any]:
        if LocalContext.request.get(None) is None:
            raise gr.Error("no request, so nobody's quota", title="ZeroGPU client error")
        seconds = duration(*arguments)
        _spend(FACTOR * seconds)
        yield from _forked(task, arguments, seconds)

    return lent


def _spend(seconds: float) -> None:
    path = Path(os.environ.get(QUOTA, "/nonexistent"))
    if not path.is_file():
        return
    left = float(path.read_text())
    if seconds > left:
        said = f"You have exceeded your free ZeroGPU quota ({seconds:.0f}s requested vs. {left:.0f}s left)."
        raise gr.Error(said, title="ZeroGPU quota exceeded")
    path.write_text(str(left - seconds))


def _forked(task: Callable[..., Iterator[Any]], arguments: tuple[Any, ...], seconds: float) -> Iterator[Any]:
    ours, theirs = fork.Pipe()
    stop = fork.Event()
    process = fork.Process(target=_serve, args=(task, pickle.dumps(arguments), theirs, stop), daemon=True)
    process.start()
    theirs.close()
    deadline = threading.Timer(seconds, process.kill)
    deadline.start()
    try:
        while True:
            try:
                kind, value = pickle.loads(ours.recv_bytes())
            except EOFError:
                raise gr.Error("GPU task aborted", title="ZeroGPU worker error") from None
            if kind == "end":
                return
            if kind == "error":
                raise gr.Error(value, title="ZeroGPU worker error")
            yield value
    finally:  # also where the caller left
        stop.set()
        process.join()
        deadline.cancel()
        ours.close()


def _serve(task: Callable[..., Iterator[Any]], arguments: bytes, to: Any, stop: Any) -> None:
    generator = task(*pickle.loads(arguments))
    try:
        for value in generator:
            if stop.is_set():
                generator.close()  # type: ignore[attr-defined]
                break
            to.send_bytes(pickle.dumps(("value", value)))
        to.send_bytes(pickle.dumps(("end", None)))
    except Exception as error:
        to.send_bytes(pickle.dumps(("error", type(error).__name__)))
