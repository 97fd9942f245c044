"""python -m tests.app.soak: fifty visitors for two minutes on a hosted server, loopback alone; prints the figures.

Each visitor comes from an address of its own, opens the page, starts short runs one after another
as far as the queue lets it, follows them with a cursor, and checks that what comes back is its own. Every tenth
sends what an attacker would. The page's answers and the memory of the server and its children are watched.
`--seconds` and `--visitors` make it smaller; the page is held to `--freeze` seconds, 1 by default.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.jobs.limits import HOSTED
from tests.support.attack import Sender, Watch
from tests.support.server import serve

STEPS = 8
THINKING = 5.0  # seconds at most between two things that a visitor does
ATTACKS: tuple[Any, ...] = (
    {"subspace": r"^(([a-z0-9_]+)[._]?)+!$"}, {"batch_size": 100_000}, {"directions": 100_000}, [1, 2], None,
    {"steps": 5000, "batch_size": 64}, {"model": "/etc"}, {"allow_pickle": True}, {"template": "{" * 5000},
)  # fmt: skip


@dataclass
class Tally:
    """What one visitor saw."""

    number: int
    finished: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where this visitor comes from."""
        return f"10.20.{self.number // 250}.{self.number % 250 + 1}"


def visit(tally: Tally, send: Sender, end: float) -> None:
    """Start runs until the time is over, and follow each to its end."""
    draw, secret = random.Random(tally.number), ""
    send.page()
    while time.monotonic() < end:
        try:
            secret = _once(tally, send, end, draw, secret)
        except OSError as error:
            tally.problems.append(f"visitor {tally.number} got no answer: {error}")
            return


def _once(tally: Tally, send: Sender, end: float, draw: random.Random, secret: str) -> str:
    """Open the page and start a run, or send an attack; return the secret that the server gave."""
    time.sleep(draw.uniform(1, THINKING))
    if tally.number % 10 == 9:
        answer = send.call("start", draw.choice(ATTACKS), "", origin=tally.address)
        if "job" in answer:  # what was small enough to be taken
            send.call("stop", answer["job"], answer["visitor"], origin=tally.address)
        return secret
    seed, began = 1000 * tally.number + tally.finished, time.monotonic()
    settings = {"steps": STEPS, "seed": seed, "eval_examples": 10}
    run = send.call("start", settings, secret, origin=tally.address)
    if "job" not in run:
        tally.refused += 1
        return secret
    if follow(tally, send, run["job"], seed, end + 120):
        tally.waits.append(time.monotonic() - began)
    return str(run["visitor"])


def follow(tally: Tally, send: Sender, job: str, seed: int, end: float) -> bool:
    """Follow a run to its end and note what is wrong with it; False when it did not end in time."""
    events: list[dict[str, Any]] = []
    over = False
    while not over and time.monotonic() < end:
        over = send.call("status", job, origin=tally.address).get("over", False)
        events += send.call("events", job, len(events), origin=tally.address)
        time.sleep(0.8)
    if not over:
        tally.problems.append(f"a run of visitor {tally.number} did not end")
        return False
    seeds = {event["config"]["seed"] for event in events if event["event"] == "RunStarted"}
    steps = [event["step"] for event in events if event["event"] == "StepDone"]
    if seeds != {seed} or steps != list(range(1, STEPS + 1)):
        tally.problems.append(f"visitor {tally.number} asked for seed {seed} and saw {seeds} and the steps {steps}")
    tally.finished += 1
    return True


def main() -> int:
    """Run the soak; 0 when nothing was lost, mixed up or frozen."""
    parser = argparse.ArgumentParser(prog="python -m tests.app.soak")
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--freeze", type=float, default=1.0, help="seconds within which the page answers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server, address = serve(Path(folder) / "runs", "--hosted")
        try:
            faults = soak(server.pid, Sender(address, 30.0), options.visitors, options.seconds, options.freeze)
        finally:
            server.terminate()
            server.wait(timeout=30)
        log = (Path(folder) / "server.log").read_text()
        traces = log.count("Traceback")
    print(f"tracebacks in the log: {traces}\n{log[-2000:] if traces else ''}")
    return int(faults or traces > 0)


def soak(pid: int, send: Sender, visitors: int, seconds: float, freeze: float) -> bool:
    """Let the visitors in and print the figures; true when something was wrong."""
    end = time.monotonic() + seconds
    tallies = [Tally(number) for number in range(visitors)]
    threads = [threading.Thread(target=visit, args=(tally, send, end)) for tally in tallies]
    with Watch(send, pid) as watch:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    problems = [problem for tally in tallies for problem in tally.problems]
    waits = sorted(wait for tally in tallies for wait in tally.waits) or [float("nan")]
    print(
        f"{visitors} visitors for {seconds:.0f} s: {sum(tally.finished for tally in tallies)} runs finished, ", end=""
    )
    print(f"{sum(tally.refused for tally in tallies)} starts refused as the queue was full")
    print(f"seconds from start to end of a run: median {waits[len(waits) // 2]:.1f}, longest {waits[-1]:.1f}")
    print(watch.figures())
    print("\n".join(problems) or "no run lost, no events mixed up")
    slow = max(watch.waits, default=0.0) > freeze
    large = watch.child_bytes > 1.1 * HOSTED.memory
    return bool(problems) or slow or large


if __name__ == "__main__":
    sys.exit(main())
