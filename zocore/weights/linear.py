"""Linear layers: torch's, and the Conv1D of GPT-2, which stores its weight as (in, out)."""

from torch import nn


def is_conv1d(module: nn.Module) -> bool:
    """Whether the module is a transformers Conv1D, recognised by name: importing it would take seconds."""
    return any((c.__module__, c.__name__) == ("transformers.pytorch_utils", "Conv1D") for c in type(module).__mro__)


def is_linear(module: nn.Module) -> bool:
    """Whether the module multiplies its input by a weight matrix, stored either way round."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def outputs_of(module: nn.Module) -> int:
    """Return the number of outputs of a linear layer."""
    count: int = module.nf if is_conv1d(module) else module.out_features  # type: ignore[assignment]
    return count
