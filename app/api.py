"""Named endpoints for programs: `gradio_client` can start a run, follow it with a cursor, stop it and fetch the result.

from gradio_client import Client
lab = Client("http://127.0.0.1:7860")
run = lab.predict({"method": "mezo", "steps": 50}, "", api_name="/start")
cursor, over = 0, False
while not over:
    over = lab.predict(run["job"], api_name="/status")["over"]
    events, cursor = lab.predict(run["job"], cursor, api_name="/events")  # once more after the end: nothing is missed
print(lab.predict(run["job"], api_name="/result"))
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, TypeVar

import gradio as gr

from app import words
from app.form import cost, cost_card, forms, guard
from app.form.starting import Guest, begin
from app.jobs.store import JobStore
from zocore.config import RunConfig
from zocore.errors import InputError

Found = TypeVar("Found")
MOST_EVENTS = 500  # in one answer


def add(store: JobStore) -> None:
    """Add the endpoints to the page being built."""

    def start(settings: dict[str, Any], visitor: str, request: gr.Request) -> dict[str, str]:
        """Start a run of these settings, named as the options of `zocore train`.

        Keep `visitor`, a secret, to stop it. One not issued here gets a new one. `{"auto_lr": true}` without `lr` has
        the run find its learning rate by a short range test.
        """
        guest = Guest.of(store, visitor, request)
        job = _or_sentence(lambda: begin(store, guest, [_config(settings, store)]))
        return {"job": job.id, "visitor": guest.secret}

    def status(job: str) -> dict[str, Any]:
        """Where a run is, in words and numbers."""
        run = _or_sentence(lambda: store.get(job))
        view, position = run.lane.view, store.position(run)
        line = words.status(run, position, store.wait(run))
        state = {"phase": run.phase, "over": run.over, "position": position, "words": line}
        return state | {"steps": view.steps, "planned": view.planned, "forward_passes": view.place.forwards}

    def events(job: str, since: int) -> tuple[list[dict[str, Any]], int]:
        """The events from a cursor on, at most 500, and the next cursor."""
        start = _or_sentence(lambda: max(0, int(since)))
        news, _ = _or_sentence(lambda: store.events(job, start))
        kept = news[:MOST_EVENTS]
        return [_plain(lane, event) for lane, event in kept], start + len(kept)

    def stop(job: str, visitor: str) -> str:
        """Stop one's own run after its step."""
        _or_sentence(lambda: store.stop(job, visitor))
        return "stops after this step"

    def result(job: str) -> dict[str, Any]:
        """What a run came to: its end, and the test accuracy and loss before and after."""
        view = _or_sentence(lambda: store.get(job)).lane.view
        tests = [asdict(m.event) for m in view.evaluations if getattr(m.event, "split", "") == "test"]
        return json.loads(json.dumps({"end": asdict(view.end) if view.end else None, "tests": tests}))

    def price(settings: dict[str, Any]) -> dict[str, Any]:
        """What settings will cost, before they are run."""
        return _or_sentence(lambda: cost_card.facts(cost.cost(_config(settings, store), store.speeds)))

    def drive(job: str, visitor: str) -> Iterator[str]:
        """Have one's own run done on the GPU that is lent by the call; it is paused when this call is left."""
        _or_sentence(lambda: store.mine(job, visitor))
        try:
            yield from store.drive(job, visitor)
        except InputError as error:
            raise _refusal(error) from None
        yield words.status(store.get(job), 0)

    def resume(job: str, visitor: str, cpu: bool, request: gr.Request) -> str:
        """Let one's own paused, stopped or interrupted run go on, on the CPU or where it was."""
        guest = Guest.of(store, visitor, request)
        return words.status(_or_sentence(lambda: store.resume(job, visitor, guest.address, cpu is True)), 0)

    if store.lend is not None:
        gr.api(  # type: ignore[attr-defined]
            drive, api_name="drive", concurrency_id="lent", concurrency_limit=store.limits.waiting
        )
    for function in (start, status, events, stop, resume, result, price):
        gr.api(  # type: ignore[attr-defined]
            function, api_name=function.__name__, queue=False
        )


def _config(settings: object, store: JobStore) -> RunConfig:
    """Settings from outside: known names, and on a hosted server no file, folder, pickle or huge number."""
    config = guard.checked(guard.settings(settings, store.limits), store.limits, store.root / "uploads")
    return forms.with_presets(config)


def _plain(lane: int, event: Any) -> dict[str, Any]:
    return {"lane": lane} | json.loads(event.to_json(), parse_constant=str)


def _or_sentence(act: Callable[[], Found]) -> Found:
    """Do it, and hand a problem on as the sentence it is."""
    try:
        return act()
    except (ValueError, TypeError, OverflowError, OSError) as error:
        raise _refusal(error) from None


def _refusal(error: Exception) -> gr.Error:
    """The sentence of a problem; half characters that came with a request cannot be sent back."""
    return gr.Error(str(error).encode("utf-8", "replace").decode(), print_exception=False)
