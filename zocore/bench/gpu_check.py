"""What one GPU has to show, in one command: exactness, speed, memory, a run; results in check.md and check.json.

It can be stopped at any time and goes on where it was; a part that failed is tried again. On a CPU it does the
same in miniature, so that it can be tried without a GPU.
"""

import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from zocore.bench.findings import Finding, Place
from zocore.bench.on_device import exactness, noise_speed, real_run
from zocore.bench.step_costs import BATCHES, SMALL, backprop_memory, quantised_costs, step_costs
from zocore.defaults import checked_device
from zocore.errors import InputError
from zocore.tables import markdown

FOLDER_JSON, FOLDER_MD = "check.json", "check.md"
PACKAGES = ("torch", "triton", "transformers", "bitsandbytes", "peft", "numba", "accelerate")


@dataclass(frozen=True)
class Part:
    """One part of the check, done whole or not at all."""

    title: str
    findings: Any  # Callable[[Place], Iterable[Finding]]


def parts(place: Place) -> list[Part]:
    """Return the parts in order, the cheapest and the most telling first."""
    found = [Part("Exactness", exactness), Part("Noise", noise_speed)]
    for sizes in [SMALL] if place.small else BATCHES:
        shape, batch, tokens = sizes
        found.append(Part(f"Steps, {shape}, {batch} x {tokens}", lambda p, sizes=sizes: step_costs(p, *sizes)))
        if place.small or (shape == "llama-3-8b" and tokens == 256):
            found.append(Part(f"NF4, {shape}, {batch} x {tokens}", lambda p, s=sizes: quantised_costs(p, *s)))
        if place.small or shape == "opt-1.3b":
            found.append(Part(f"Backprop, {shape}, {batch} x {tokens}", lambda p, s=sizes: backprop_memory(p, *s)))
    return [*found, Part("A run", real_run)]


def check(device: str | None, out: Path, minutes: float = 8.0, model: str | None = None) -> Iterator[str]:
    """Do what is not yet done, a line for each part; parts that would begin after `minutes` are left for next time.

    `model` is a local folder for a run of a real model. Raises InputError when the folder holds another machine's.
    """
    name = checked_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    place = Place(torch.device(name), small=name == "cpu", model=model)
    out.mkdir(parents=True, exist_ok=True)
    held = _held(out / FOLDER_JSON, machine(place.device))
    started = time.monotonic()
    for part in parts(place):
        if held["parts"].get(part.title, {}).get("done"):
            yield f"{part.title}: done before"
        elif time.monotonic() - started > 60 * minutes:
            yield f"{part.title}: left for the next call, the {minutes:g} minutes are over"
        else:
            held["parts"][part.title] = _done(part, place)
            _write(out, held)
            yield f"{part.title}: {held['parts'][part.title]['told']}"
    _write(out, held)
    yield f"written to {out / FOLDER_MD}"


def machine(device: torch.device) -> dict[str, str]:
    """Return what the figures hold for: device, driver and versions; "absent" for what is not installed."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name,
        "driver": _driver() if device.type == "cuda" else "none",
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def render(held: dict[str, Any]) -> str:
    """Return the results as Markdown: the machine, then a table for each part."""
    lines = ["# GPU check", "", *(f"- {name}: {value}" for name, value in held["machine"].items()), ""]
    for title, part in held["parts"].items():
        rows = [[f["what"], f["found"], f["goal"], _met(f["met"])] for f in part["findings"]]
        lines += [f"## {title}", "", f"{part['date']}, {part['seconds']:.0f} s, `{part['command']}`", ""]
        lines += [markdown(["what", "found", "goal", "reached"], rows), ""]
    return "\n".join(lines)


def _done(part: Part, place: Place) -> dict[str, Any]:
    started = time.monotonic()
    findings: list[Finding] = []
    reason = ""
    try:
        for finding in _iterated(part, place):
            findings.append(finding)
    except Exception as error:  # the other parts still have something to say
        reason = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        findings.append(Finding("this part", reason))
    if place.device.type == "cuda":
        torch.cuda.empty_cache()
    missed = sum(finding.met is False for finding in findings)
    return {
        "done": not reason,
        "told": reason or f"{len(findings)} figures" + (f", {missed} goals missed" if missed else ""),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": time.monotonic() - started,
        "command": shlex.join(["python", "-m", "zocore", *sys.argv[1:]]),
        "findings": [asdict(finding) for finding in findings],
    }


def _iterated(part: Part, place: Place) -> Iterable[Finding]:
    found: Iterable[Finding] = part.findings(place)
    return found


def _held(path: Path, here: dict[str, str]) -> dict[str, Any]:
    if not path.exists():
        return {"machine": here, "parts": {}}
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        there = held["machine"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged: remove it, or choose another --out") from None
    if there != here:
        apart = next(name for name in here if there.get(name) != here[name])
        raise InputError(
            f"{path} is of another machine ({apart} {there.get(apart)}, here {here[apart]}): choose another --out"
        )
    return held


def _write(out: Path, held: dict[str, Any]) -> None:
    """Both files, each whole or not at all."""
    for name, text in ((FOLDER_JSON, json.dumps(held, indent=2) + "\n"), (FOLDER_MD, render(held))):
        partial = out / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(out / name)


def _met(met: bool | None) -> str:
    return "" if met is None else "yes" if met else "no"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no nvidia-smi)"
