"""Weights of a run on disk, so that going on does not begin at the start.

    RUN/snapshots/step-00000400.safetensors     every tensor that moves, and the update's buffers, bit for bit

A snapshot is made every so many steps. The recording tells the SHA-256 of each file, so a damaged one is never used:
the one before it is, or the start. The newest two are kept. Who leaves a run and comes back soon puts its weights away
in a file that says after which recorded step it was made. Both save time and nothing else: what comes after kept
weights is what comes without.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from zocore.runs.events import SnapshotKept, StepDone
from zocore.runs.recording import Recording
from zocore.runs.session import Session

FOLDER, KEPT = "snapshots", 2


def keep(session: Session, step: int, run: Path) -> SnapshotKept:
    """Write the session's weights and buffers as they are after a step, whole or not at all."""
    path, data = _path(run, step), _packed(session, {})
    path.parent.mkdir(exist_ok=True)
    _write(path, data)
    for old in sorted(path.parent.glob("step-*.safetensors"))[:-KEPT]:
        old.unlink()
    return SnapshotKept(step, hashlib.sha256(data).hexdigest())


def restore(session: Session, recording: Recording, until: int | None = None) -> tuple[int, list[str]]:
    """Give a fresh session the weights of the newest good snapshot, at most those after step `until`.

    Returns its step, 0 where there is none, and a sentence on each damaged one that was passed over.
    """
    last = recording.last if until is None else until
    kept = {event.step: event for event in recording.events if isinstance(event, SnapshotKept) and event.step <= last}
    said: list[str] = []
    for step in sorted(kept, reverse=True):
        path = _path(recording.folder, step)
        if not path.is_file():
            continue  # older than those that are kept, or left behind when the folder was copied
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() == kept[step].sha256 and _fits(tensors := load(data), session):
            _give(session, tensors)
            return step, said
        said.append(f"the snapshot of step {step} ({path}) is damaged: it is not used, and older weights are taken")
    return 0, said


def after(steps: Sequence[StepDone], step: int) -> list[StepDone]:
    """Return the steps that come after one."""
    return [event for event in steps if event.step > step]


def put_away(session: Session, event: StepDone, path: Path) -> None:
    """Write weights and buffers as they are after a step of a run that is left, whole or not at all."""
    _write(path, _packed(session, {"step": str(event.step), "seal": seal_of(event)}))


def take_back(session: Session, path: Path | None, steps: list[StepDone]) -> list[StepDone]:
    """Give the session the weights that were put away after one of these steps, if any; return the steps after it."""
    made_at = put_away_at(path) if path else None
    for number, event in enumerate(steps, start=1):
        if path and made_at == (event.step, seal_of(event)) and _fits(tensors := load(path.read_bytes()), session):
            _give(session, tensors)
            return steps[number:]
    return steps


def put_away_at(path: Path) -> tuple[int, str] | None:
    """Return after which step a file of `put_away` was made and the seal of its event; None for no such file."""
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
        return int(facts["step"]), facts["seal"]
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def seal_of(event: StepDone) -> str:
    """Return a short mark of a step as recorded: it differs where two runs differ."""
    return hashlib.sha256(event.to_json().encode()).hexdigest()


def _packed(session: Session, facts: Mapping[str, str]) -> bytes:
    moving = {f"leaf {leaf.id}": leaf.tensor for leaf in session.leaves}
    buffers = {f"state {name} {leaf}": tensor for (name, leaf), tensor in session.state.items()}
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in (moving | buffers).items()}
    return save(held, dict(facts))


def _write(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _path(run: Path, step: int) -> Path:
    return run / FOLDER / f"step-{step:08d}.safetensors"


def _fits(tensors: dict[str, Tensor], session: Session) -> bool:
    """Whether a file holds exactly the session's leaves, and buffers besides."""
    own = {f"leaf {leaf.id}": (leaf.tensor.shape, leaf.tensor.dtype) for leaf in session.leaves}
    held = {name: (t.shape, t.dtype) for name, t in tensors.items() if not name.startswith("state ")}
    return own == held


def _give(session: Session, tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for leaf in session.leaves:
            leaf.tensor.copy_(tensors[f"leaf {leaf.id}"])
            leaf.commit()
    devices = {leaf.id: leaf.tensor.device for leaf in session.leaves}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(" ")
        if kind == "state":
            buffer, leaf_id = rest.rsplit(" ", 1)
            # counts of steps are read on the CPU, where they were made
            session.state[buffer, int(leaf_id)] = tensor.to(devices[int(leaf_id)]) if tensor.ndim else tensor
