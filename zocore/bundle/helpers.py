"""Share the gradient work of a training step among processes of one thread each.

Threads wait for each other after every operation, these once a step, which matters on a busy machine.
"""

from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from types import TracebackType
from typing import Any, Self

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

Loss = Callable[[Any, Tensor], Tensor]  # of a model and rows of tokens


class Helpers:
    """Processes that compute gradients on their share of every batch, with the weights in shared memory."""

    def __init__(self, model: nn.Module, loss: Loss, batches: Tensor, workers: int) -> None:
        torch.set_num_threads(1)
        spawn = mp.get_context("spawn")
        self.model, self.loss, self.batches, self.workers = (
            model.share_memory(),
            loss,
            batches.share_memory_(),
            workers,
        )
        self.turn = spawn.Barrier(workers)
        self.gradients = [[torch.zeros_like(p).share_memory_() for p in model.parameters()] for _ in range(1, workers)]
        self.processes = [
            spawn.Process(
                target=_help,
                args=(model, loss, batches, slice(rank, None, workers), gradients, self.turn),
                daemon=True,
            )
            for rank, gradients in enumerate(self.gradients, start=1)
        ]

    def __enter__(self) -> Self:
        for process in self.processes:
            process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind:
            self.turn.abort()
        for process in self.processes:
            process.join()

    def backward(self, step: int) -> float:
        """Leave the mean gradient over batch number `step` in the model and return the loss of the own share."""
        self.turn.wait()  # the weights are ready
        loss = self.loss(self.model, self.batches[step, :: self.workers].long())
        loss.backward()
        self.turn.wait()  # the gradients are ready
        for index, parameter in enumerate(self.model.parameters()):
            assert parameter.grad is not None, "the backward pass has just been done"
            for gradients in self.gradients:
                parameter.grad += gradients[index]
            parameter.grad /= self.workers
        return loss.item()


def _help(model: nn.Module, loss: Loss, batches: Tensor, share: slice, gradients: list[Tensor], turn: Barrier) -> None:
    torch.set_num_threads(1)
    model.train()
    for batch in batches:
        turn.wait()
        own = torch.autograd.grad(loss(model, batch[share].long()), list(model.parameters()))
        for shared, gradient in zip(gradients, own, strict=True):
            shared.copy_(gradient)
        turn.wait()
