"""summary.json: what a run came to, in one flat record; made anew from the events whenever a run ends or goes on."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from zocore.runs.best_point import BestPoint
from zocore.runs.events import EvalDone, Event, RunEnded, RunStarted, StepDone

# what a summary says of a run that has no more than begun
CUT_OFF = {"status": "interrupted", "reason": "the process ended before the run did", "weights_fingerprint": ""}
COUNTS = {"steps": 0, "forward_passes": 0, "forward_cost": 0.0, "seconds": 0.0, "steps_per_second": 0.0, "skipped": 0}
FOUND, WHEN = ("loss", "accuracy"), ("before", "after")


@dataclass
class Summary:
    """summary.json as it stands: the run's outcome in one flat record."""

    values: dict[str, Any]
    dev: BestPoint = field(default_factory=BestPoint)

    @classmethod
    def of(cls, events: Iterable[Event]) -> "Summary":
        """The summary of the events so far, none for a new run."""
        ends = dict.fromkeys(f"{what}_{when}" for when in WHEN for what in FOUND)
        summary = cls({**CUT_OFF, **COUNTS, "peak_memory_bytes": 0, **ends})
        for event in events:
            summary.add(event)
        return summary

    def add(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted(config=config, model=model, fingerprint=fingerprint, labels=labels):
                names = {"method": config["method"], "task": config["data"] or config["task"], "seed": config["seed"]}
                self.values |= {"model": model, **names, "labels": labels, "base_fingerprint": fingerprint}
                self.values |= {"lr": config["lr"], "eps": config["eps"], "steps_planned": config["steps"]}
                self.values |= {"processes": event.processes}
            case StepDone():
                self.values |= {"steps": event.step, "forward_passes": event.forward_passes}
                self.values |= {"forward_cost": event.forward_cost, "seconds": event.seconds}
                peak = max(self.values["peak_memory_bytes"], event.memory_bytes)
                self.values |= {"steps_per_second": event.steps_per_second, "peak_memory_bytes": peak}
                self.values |= {"wire_bytes": event.wire_bytes}
                self.values |= {**CUT_OFF, **dict.fromkeys(f"{what}_after" for what in FOUND)}  # as in a resumed run
            case EvalDone(split="dev"):
                self.dev.add(event)
                assert self.dev.best is not None
                self.values |= {"best_step": self.dev.best.step, "best_dev_loss": self.dev.best.loss}
            case EvalDone(split="test"):
                when = "before" if event.step == 0 and self.values["loss_before"] is None else "after"
                judged = {"loss": event.loss, "accuracy": event.accuracy, **(event.scores or {})}
                self.values |= {f"{name}_{when}": value if isfinite(value) else None for name, value in judged.items()}
            case RunEnded():
                peak = max(self.values["peak_memory_bytes"], event.peak_memory_bytes)
                self.values |= {name: getattr(event, name) for name in (*CUT_OFF, *COUNTS)}
                self.values |= {"weights_fingerprint": event.weights_fingerprint, "peak_memory_bytes": peak}


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write an object to a file, whole or not at all."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
