"""A copy of what a session's steps change, to measure how far the weights have moved and to go back.

In a file, tensors are numbered as the session's leaves are, and the update's buffers have their names; the file says
after which step of which recording it was made.
"""

import hashlib
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from zocore.runs.session import Session
from zocore.step.update import State


@dataclass(frozen=True)
class Snapshot:
    """The leaves' tensors, in their order, and the update's buffers, as they were at one moment."""

    tensors: list[Tensor]
    state: State

    @classmethod
    def of(cls, session: Session) -> "Snapshot":
        """Copy the session's leaves and buffers."""
        tensors = [leaf.tensor.detach().clone() for leaf in session.leaves]
        return cls(tensors, {name: buffer.clone() for name, buffer in session.state.items()})

    def restore(self, session: Session) -> None:
        """Give the session's leaves and buffers the copied values, bit for bit."""
        with torch.no_grad():
            for leaf, tensor in zip(session.leaves, self.tensors, strict=True):
                leaf.tensor.copy_(tensor)
                leaf.commit()
        session.state.clear()
        session.state.update({name: buffer.clone() for name, buffer in self.state.items()})

    def save(self, path: Path, step: int, event: str) -> None:
        """Write the copies as they are after a step, whose event is given as recorded: whole or not at all."""
        tensors = {f"leaf {number}": tensor for number, tensor in enumerate(self.tensors)}
        tensors |= {f"{name} {leaf}": buffer for (name, leaf), buffer in self.state.items()}
        partial = path.with_suffix(".partial")
        held = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        save_file(held, partial, {"step": str(step), "seal": seal_of(event)})
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, session: Session) -> "Snapshot":
        """Read a file of `save` that was made of the same run."""
        state: State = {}
        with safe_open(path, "pt") as file:
            tensors = [file.get_tensor(f"leaf {number}") for number in range(len(session.leaves))]
            for name in file.keys():  # noqa: SIM118 - it has nothing else to go through
                buffer, leaf = name.rsplit(" ", 1)
                if buffer != "leaf":
                    held = file.get_tensor(name)
                    state[buffer, int(leaf)] = held.to(session.objective.device) if held.ndim else held
        return cls(tensors, state)

    def distance(self, session: Session) -> float:
        """Return the Euclidean distance between the session's leaves and the copies, in float64."""
        pairs = zip(session.leaves, self.tensors, strict=True)
        return sqrt(sum(float((leaf.tensor - old).double().square().sum()) for leaf, old in pairs))

    def length(self) -> float:
        """Return the Euclidean length of the copied tensors, in float64."""
        return sqrt(sum(float(tensor.double().square().sum()) for tensor in self.tensors))


def saved_at(path: Path) -> tuple[int, str] | None:
    """Return after which step a file of `Snapshot.save` was made and the seal of its event; None for no such file."""
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
        return int(facts["step"]), facts["seal"]
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def seal_of(event: str) -> str:
    """Return a short mark of a step's event as recorded: it differs where two runs differ."""
    return hashlib.sha256(event.encode()).hexdigest()
