"""A copy of what a session's steps change, to measure how far the weights have moved and to go back."""

from dataclasses import dataclass
from math import sqrt

import torch
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

    def distance(self, session: Session) -> float:
        """Return the Euclidean distance between the session's leaves and the copies, in float64."""
        pairs = zip(session.leaves, self.tensors, strict=True)
        return sqrt(sum(float((leaf.tensor - old).double().square().sum()) for leaf, old in pairs))

    def length(self) -> float:
        """Return the Euclidean length of the copied tensors, in float64."""
        return sqrt(sum(float(tensor.double().square().sum()) for tensor in self.tensors))
