"""A hosted server under attack: a real one on loopback, requests of every bad kind, and a visitor who is not harmed."""

import http.client
import json
import os
import random
import string
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from app.jobs.limits import BOUNDS, HOSTED
from tests.support.attack import Sender, Watch
from tests.support.server import serve
from zocore.config import RunConfig

pytestmark = pytest.mark.slow

SETTINGS = int(os.environ.get("ZOCORE_ATTACKS", "1000"))
UPLOADS = int(os.environ.get("ZOCORE_UPLOADS", "300"))
WHOLE = [name for name, kind in get_type_hints(RunConfig).items() if int in (get_args(kind) or (kind,))]
# what every request passes through stands in the tracebacks of the framework's own refusals
LAYERS = ("/app/door.py", "/app/preview.py", "/app/front.py", "/site-packages/")
FREEZE = 5.0  # seconds; the machine of the tests may be busy: the soak holds the page to 1 s
SERVER_BYTES = 2_500_000_000  # what the page's own process may hold


class Hosted:
    """A server, what it wrote, and a way to send it requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server, self.address = serve(folder / "runs", "--hosted")
        self.send = Sender(self.address)
        self.watch = Watch(self.send, self.server.pid)

    def close(self) -> None:
        self.server.terminate()
        self.server.wait(timeout=30)

    def faults(self) -> list[str]:
        """Tracebacks in the log, and lines of ours in those that were kept apart."""
        log = (self.folder / "server.log").read_text()
        kept = self.folder / "runs" / "errors.log"
        ours = [line for line in kept.read_text().splitlines() if "/app/" in line] if kept.exists() else []
        return [line for line in log.splitlines() if "Traceback" in line] + [
            line for line in ours if not any(layer in line for layer in LAYERS)
        ]


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    made = Hosted(tmp_path_factory.mktemp("attacked"))
    with made.watch:
        yield made
    print("\n" + made.watch.figures())
    made.close()


@pytest.fixture(autouse=True)
def unharmed(hosted: Hosted) -> Iterator[None]:
    """Through every attack the page answers, memory stays below its cap, and no traceback is written."""
    yield
    watch = hosted.watch
    assert max(watch.waits, default=0.0) < FREEZE, watch.figures()
    assert watch.server_bytes < SERVER_BYTES and watch.child_bytes < 1.1 * HOSTED.memory, watch.figures()
    assert hosted.faults() == []


def until_over(hosted: Hosted, job: str, seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (status := hosted.send.call("status", job))["over"]:
        assert time.monotonic() < end, status
        time.sleep(0.2)
    return status


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"subspace": r"^(([a-z0-9_]+)[._]?)+!$"}, "no regular expression"),
        ({"subspace": "(a+)+$"}, "no regular expression"),
        ({"batch_size": 100_000}, "from 1 to 64"),
        ({"method": "mezo-gv", "pool": 100_000}, "from 1 to 16"),
        ({"method": "n-spsa", "directions": 100_000}, "from 1 to 32"),
        ({"eval_examples": 10**9}, "from 1 to 1000"),
        ({"steps": 5000, "eval_every": 1, "eval_examples": 1000}, "the work that a run may take"),
        ({"steps": 5000, "batch_size": 64, "method": "n-spsa", "directions": 32}, "the work that a run may take"),
        ({"allow_pickle": True}, "safetensors only"),
        (
            {"auto_lr": True, "steps": 90, "batch_size": 64, "method": "n-spsa", "directions": 32},
            "the work that a run may take",
        ),
        ({"task": "boolq"}, "takes the tasks"),
        ({"data": "/etc/passwd"}, "by upload"),
        ({"objective": "reward", "reward": "/etc/passwd:root", "method": "fzoo"}, "runs no code of its visitors"),
        ({"objective": "reward", "reward": "rewards.py:f", "method": "fzoo"}, "runs no code of its visitors"),
        ({"objective": "reward", "reward": "says=" + "x" * 500, "method": "fzoo"}, "needs a word"),
        ({"objective": "reward", "reward": "short", "method": "fzoo", "max_new_tokens": 10**6}, "from 1 to 64"),
        ({"objective": "reward", "reward": "short", "method": "fzoo", "max_new_tokens": 64, "steps": 5000}, "the work"),
        ({"objective": "reward", "reward": "short", "method": "fzoo", "temperature": 1e9}, "from 0 to 10"),
        ({"objective": "lm", "method": "mezo", "metric": "f1", "max_new_tokens": 64, "eval_examples": 10**6}, "1000"),
        ({"objective": "accuracy"}, "take --method fzoo"),
        ({"objective": "sabotage"}, "must be one of"),
        ({"objective": "reward"}, "go together"),
        ({"model": "/etc"}, "by hub id"),
        ({"model": "nobody/unheard-of"}, "models of its list"),
        ({"model": "meta-llama/Meta-Llama-3-8B"}, ""),
        ([1, 2], "an object of names and values"),
        (None, "an object of names and values"),
        ("steps", "an object of names and values"),
        ({"steps": {"a": [1, 2]}}, "wrong type"),
        ({"steps": True}, "wrong type"),
        ({"template": "x" * 10_000}, "over the limit of 2000"),
    ],
)
def test_what_no_stranger_may_ask_is_refused_in_one_sentence(hosted: Hosted, settings: Any, sentence: str) -> None:
    """The requests that froze a server, filled its memory, or left a traceback."""
    answer = hosted.send.call("start", settings, "", origin=f"198.51.100.{random.randrange(2, 250)}")
    assert sentence in answer["error"] and "\n" not in answer["error"], answer


@pytest.mark.parametrize("name", BOUNDS)
def test_every_number_has_a_largest_value(hosted: Hosted, name: str) -> None:
    """Beyond it a sentence names the field and its bounds."""
    low, high = BOUNDS[name]
    value: float = 10 * high + 1
    answer = hosted.send.call("price", {name: value if low < 1 and name not in WHOLE else int(value)})
    assert name.replace("_", "-") in answer["error"] or name in answer["error"]


def test_one_address_cannot_take_every_place(hosted: Hosted) -> None:
    """New secrets do not make new visitors without end; an address that did nothing still gets in."""
    started, refused = [], []
    for _ in range(8):
        answer = hosted.send.call("start", {"steps": 2000}, "", origin="203.0.113.5")
        (started if "job" in answer else refused).append(answer)
    assert len(started) == HOSTED.places
    assert all("from your address" in one["error"] for one in refused)
    assert len({one["visitor"] for one in started}) == len(started)
    other = hosted.send.call("start", {"steps": 5}, "made up", origin="203.0.113.6")
    assert other["visitor"] != "made up"
    for one in started:
        began = time.monotonic()
        hosted.send.call("stop", one["job"], one["visitor"], origin="203.0.113.5")
        until_over(hosted, one["job"])
        assert time.monotonic() - began < 3 * HOSTED.grace + FREEZE
    assert until_over(hosted, other["job"])["phase"] == "finished"


def test_the_largest_run_that_is_taken_can_be_stopped(hosted: Hosted) -> None:
    """A batch of 64 with every text cut at 512 tokens is work for minutes; a stop ends it within seconds."""
    settings = {"steps": 50, "batch_size": 64, "max_tokens": 512, "method": "n-spsa", "directions": 32}
    run = hosted.send.call("start", settings | {"eval_examples": 1000}, "", origin="203.0.113.9")
    while hosted.send.call("status", run["job"])["phase"] not in ("loading", "running"):
        time.sleep(0.2)
    time.sleep(1)
    hosted.send.call("stop", run["job"], run["visitor"])
    began = time.monotonic()
    assert until_over(hosted, run["job"])["phase"] == "stopped"
    assert time.monotonic() - began < HOSTED.grace + FREEZE


def any_value(draw: random.Random) -> Any:
    """Return a value of any kind."""
    text = "".join(draw.choices(string.printable + "é中\0\ud800", k=draw.randrange(12)))
    number = draw.choice([0, 1, -1, 2, 7, 64, 10**6, 2**63, -(10**20), 0.5, 1e-320, 1e308, float("nan"), float("inf")])
    words = [
        "auto",
        "all",
        "lora",
        "scales",
        "adam",
        "bf16",
        "cuda",
        "mezo",
        "grzo",
        "topic",
        "bundled",
        "nf4",
        "*.*.*",
    ]
    return draw.choice([text, number, draw.choice(words), None, True, [number], {"a": number}])


def any_settings(draw: random.Random) -> Any:
    """Return settings of known and unknown names, mostly wrong; sometimes no settings at all."""
    if draw.random() < 0.05:
        return any_value(draw)
    names = [*RunConfig.__dataclass_fields__, "nothing", ""]
    return {draw.choice(names): any_value(draw) for _ in range(draw.randrange(1, 5))}


def test_random_settings_get_an_answer_each(hosted: Hosted) -> None:
    """Each is priced or started, or refused in one sentence."""
    draw = random.Random(0)
    for number in range(SETTINGS):
        settings, origin = any_settings(draw), f"10.{number % 250}.{draw.randrange(250)}.7"
        answer = hosted.send.call("start" if number % 10 == 0 else "price", settings, "", origin=origin)
        if "error" in answer:
            assert isinstance(answer["error"], str) and "\n" not in answer["error"], (settings, answer)
        elif "job" in answer:
            hosted.send.call("stop", answer["job"], answer["visitor"])


def any_file(draw: random.Random) -> tuple[str, bytes]:
    """Return a file that may be a table, a broken one, or nothing of the kind."""
    suffix = draw.choice([".csv", ".tsv", ".jsonl", ".ndjson", ".txt", "", ".csv.gz"])
    rows = draw.randrange(0, 400)
    kinds = [
        draw.randbytes(draw.randrange(0, 20_000)),
        "\n".join(["text,label", *(f"word {i},{draw.choice('ab')}" for i in range(rows))]).encode(),
        "\n".join(json.dumps({"text": f"word {i}", "label": draw.choice("ab")}) for i in range(rows)).encode(),
        b"text,label\n" + b'"' * draw.randrange(0, 5000),
        b"[" * draw.randrange(0, 50_000),
        b"{" + b'"a":{' * draw.randrange(0, 20_000),
        b",".join(b"c%d" % i for i in range(draw.randrange(0, 5000))) + b"\n1,2\n",
        b"\xef\xbb\xbftext\tlabel\r\n" + b"a\tb\r\n" * rows,
        b"PK\x03\x04" + draw.randbytes(100),
        b"x" * draw.randrange(0, 300_000),
    ]
    return "any" + suffix, draw.choice(kinds)


def test_random_uploads_get_an_answer_each(hosted: Hosted) -> None:
    """Each is understood as a table, or refused in one sentence beside its control."""
    draw = random.Random(1)
    number, inputs = hosted.send.event("zo-file", "change")
    assert inputs == 3
    for count in range(UPLOADS):
        origin = f"10.9.{count % 250}.{draw.randrange(250)}"
        name, content = any_file(draw)
        objective = draw.choice(["loss", "lm", "reward"])
        status, places = hosted.send.upload(name, content, origin)
        assert status in (200, 413), places
        if status == 200:
            file = {"path": places[0], "meta": {"_type": "gradio.FileData"}}
            status, answer = hosted.send.press(number, ["", file, objective], f"session{count}", origin)
            assert status == 200, (name, content[:40], answer)
            shown = answer["data"][0]
            assert "zo-error" in shown or "zo-table" in shown or not content, (name, content[:40], shown)


def test_the_questions_of_other_tabs_answer_whatever_is_sent(hosted: Hosted) -> None:
    """What fits a card, a class's answer, a lesson's link and a run's errors: a value for the page, or a refusal."""
    draw = random.Random(2)
    text = [json.dumps({"model_type": "llama", "num_hidden_layers": 10**9}), "[" * 15_000, "\ud800", "x" * 100_000]
    for element, kind in (
        ("zo-config", "change"),
        ("zo-class-send", "click"),
        ("zo-class-look", "click"),
        ("zo-lesson-link", "click"),
        ("zo-mistakes-look", "click"),
        ("zo-words", "change"),
        ("zo-objective", "input"),
        ("zo-reward", "input"),
        ("zo-recipe", "input"),
        ("zo-task", "input"),
    ):
        number, inputs = hosted.send.event(element, kind)
        for count in range(15):
            data = [draw.choice([*text, any_value(draw)]) for _ in range(inputs)]
            origin = f"10.20.{count}.{draw.randrange(250)}"
            status, answer = hosted.send.press(number, data, f"{element}{count}", origin)
            assert status in (200, 400, 413, 422, 500), (element, data, answer)


def test_junk_at_the_door(hosted: Hosted) -> None:
    """Requests that are no requests, and ones that are too large, are answered and leave nothing in the log."""
    for body in (b"", b"{", b"[]", b'{"data": 1}', b'{"data": []}', b'{"data": [[[[]]]], "fn_index": 10000}'):
        for path in ("run/start", "run/predict", "run/nothing", "queue/join", "call/start"):
            status, _ = hosted.send.post(path, body, "application/json", "198.51.100.9")
            assert status in (200, 400, 404, 405, 422, 500), (path, body)  # a place in the queue is an answer too
    status, answer = hosted.send.post("run/start", b" " * 2_000_000, "application/json", "198.51.100.9")
    assert status == 413 and "1,000,000 bytes" in answer["error"]


def test_who_sends_too_much_slowly_hears_why(hosted: Hosted) -> None:
    """A refusal waits for a request that is still on its way: a connection shut in its face says nothing."""
    host, port = hosted.address.split("/")[2].split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.putrequest("POST", "/gradio_api/run/start")
    for name, value in (
        ("Content-Type", "application/json"),
        ("Content-Length", "3000000"),
        ("X-Forwarded-For", "10.1.1.1"),
        ("Connection", "close"),
    ):
        connection.putheader(name, value)
    connection.endheaders()
    for _ in range(30):
        connection.send(b" " * 100_000)
        time.sleep(0.02)
    answer = connection.getresponse()
    assert answer.status == 413 and "1,000,000 bytes" in json.loads(answer.read())["error"]


def test_a_flood_from_one_address_is_held_back(hosted: Hosted) -> None:
    """More requests than an address may send get a sentence; another address is not held back."""
    answers = [hosted.send.post("upload", b"", "text/plain", "192.0.2.1")[0] for _ in range(HOSTED.uploads + 5)]
    assert answers[-1] == 429 and answers[0] != 429
    assert hosted.send.post("upload", b"", "text/plain", "192.0.2.2")[0] != 429


def test_an_honest_visitor_gets_the_whole_run(hosted: Hosted) -> None:
    """After all of it a run is complete, and its events come once each."""
    run = hosted.send.call("start", {"steps": 20, "seed": 5, "eval_examples": 20}, "", origin="203.0.113.200")
    assert until_over(hosted, run["job"])["phase"] == "finished"
    status, found = hosted.send.post(
        "run/events", json.dumps({"data": [run["job"], 0]}).encode(), "application/json", "203.0.113.200"
    )
    assert status == 200
    events = found["data"][0]
    assert [event["step"] for event in events if event["event"] == "StepDone"] == list(range(1, 21))
    assert events[0]["config"]["seed"] == 5
