"""Named endpoints for programs: `gradio_client` can start a run, follow it with a cursor, stop it and fetch the result.

from gradio_client import Client
lab = Client("http://127.0.0.1:7860")
run = lab.predict({"method": "mezo", "steps": 50}, "", api_name="/start")
cursor = 0
while not (status := lab.predict(run["job"], api_name="/status"))["over"]:
    events, cursor = lab.predict(run["job"], cursor, api_name="/events")
print(lab.predict(run["job"], api_name="/result"))
"""

import json
import secrets
from dataclasses import asdict
from typing import Any

import gradio as gr

from app import words
from app.form import controls, cost, forms
from app.jobs.job import Job
from app.jobs.store import JobStore
from zocore.config import RunConfig

MOST_EVENTS = 500  # in one answer


def add(store: JobStore) -> None:
    """Add the endpoints to the page being built."""

    def start(settings: dict[str, Any], visitor: str) -> dict[str, str]:
        """Start a run of these settings; keep `visitor`, a secret, to stop it. An empty one gets a new one."""
        visitor = visitor or secrets.token_urlsafe(16)
        job = _said(lambda: store.start(visitor, [_config(settings, store)]))
        return {"job": job.id, "visitor": visitor}

    def status(job: str) -> dict[str, Any]:
        """Where a run is, in words and numbers."""
        found: Job = _said(lambda: store.get(job))
        view, position = found.lane.view, store.position(found)
        told = {"phase": found.phase, "over": found.over, "position": position, "words": words.status(found, position)}
        return told | {"steps": view.steps, "planned": view.planned, "forward_passes": view.place.forwards}

    def events(job: str, since: int) -> tuple[list[dict[str, Any]], int]:
        """The events from a cursor on, at most 500, and the next cursor."""
        found, _ = _said(lambda: store.events(job, int(since)))
        kept = found[:MOST_EVENTS]
        return [_plain(lane, event) for lane, event in kept], max(0, int(since)) + len(kept)

    def stop(job: str, visitor: str) -> str:
        """Stop one's own run after its step."""
        _said(lambda: store.stop(job, visitor))
        return "stops after this step"

    def result(job: str) -> dict[str, Any]:
        """What a run came to: its end, and the test accuracy and loss before and after."""
        view = _said(lambda: store.get(job)).lane.view
        tests = [asdict(m.event) for m in view.evaluations if getattr(m.event, "split", "") == "test"]
        return json.loads(json.dumps({"end": asdict(view.end) if view.end else None, "tests": tests}))

    def price(settings: dict[str, Any]) -> dict[str, Any]:
        """What settings will cost, before they are run."""
        return _said(lambda: cost.facts(cost.cost(_config(settings, store), store.speeds)))

    for function in (start, status, events, stop, result, price):
        gr.api(  # type: ignore[attr-defined]
            function, api_name=function.__name__, queue=False
        )


def _config(settings: dict[str, Any], store: JobStore) -> RunConfig:
    """Settings from outside: known names, and no file or folder of a hosted server."""
    config = forms.with_presets(RunConfig.from_json(settings))
    if config.data and not store.limits.folders:
        raise ValueError("this server takes data by upload on its page, not by a path")
    controls.guard(config, store.limits)
    return config


def _plain(lane: int, event: Any) -> dict[str, Any]:
    return {"lane": lane} | json.loads(event.to_json(), parse_constant=str)


def _said(act: Any) -> Any:
    """Do it, and hand a problem on as the sentence it is."""
    try:
        return act()
    except (ValueError, TypeError) as error:
        raise gr.Error(str(error), print_exception=False) from None
