"""How much memory a step takes: the allocator's peak on a GPU, the tensors alive at once on a CPU."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from zocore.runs.tensor_peak import TensorPeak

COUNTED = 3  # first steps in which each tensor is counted on a CPU; later only where the batch is the largest so far


class PeakMemory:
    """Peak memory of the steps so far in bytes, `held()` being every tensor that a run holds between steps.

    On a CPU, what operations use inside themselves is not seen, nor are Python and its libraries.
    """

    def __init__(self, device: torch.device, held: Callable[[], Iterable[Tensor]]) -> None:
        self.device, self._held = device, held
        self._tensors = TensorPeak()
        self._counted = self._base = self._largest = 0

    @property
    def kind(self) -> str:
        """What is counted: "allocator" (whatever the GPU's allocator gave out) or "tensors"."""
        return "allocator" if self.device.type == "cuda" else "tensors"

    def peak(self) -> int:
        """Return the peak in bytes, 0 before the first step."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return self._base + self._tensors.most if self._counted else 0

    def reset(self) -> None:
        """Forget the peak so far."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    @contextmanager
    def step(self, size: int) -> Iterator[None]:
        """Count what happens inside as part of a step on a batch of some size (tokens)."""
        if self.device.type == "cuda" or (self._counted >= COUNTED and size <= self._largest):
            yield
            return
        self._largest = max(self._largest, size)
        if not self._counted:
            self._base = storage_bytes(self._held())
        with self._tensors:
            yield
        self._counted += 1

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Leave what happens inside out of the reading."""
        try:
            yield
        finally:
            self.reset()


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the storages of some tensors, shared ones once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
