"""A child of the app that is a thread of this process: the same orders and messages, without the seconds of a start."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress

from app.jobs.child import serve
from app.jobs.lanes import Engine
from app.jobs.process import Child


def launcher(engine: Engine) -> Callable[[], Child]:
    """Return what starts such children, each with this engine."""

    def launch() -> Child:
        orders_out, orders_in = os.pipe()
        messages_out, messages_in = os.pipe()
        orders = os.fdopen(orders_out, encoding="utf-8")
        messages = os.fdopen(messages_in, "w", encoding="utf-8")
        mine = os.fdopen(orders_in, "w", encoding="utf-8")

        def go() -> None:
            with suppress(OSError, ValueError, SystemExit), messages:  # the other end hung up, or the process ends
                serve(orders, messages, engine)

        threading.Thread(target=go, daemon=True).start()
        return Child(mine, os.fdopen(messages_out, encoding="utf-8"), mine.close, os.getpid())

    return launch
