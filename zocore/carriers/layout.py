"""Which example each row of an activation belongs to: what per-example directions need to know.

The objective fills a `Layout` before each forward; the hooks of `flipout.py` read it. Nothing is guessed from
divisibility: a shape that is neither (rows, ...), (1, ...) nor exactly (rows * tokens, features) is refused.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass
class Layout:
    """The rows of the forward now running. Raises ValueError for an activation of a shape it cannot place.

    What a forward asks of it is known on the host or kept on the device: nothing here waits for a GPU.
    """

    examples: Tensor  # (rows,) int64: the example of each row, counted over the whole batch; best on the CPU
    mask: Tensor | None = None  # (rows, tokens) bool: True where a token is real; None when rows have no tokens
    read: Tensor | None = None  # (rows, k) int64: the positions the head reads; None when it may read any

    @property
    def rows(self) -> int:
        """Number of sequences (or feature rows) in the forward; several may belong to one example."""
        return len(self.examples)

    @property
    def positions(self) -> int:
        """Number of tokens in the forward, padding included; rows where there are no tokens."""
        return self.rows if self.mask is None else self.mask.numel()

    @cached_property
    def members(self) -> list[int]:
        """The numbers of its examples, ascending."""
        return self.examples.unique().tolist()

    def on(self, device: torch.device) -> Tensor:
        """Return `examples` on a device, copied there once."""
        if device not in self._copies:
            self._copies[device] = self.examples.to(device, non_blocking=True)
        return self._copies[device]

    @cached_property
    def _copies(self) -> dict[torch.device, Tensor]:
        return {}

    @property
    def numbers(self) -> Tensor:
        """The number of each row over the whole batch (rows,): the rows of an example stand next to each other."""
        each = self.rows // len(self.members)
        return self.examples * each + torch.arange(self.rows, device=self.examples.device) % each

    def counted(self, read_alone: bool = False) -> Tensor:
        """Return 1.0 where a position counts and 0.0 on padding, (rows, tokens).

        With `read_alone`, only the positions that the head reads count, where they are known.
        """
        if self.mask is None:
            return torch.ones(self.rows, 1, device=self.examples.device)
        if not read_alone or self.read is None:
            return self.mask.float()
        return torch.zeros_like(self.mask, dtype=torch.float32).scatter_(1, self.read, 1.0)

    def part(self, rows: slice) -> "Layout":
        """Return the layout of some of the rows; the examples keep their numbers."""
        mask, read = (None if t is None else t[rows] for t in (self.mask, self.read))
        return Layout(self.examples[rows], mask, read)

    def of(self, activation: Tensor) -> Tensor:
        """Return the example number of each leading index of `activation` (rows, ...) or (rows * tokens, d)."""
        leading, examples = activation.shape[0], self.on(activation.device)
        if leading == self.rows:
            return examples
        if activation.ndim == 2 and self.mask is not None and leading == self.mask.numel():
            return examples.unsqueeze(1).expand(-1, self.mask.shape[1]).reshape(-1)
        raise ValueError(
            f"a layer received an activation of shape {tuple(activation.shape)}, which cannot be split into the "
            f"{self.rows} rows of the batch: per-example directions need one leading index per row"
        )

    def distinct(self, ids: Tensor) -> list[Tensor]:
        """Return, for each example in ascending order, the distinct table rows its real tokens looked up.

        `ids` is (rows, tokens); tokens under the padding mask count zero times, repeated ones once.
        """
        mask = torch.ones_like(ids, dtype=torch.bool) if self.mask is None else self.mask.to(ids.device)
        examples = self.examples.to(ids.device)
        return [torch.unique(ids[chosen][mask[chosen]]) for chosen in (examples == example for example in self.members)]
