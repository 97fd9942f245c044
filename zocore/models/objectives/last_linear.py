"""Label scores that are outputs of the model's last linear layer, and the features which that layer reads."""

from abc import abstractmethod
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from zocore.data.tasks import Example
from zocore.models.objectives.base import widened
from zocore.models.objectives.batch import Batch
from zocore.models.objectives.heads import LinearHead
from zocore.models.objectives.labels import LabelObjective


class LastLinear(LabelObjective):
    """An objective whose label scores are some of the model's logits."""

    outputs: Tensor  # (L,) int64: the logit of each label

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Return the model's logits where labels are read, (rows, outputs) or (rows, k, outputs); one forward."""

    @cached_property
    def last_layer(self) -> nn.Linear | None:
        """The linear layer whose output the model hands on unchanged as its logits; found by one small forward.

        None where there is none: something follows it (a softcap, a choice of tokens), or it is quantised.
        """
        ran: list[tuple[nn.Linear, Tensor]] = []
        layers = [module for module in self.model.modules() if isinstance(module, nn.Linear)]
        handles = [layer.register_forward_hook(lambda one, _, output: ran.append((one, output))) for layer in layers]
        try:
            with torch.no_grad():
                logits = self.logits(self.batch([Example(dict.fromkeys(self.template.fields, "a"), 0)]))
        finally:
            for handle in handles:
                handle.remove()
        if not ran:
            return None
        layer, output = ran[-1]
        whole = layer.weight.is_floating_point() and layer.weight.shape == (layer.out_features, layer.in_features)
        return layer if whole and torch.equal(output.to(logits.dtype), logits) else None

    @property
    def head(self) -> LinearHead | None:
        """The rows of the last layer that belong to the labels."""
        if self.last_layer is None:
            return None
        rows = self._there("outputs", self.last_layer.weight.device)
        bias: Tensor | None = self.last_layer.bias
        return LinearHead(widened(self.last_layer.weight[rows]), None if bias is None else widened(bias[rows]))

    def features(self, batch: Batch) -> Tensor:
        """Return what the last layer reads (B, D), float32 or wider; one forward."""
        if self.last_layer is None:
            return super().features(batch)
        read: list[Tensor] = []

        def keep(_: nn.Module, args: tuple[Any, ...]) -> None:
            read.append(args[0])

        handle = self.last_layer.register_forward_pre_hook(keep)
        try:
            self.logits(batch)
        finally:
            handle.remove()
        return widened(read[0]).reshape(len(batch), -1)
