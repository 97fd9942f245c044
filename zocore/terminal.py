"""Words to a terminal, a file or a pipe: whatever becomes of them, the work they tell of goes on."""

import io
import os
import sys
from contextlib import suppress
from typing import Any


class Output:
    """A stream that cannot stop a run: what it cannot show is escaped, and once it is gone it stays silent."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream  # None where the process was started without one
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> None:
        """Write and flush, where somebody still reads."""
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a pipe nobody reads, a full disk, a terminal that was closed
            self._give_up()

    def flush(self) -> None:
        """Every write is flushed already."""

    def isatty(self) -> bool:
        """Return whether a person sees the stream as it is written."""
        return self._stream is not None and bool(self._stream.isatty())

    def _give_up(self) -> None:
        """Lead what is still buffered nowhere, or the interpreter would complain of it at its end."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        self._stream = None


def say(text: str) -> None:
    """Write a line to standard output."""
    Output(sys.stdout).write(f"{text}\n")


def complain(text: str) -> None:
    """Write a line to standard error."""
    Output(sys.stderr).write(f"{text}\n")


def is_text(word: str) -> bool:
    """Return whether an argument was valid in the system's encoding: bytes that are not become half characters."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
