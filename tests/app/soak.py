"""python -m tests.app.soak: eight visitors at once for three minutes on loopback; prints figures for a closing note.

Each visitor starts short runs one after another through the page's endpoints, follows them with a cursor, and
checks that what comes back is its own. The server's memory is read while it works and after.
"""

import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradio_client import Client

from tests.support.server import serve

VISITORS, SECONDS, STEPS = 8, 180.0, 12


@dataclass
class Tally:
    """What one visitor saw."""

    number: int
    finished: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


def visit(tally: Tally, address: str, end: float) -> None:
    """Start runs until the time is over, and follow each to its end."""
    lab, secret = Client(address, verbose=False), ""
    while time.monotonic() < end:
        seed = 1000 * tally.number + tally.finished
        started = time.monotonic()
        try:
            run = lab.predict({"steps": STEPS, "seed": seed, "eval_examples": 20}, secret, api_name="/start")
        except Exception:
            tally.refused += 1
            time.sleep(1)
            continue
        secret = run["visitor"]
        events = follow(lab, run["job"])
        tally.waits.append(time.monotonic() - started)
        check(tally, events, seed)


def follow(lab: Client, job: str) -> list[dict[str, Any]]:
    """Return all events of a run, fetched with a cursor."""
    events: list[dict[str, Any]] = []
    cursor, over = 0, False
    while not over:
        over = lab.predict(job, api_name="/status")["over"]
        found, cursor = lab.predict(job, cursor, api_name="/events")
        events += found
        time.sleep(0.7)
    return events


def check(tally: Tally, events: list[dict[str, Any]], seed: int) -> None:
    """Note a lost run, a lost step, or events of somebody else's run."""
    seeds = {event["config"]["seed"] for event in events if event["event"] == "RunStarted"}
    steps = [event["step"] for event in events if event["event"] == "StepDone"]
    if seeds != {seed}:
        tally.problems.append(f"visitor {tally.number} asked for seed {seed} and saw {seeds}")
    if steps != list(range(1, STEPS + 1)):
        tally.problems.append(f"visitor {tally.number} saw the steps {steps}")
    tally.finished += any(event["event"] == "RunEnded" and event["status"] == "finished" for event in events)


def resident(pid: int) -> float:
    """Return a process's resident memory in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> int:
    """Run the soak; 0 when nothing was lost or mixed up."""
    with tempfile.TemporaryDirectory() as folder:
        server, address = serve(Path(folder) / "runs", "--hosted")
        try:
            return soak(server.pid, address)
        finally:
            server.terminate()
            server.wait(timeout=30)


def soak(pid: int, address: str) -> int:
    """Let the visitors in and print the figures."""
    end = time.monotonic() + SECONDS
    tallies = [Tally(number) for number in range(VISITORS)]
    threads = [threading.Thread(target=visit, args=(tally, address, end)) for tally in tallies]
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        memory.append(resident(pid))
        time.sleep(5)
    time.sleep(10)
    half = len(memory) // 2
    problems = [problem for tally in tallies for problem in tally.problems]
    waits = sorted(wait for tally in tallies for wait in tally.waits)
    print(f"runs finished {sum(t.finished for t in tallies)}, refused starts {sum(t.refused for t in tallies)}")
    if not waits:
        print("no run came to its end")
        return 1
    print(f"seconds from start to end of a run: median {waits[len(waits) // 2]:.1f}, longest {waits[-1]:.1f}")
    print(f"server memory in MB: halfway {memory[half]:.0f}, highest {max(memory):.0f}, after {resident(pid):.0f}")
    print("\n".join(problems) or "no run lost, no events mixed up")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
