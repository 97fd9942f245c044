"""How much memory a step takes: the allocator's peak on a GPU, the process's peak on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Meter:
    """Peak memory in bytes since the last reset. On a CPU it counts the whole process, libraries included."""

    device: torch.device

    @property
    def kind(self) -> str:
        """What is counted: "allocator" (tensors only) or "process"."""
        return "allocator" if self.device.type == "cuda" else "process"

    def peak(self) -> int:
        """Return the peak in bytes; 0 where the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _peak_resident()

    def reset(self) -> None:
        """Forget the peak so far."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif CLEAR.exists():
            with suppress(OSError):  # a read-only /proc: the peak then covers the whole run
                CLEAR.write_text("5")  # Linux: start the peak anew from what is resident now

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Leave what happens inside out of the reading."""
        try:
            yield
        finally:
            self.reset()


def _peak_resident() -> int:
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
