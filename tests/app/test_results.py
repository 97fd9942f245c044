"""A run as a link: its tags and picture, the list of one's own runs, and in what runs differ."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app import results
from app.jobs.job import Job, new_job
from app.jobs.limits import Limits
from app.jobs.store import JobStore
from app.preview import Preview
from app.tabs import runs
from tests.support.coroutines import finish
from tests.support.places import RECORDED
from tests.support.thread_child import launcher
from zocore.config import RunConfig
from zocore.runs.events import Event
from zocore.runs.loop import run

HTML = """<!doctype html><head><meta property="og:title" content="Gradio" />
<meta name="twitter:creator"
 content="@Gradio" /></head>"""


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = JobStore(tmp_path, Limits(), launch=launcher(run))
    yield made
    made.close()


def finished(store: JobStore, visitor: str, **settings: Any) -> Job:
    job = new_job(store.root, visitor, [RunConfig(method="mezo", task="topic", **settings)], "run")
    for line in RECORDED.read_text().splitlines():
        job.add(0, Event.from_json(line))
    job.turn("finished")
    store.jobs[job.id] = job
    return job


def ask(store: JobStore, path: str = "/", query: str = "") -> tuple[int, bytes]:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": HTML.encode()})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}
    scope["headers"] = [(b"host", b"lab.example"), (b"x-forwarded-proto", b"https")]
    finish(Preview(page, store)(scope, None, send))  # type: ignore[arg-type]
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()
    return sent[0]["status"], sent[1]["body"]


def test_a_link_to_a_run_has_its_title_result_and_picture(store: JobStore) -> None:
    job = finished(store, "ann")
    plain = ask(store)[1].decode()
    assert "ZO Lab" in plain and "Gradio" not in plain and "og:image" not in plain
    tagged = ask(store, query=f"run={job.id}")[1].decode()
    assert "MeZO on topic" in tagged and "forward passes" in tagged
    assert f"https://lab.example/card/{job.id}.png" in tagged
    status, picture = ask(store, f"/card/{job.id}.png")
    drawn = Image.open(io.BytesIO(picture))
    assert status == 200 and drawn.size == (1200, 630) and len(picture) < 100_000
    colours = drawn.convert("RGB").getcolors(1 << 24)
    assert colours and len(colours) > 3


def test_a_link_to_no_run_is_the_page_and_no_picture(store: JobStore) -> None:
    assert b"og:image" not in ask(store, query="run=../../etc")[1]
    assert ask(store, "/card/nothing.png")[0] == 404


def test_a_title_from_outside_stays_text(store: JobStore) -> None:
    job = finished(store, "ann", model='x"><script>alert(1)</script>')
    assert b"<script>" not in ask(store, query=f"run={job.id}")[1]


def test_ones_own_runs_are_listed_and_nobody_elses(store: JobStore) -> None:
    mine = [finished(store, "ann"), finished(store, "ann", lr=1e-3)]
    finished(store, "bob")
    assert {job.id for job in runs.shown(store, "ann")} == {job.id for job in mine}
    assert "MeZO on topic · test accuracy" in runs.label(mine[0])


def test_only_what_differs_is_listed() -> None:
    base = RunConfig(method="mezo", lr=1e-3)
    rows = dict(results.differences([base, replace(base, lr=3e-3, data="/secret/place/mine.csv")]))
    assert rows == {"lr": ["0.001", "0.003"], "data": ["preset", "mine.csv"]}


def test_runs_laid_over_one_another_are_told_apart(store: JobStore) -> None:
    jobs = [finished(store, "ann"), finished(store, "ann", seed=1)]
    traces = runs.overlay(jobs, "cost")["data"]
    assert len({trace["line"]["dash"] for trace in traces}) == 2 and [trace["name"][0] for trace in traces] == [
        "A",
        "B",
    ]
    table = runs.compared(jobs)
    assert f"?run={jobs[1].id}" in table and "seed" in table and ">1<" in table
    assert "none before" in runs.compared([])
