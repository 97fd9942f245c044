"""Several processes, one run: each asks the model about its share of a batch, and all hear every loss.

Noise has addresses, so directions need not be sent: every process holds the weights, makes the same noise, hears
the same losses in the order of the examples, and takes the same step. On the wire go 8 bytes for each example
of each forward (and, for GRZO, the rows that examples looked up in tables), where data-parallel backprop sends
a gradient as large as the model. Methods that push outputs send what the pushed layers read too, one vector an
example and layer, and learned feedback its answers.

    torchrun --nproc-per-node 4 -m zocore train ...
    accelerate launch --num_processes 4 -m zocore train ...

Both set the environment variables that `joined` reads.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from zocore.errors import InputError

T = TypeVar("T")
CPU = torch.device("cpu")


@dataclass
class Ranks:
    """The processes of a run as one of them sees them; one alone by default."""

    rank: int = 0
    count: int = 1
    device: torch.device = CPU  # where what is sent has to be
    stop: Callable[[], bool] = lambda: False  # whether this process was asked to stop
    wire_bytes: int = 0  # received from the others so far
    _flags: Tensor | None = field(default=None, repr=False)

    @property
    def first(self) -> bool:
        """Whether this process records the run."""
        return self.rank == 0

    @property
    def stopping(self) -> bool:
        """Whether any process had been asked to stop at the last exchange: the same answer in all of them."""
        return self.stop() if self.count == 1 else self._flags is not None and bool(self._flags.any())

    def shares(self, parts: Sequence[T]) -> list[Sequence[T]]:
        """Split micro-batches among the processes, in order. Raises InputError when one would have none."""
        if len(parts) < self.count:
            raise InputError(
                f"a batch in {len(parts)} micro-batch{'es' * (len(parts) > 1)} cannot be shared by {self.count} "
                "processes: take a smaller --micro-batch, a larger --batch-size or fewer processes"
            )
        cuts = [rank * len(parts) // self.count for rank in range(self.count + 1)]
        return [parts[a:b] for a, b in pairwise(cuts)]

    def losses(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """Return all processes' losses (B,), float64, in the order of the examples; `counts` are those of each.

        Whether a process was asked to stop travels along. Nothing waits for a GPU.
        """
        if self.count == 1:
            return own
        widest = max(counts)
        message = torch.zeros(widest + 1, dtype=torch.float64, device=self.device)
        message[: len(own)] = own.detach()
        message[widest] = float(self.stop())
        heard = self._exchange(message)
        self._flags = heard[:, widest]
        return torch.cat([row[:count] for row, count in zip(heard, counts, strict=True)]).to(own.device)

    def rows(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """Return all processes' rows (R, ...) in the order of the ranks, as they are; `counts` are those of each."""
        if self.count == 1:
            return own
        bits = own.detach().reshape(len(own), -1).contiguous().view(torch.uint8)  # as not every wire takes bfloat16
        message = torch.zeros(max(counts), bits.shape[1], dtype=torch.uint8, device=self.device)
        message[: len(own)] = bits
        heard = self._exchange(message)
        whole = torch.cat([rows[:count] for rows, count in zip(heard, counts, strict=True)])
        return whole.view(own.dtype).reshape(-1, *own.shape[1:]).to(own.device)

    def told(self, own: Any) -> list[Any]:
        """Return what every process says, as JSON knows it, in the order of the ranks."""
        if self.count == 1:
            return [own]
        text = torch.frombuffer(bytearray(json.dumps(own).encode()), dtype=torch.uint8).to(self.device)
        lengths = self._exchange(torch.tensor([len(text)], device=self.device)).flatten().tolist()
        message = torch.zeros(max(lengths), dtype=torch.uint8, device=self.device)
        message[: len(text)] = text
        heard = self._exchange(message).cpu()
        return [json.loads(bytes(row[:length].tolist())) for row, length in zip(heard, lengths, strict=True)]

    def agree(self, number: int, step: int) -> None:
        """Compare a checksum of the weights. Raises RuntimeError when the processes' weights have come apart."""
        sums = self.told(number)
        if len(set(sums)) > 1:
            apart = next(rank for rank, other in enumerate(sums) if other != sums[0])
            raise RuntimeError(
                f"the weights of process {apart} are not those of process 0 before step {step}: "
                "are all machines' devices, packages and files the same?"
            )

    def _exchange(self, message: Tensor) -> Tensor:
        """Every process's message, (count, ...)."""
        heard = [torch.empty_like(message) for _ in range(self.count)]
        distributed.all_gather(heard, message)
        self.wire_bytes += (self.count - 1) * message.nbytes
        return torch.stack(heard)


def launched() -> int:
    """How many processes a launcher started, 1 without one."""
    return int(os.environ.get("WORLD_SIZE") or 1)


@contextmanager
def joined(device: str | None) -> Iterator[tuple[Ranks, str | None]]:
    """Join the processes that a launcher started; yields them and the device of this one.

    Raises InputError when one process was to spread its model over all GPUs beside others.
    """
    if launched() == 1:
        yield Ranks(), device
        return
    if device == "auto":
        raise InputError("--device auto and several processes do not go together: each needs a device of its own")
    on_gpu = (device or "cuda").startswith("cuda") and torch.cuda.is_available()
    here = torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0)) if on_gpu else CPU
    if on_gpu:
        torch.cuda.set_device(here)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), here), str(here)
    finally:
        distributed.destroy_process_group()


def checksum(tensors: Sequence[Tensor]) -> int:
    """Return an exact sum over the bits of some tensors: one flipped bit changes it."""
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    sums = [t.detach().reshape(-1).view(kinds[t.itemsize]).sum(dtype=torch.int64) for t in tensors]
    weighed = (number * (place + 1) for place, number in enumerate(torch.stack([s.cpu() for s in sums]).tolist()))
    return sum(weighed)
