"""Killing a process at a random instant: work runs in a fork of this one, which has everything imported."""

import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any


@dataclass(frozen=True)
class Blow:
    """When a process dies: after some seconds, or when it writes past a byte of any file, which then ends there."""

    seconds: float | None = None
    byte: int | None = None

    @classmethod
    def random(cls, rng: Random, seconds: float, size: int) -> "Blow":
        """By time within the seconds that the work takes, or by byte, every other one within the first two thousand."""
        if rng.random() < 0.5:
            return cls(seconds=rng.uniform(0, seconds))
        return cls(byte=rng.randint(1, rng.choice([2000, size])))


def survives(work: Callable[[], Any], blow: Blow | None, log: Path) -> bool:
    """Run work in another process and kill it; return whether it was faster. Raises AssertionError when it failed."""
    child = os.fork()
    if child == 0:
        _child(work, blow, log)
    if blow is not None and blow.seconds is not None:
        end = time.monotonic() + blow.seconds
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return _checked(status, log)
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    return _checked(os.waitpid(child, 0)[1], log)


def _checked(status: int, log: Path) -> bool:
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXFSZ), log.read_text()
        return False
    assert os.WEXITSTATUS(status) == 0, log.read_text()
    return True


def _child(work: Callable[[], Any], blow: Blow | None, log: Path) -> None:
    status = 1
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if blow is not None and blow.byte is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (blow.byte, resource.RLIM_INFINITY))
        status = int(work() or 0)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)
