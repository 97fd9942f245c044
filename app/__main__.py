"""python -m app: start the server and say where it is."""

import argparse
import os
import threading
from dataclasses import replace
from pathlib import Path

HEAD_START = 4.0  # seconds that the first page has the machine for itself


def main() -> None:
    """Read the options and serve until Ctrl-C."""
    options = _options()
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads of a run would starve the page
    from app.jobs.lent import lender

    lend = lender()  # before anything that wants CUDA
    from starlette.middleware import Middleware

    from app.door import Door
    from app.form import forms
    from app.front import Front
    from app.jobs.limits import HOSTED, Limits
    from app.jobs.store import JobStore
    from app.log import Errors
    from app.page import build
    from app.preview import Preview

    limits = HOSTED if options.hosted else Limits()
    chosen = {"places": options.places, "memory": options.memory and int(options.memory * 1e9)}
    limits = replace(limits, **{name: value for name, value in chosen.items() if value is not None})
    store = JobStore(options.runs, limits, lend=lend)
    errors = Errors(store.root / "errors.log")
    if limits.hosted:
        errors.attach()
    shown, opened = build(store), threading.Event()
    front = Middleware(Front, keep=not options.password)
    preview = Middleware(Preview, store=store)
    doors = [Middleware(Door, limits=limits, errors=errors, opened=opened), preview, front]
    try:
        shown.blocks.queue(default_concurrency_limit=4, max_size=64).launch(
            server_name=options.host,
            server_port=options.port,
            max_file_size=limits.upload_bytes,
            allowed_paths=[str((store.root / "exports").resolve())],
            auth=("zocore", options.password) if options.password else None,
            share=False,
            run_history=False,
            footer_links=[],
            ssr_mode=False,
            prevent_thread_lock=True,
            app_kwargs={"middleware": doors},
            **shown.options,
        )
        opened.set()
        toy = forms.with_presets(forms.PRESETS["toy"])
        warming = threading.Timer(HEAD_START, store.prepare, (toy,))
        warming.daemon = True
        warming.start()
        shown.blocks.block_thread()
    finally:
        store.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app", description="zeroth-order fine-tuning in a browser")
    parser.add_argument("--host", default=os.environ.get("ZOCORE_HOST", "127.0.0.1"), help="address to listen on")
    parser.add_argument(
        "--port", type=int, default=int(os.environ.get("ZOCORE_PORT", "7860")), help="port to listen on"
    )
    parser.add_argument(
        "--password", default=os.environ.get("ZOCORE_PASSWORD"), help="ask for it; the user name is zocore"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path(os.environ.get("ZOCORE_RUNS", "runs/app")), help="folder of the runs"
    )
    hosted = os.environ.get("ZOCORE_HOSTED", "") not in ("", "0")
    parser.add_argument("--hosted", action="store_true", default=hosted, help="limits for a server that strangers use")
    parser.add_argument("--places", type=int, help="runs of one address that wait or run; a class shares an address")
    parser.add_argument("--memory", type=float, help="GB that one run, or one question to a model, may hold")
    return parser.parse_args()


if __name__ == "__main__":
    main()
