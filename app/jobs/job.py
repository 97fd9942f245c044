"""Jobs: what was started, by whom, how far it is. One place knows; pages only ask it with a cursor.

A job has one lane for each configuration: one for a run, several for a race. Its folder holds `job.json` and one
run folder for each lane, written as the run goes, so a job survives the server.
"""

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.jobs.view import View
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.runs.events import Event, RunStarted, StepDone
from zocore.runs.recording import EVENTS, examine

OVER = ("finished", "stopped", "failed", "interrupted", "paused")


@dataclass
class Lane:
    """One run of a job."""

    config: RunConfig
    folder: Path
    events: list[Event] = field(default_factory=list)
    view: View = field(default_factory=View)
    problem: str = ""  # why it dropped out of a race

    def add(self, event: Event) -> None:
        """Take in one event."""
        self.events.append(event)
        self.view = self.view.apply(event)

    def load(self) -> None:
        """Read what is good of what the folder holds, nothing when the run never started."""
        try:
            self.events = [light(event) for event in examine(self.folder).events]
        except InputError:
            self.events = []
        self.view = View.of(self.events)

    @property
    def started(self) -> bool:
        """Whether the folder holds the header of a run, from which it can go on."""
        return any(isinstance(event, RunStarted) for event in self.events)


def light(event: Event) -> Event:
    """The event without what only a replay needs, as a child sends it."""
    return replace(event, touched=None, responses=None) if isinstance(event, StepDone) else event


@dataclass
class Job:
    """What one visitor started. `id` opens it for reading, `owner` (a secret of the visitor) for stopping."""

    id: str
    owner: str  # SHA-256 of the visitor's secret
    folder: Path
    lanes: list[Lane]
    kind: str = "run"
    phase: str = "queued"
    reason: str = ""
    created: float = field(default_factory=time.time)
    seen: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)
    stopped_by: str = ""
    resumed: bool = False
    lent: bool = False  # done in slices on a GPU that is lent by the call
    driven: bool = False  # somebody is having its slices done
    log: list[tuple[int, Event]] = field(default_factory=list)
    forgotten: bool = False  # the events are on disk only
    version: int = 0  # grows with everything a page could want to draw
    address: str = ""  # where it was started from; not kept
    work: float = 0.0  # predicted; its unit is in form/work.py
    expected: float = 0.0  # seconds, predicted before the start
    sentence: str = ""  # of the visitor's own, asked as the run goes

    @property
    def lane(self) -> Lane:
        """The first lane, which is all of a plain run."""
        return self.lanes[0]

    @property
    def left(self) -> float:
        """About how many seconds it still takes."""
        views = [lane.view for lane in self.lanes]
        if not any(view.steps for view in views):
            return self.expected
        return sum(max(0, view.planned - view.steps) / max(view.speed, 1e-9) for view in views if view.speed)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase in OVER

    def add(self, number: int, event: Event) -> None:
        """Take in one event of a lane."""
        self.lanes[number].add(event)
        self.log.append((number, event))
        self.version += 1

    def turn(self, phase: str, reason: str = "") -> None:
        """Write a phase down, with the reasons of the lanes, and then enter it: who sees it finds it on disk."""
        reason = reason or self.reason
        try:
            self._write(phase, reason)
        finally:  # a full disk does not keep a job from ending
            self.phase, self.reason = phase, reason
            self.version += 1

    def save(self) -> None:
        """Write job.json as the job stands."""
        self._write(self.phase, self.reason)

    def _write(self, phase: str, reason: str) -> None:
        """Write job.json, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / "job.partial"
        facts: dict[str, Any] = {
            "id": self.id,
            "owner": self.owner,
            "kind": self.kind,
            "phase": phase,
            "reason": reason,
        }
        facts |= {"created": self.created, "stopped_by": self.stopped_by, "sentence": self.sentence, "lent": self.lent}
        facts |= {"lanes": [_lane_facts(lane) for lane in self.lanes]}
        partial.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        partial.replace(self.folder / "job.json")

    def owned_by(self, visitor: str) -> bool:
        """Whether the visitor's secret is the owner's."""
        return secrets.compare_digest(self.owner, hashed(visitor))

    def forget(self) -> None:
        """Drop the events from memory; they are on disk."""
        self.log, self.forgotten = [], True
        for lane in self.lanes:
            lane.events, lane.view = [], View()

    def recall(self) -> None:
        """Read the events back from disk where they were dropped."""
        if self.forgotten:
            self.forgotten = False
            for lane in self.lanes:
                lane.load()
            self.log = [(n, event) for n, lane in enumerate(self.lanes) for event in lane.events]


def _lane_facts(lane: Lane) -> dict[str, Any]:
    return {"folder": lane.folder.name, "config": lane.config.to_json(), "problem": lane.problem}


def _read_lane(folder: Path, facts: dict[str, Any]) -> Lane:
    return Lane(RunConfig.from_json(facts["config"]), folder / facts["folder"], problem=facts["problem"])


def hashed(visitor: str) -> str:
    """Return the form in which a visitor's secret is kept."""
    return hashlib.sha256(visitor.encode()).hexdigest()


def new_job(
    root: Path,
    visitor: str,
    configs: Sequence[RunConfig],
    kind: str,
    address: str = "",
    work: float = 0.0,
    expected: float = 0.0,
    sentence: str = "",
) -> Job:
    """Return a job under an id nobody can guess."""
    name = secrets.token_urlsafe(16)
    lanes = [Lane(config, root / name / f"lane-{number}") for number, config in enumerate(configs)]
    owner = hashed(visitor)
    return Job(name, owner, root / name, lanes, kind, address=address, work=work, expected=expected, sentence=sentence)


def read_job(folder: Path) -> Job | None:
    """Return the job of a folder, None when it is damaged; one that was under way is marked interrupted."""
    try:
        facts: dict[str, Any] = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        lanes = [_read_lane(folder, lane) for lane in facts["lanes"]]
        kept = {name: facts[name] for name in ("kind", "phase", "reason", "created", "stopped_by")}
        sentence, lent = str(facts.get("sentence", "")), facts.get("lent") is True
        job = Job(facts["id"], facts["owner"], folder, lanes, **kept, sentence=sentence, lent=lent, forgotten=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not job.over:
        began = any((lane.folder / EVENTS).is_file() for lane in lanes)
        job.turn("interrupted", "the server was restarted" + ("" if began else " before the run began"))
    return job
