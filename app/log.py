"""The log of a hosted server: one line for a request that failed; its traceback goes to a file of its own.

Strangers can send any number of requests that no handler was made for; their tracebacks must not fill the log.
"""

import sys
import traceback
from pathlib import Path
from typing import Any

from gradio import queueing, route_utils, routes

MOST_BYTES = 1_000_000  # of the file; then it starts anew


class Errors:
    """Stands for the module `traceback` where Gradio prints what a handler raised."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def print_exc(self, *_: Any, **__: Any) -> None:
        """Say the kind of the error in one line and keep the rest."""
        kind = sys.exc_info()[0]
        print(f"a request failed: {kind.__name__ if kind else 'error'}; see {self.path}", file=sys.stderr)
        large = self.path.is_file() and self.path.stat().st_size > MOST_BYTES
        with self.path.open("w" if large else "a", encoding="utf-8") as file:
            file.write(traceback.format_exc() + "\n")

    def attach(self) -> None:
        """Take the module's place in Gradio."""
        for module in (routes, queueing, route_utils):
            module.traceback = self  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(traceback, name)
