"""Hooks counted, and forwards that raise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from torch import Tensor, nn


def hooks(model: nn.Module) -> Iterator[object]:
    """Every hook attached anywhere."""
    for module in model.modules():
        yield from (*module._forward_hooks.values(), *module._forward_pre_hooks.values())


@contextmanager
def raising(module: nn.Module, error: BaseException) -> Iterator[Callable[[], int]]:
    """Let the module's forward raise the second time it runs (the minus side); yields how often it did."""
    original, runs = module.forward, 0

    def forward(*args: object, **kwargs: object) -> Tensor:
        nonlocal runs
        runs += 1
        if runs >= 2:
            raise error
        return original(*args, **kwargs)

    with patch.object(module, "forward", forward):
        yield lambda: runs
