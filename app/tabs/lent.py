"""What a GPU that is lent by the call adds to the Play tab: its slices, what they cost, and going on without it."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.form import data_form
from app.form.starting import Guest
from app.jobs.store import JobStore
from app.quiet import QUIET
from app.tabs.live import Drawn
from app.tabs.play import Handlers, tick_outputs
from app.tabs.tab import Site
from zocore.errors import InputError

SLICES: dict[str, Any] = QUIET | {"queue": True, "concurrency_id": "lent"}


def connect(site: Site) -> None:
    """Have the slices of the run shown done while the page is open; nothing on a server that lends no GPU."""
    play, store = site.play, site.store
    if store.lend is None:
        return
    buttons, side = play.stop.parent, play.problem.parent
    assert buttons is not None and side is not None
    with buttons:
        cpu = gr.Button("Go on, on the CPU", visible=False, elem_id="zo-on-cpu", min_width=100)
    with side:
        note = gr.HTML("", elem_id="zo-slices")
    where = [site.visitor, play.job]
    turned = play.panel.spoken.change  # the status changes with the phase
    turned(_driver(store), where, note, **SLICES, concurrency_limit=store.limits.waiting)
    turned(lambda job: gr.update(visible=_paused(store, job)), play.job, cpu, **QUIET)
    handlers = Handlers(store, play.form)
    resumed = cpu.click(_resumer(store), where, [play.problem, play.drawn], **QUIET)
    resumed.then(handlers.tick, [play.job, play.drawn, *play.panel.look], tick_outputs(play), **QUIET)


def _driver(store: JobStore) -> Any:
    def drive(visitor: str, job: str) -> Iterator[Any]:
        try:
            for message in store.drive(job, visitor):
                yield f"<p class='zo-quiet'>{message}</p>"
        except InputError:  # another page drives it, or there is nothing to drive
            yield gr.skip()
            return
        yield ""

    return drive


def _resumer(store: JobStore) -> Any:
    def resume(visitor: str, job: str, request: gr.Request) -> tuple[Any, Any]:
        try:
            store.resume(job, visitor, Guest.of(store, visitor, request).address, cpu=True)
        except InputError as error:
            return data_form.error(str(error)), gr.skip()
        return "", Drawn()

    return resume


def _paused(store: JobStore, job_id: str) -> bool:
    job = store.find(job_id)
    return job is not None and job.phase == "paused"
