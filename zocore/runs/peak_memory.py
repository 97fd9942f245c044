"""How much memory a step takes: the allocator's peak on a GPU, the tensors alive at once on a CPU."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor

from zocore.runs.tensor_peak import TensorPeak

COUNTED = 3  # first steps in which each tensor is counted on a CPU; later only where the batch is the largest so far


class PeakMemory:
    """Peak memory of the steps so far in bytes, `held()` being every tensor that a run holds between steps.

    `grown()` is what a run has put by in the machine's own memory so far, which counts on a CPU. There, neither the
    working memory inside operations nor Python and its libraries are counted.
    """

    def __init__(
        self, device: torch.device, held: Callable[[], Iterable[Tensor]], grown: Callable[[], int] = lambda: 0
    ) -> None:
        self.device, self._held, self._grown = device, held, grown
        self._tensors = TensorPeak()
        self._seen = 0  # bytes of what has grown that were counted as tensors
        self._counted = self._base = self._largest = 0

    @property
    def kind(self) -> str:
        """What is counted: "allocator" (whatever the GPU's allocator gave out) or "tensors"."""
        return "allocator" if self.device.type == "cuda" else "tensors"

    def peak(self) -> int:
        """Return the peak in bytes, 0 before the first step."""
        if self.device.type == "cuda":
            return sum(torch.cuda.max_memory_allocated(device) for device in self._devices)
        return self._base + self._tensors.most + self._grown() - self._seen if self._counted else 0

    def reset(self) -> None:
        """Forget the peak so far."""
        if self.device.type == "cuda":
            for device in self._devices:
                torch.cuda.reset_peak_memory_stats(device)

    @cached_property
    def _devices(self) -> set[torch.device]:
        """The GPUs that hold a part of the run: several where a model is spread."""
        return {tensor.device for tensor in self._held()}

    @contextmanager
    def step(self, size: int) -> Iterator[None]:
        """Count what happens inside as part of a step on a batch of some size (tokens)."""
        if self.device.type == "cuda" or (self._counted >= COUNTED and size <= self._largest):
            yield
            return
        self._largest = max(self._largest, size)
        if not self._counted:
            self._base = storage_bytes(self._held())
        before = self._grown()
        with self._tensors:
            yield
        self._seen += self._grown() - before
        self._counted += 1

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Leave what happens inside out of the peak."""
        try:
            yield
        finally:
            self.reset()


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the storages of some tensors, shared ones once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
