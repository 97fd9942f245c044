"""The frozen prefix: the first blocks of a model, below everything that moves, are run once and then stood in for.

Works for any Hugging Face model whose blocks are a list of modules, without knowing its class: the model's own
forward is called each time, but each frozen block hands on, instead of its own output, the one that the last of them
gave before. So embeddings, masks, positions, rotary tables, all later blocks and the head do exactly what they do
in a whole forward, and losses are bitwise the same.

What it costs, in plain forwards: a call counts the share of the multiplications in linear layers that it does, seen
in one forward of the first training example. For equal blocks and no head that is (L - l) / L with l of L blocks
frozen; the head counts with the later blocks, embeddings count as nothing, and running the prefix counts the rest.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from zocore.subspaces.blocks import blocks_of, shares, trace
from zocore.weights.leaf import Leaf


class _Reached(Exception):
    """The forward has come to the end of the prefix."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """The frozen blocks in order, and what they are worth."""

    blocks: Sequence[nn.Module]
    share: float  # of a plain forward's arithmetic that they do
    of: int  # blocks of the whole model

    def output(self, forward: Callable[[], Any]) -> Any:
        """Return what the last frozen block gives in `forward`, which is left there."""
        outputs: list[Any] = []

        def stop(_: nn.Module, __: Any, output: Any) -> None:
            outputs.append(output)
            raise _Reached

        handle = self.blocks[-1].register_forward_hook(stop)
        try:
            with torch.no_grad():
                forward()
        except _Reached:
            pass
        finally:
            handle.remove()
        return outputs[0]

    @contextmanager
    def standing_in(self, output: Any) -> Iterator[None]:
        """Let forwards begin after the frozen blocks, whose last gave `output` on the same rows.

        Raises RuntimeError when a later block has written into `output`, which would change the next forward.
        """
        before, version = [vars(block).get("forward") for block in self.blocks], _hidden(output)._version
        for block in self.blocks:
            block.forward = lambda *_, **__: output
        # the last word, after whatever hooks others have on the block: they had theirs when `output` was made
        handle = self.blocks[-1].register_forward_hook(lambda *_: output)
        try:
            yield
        finally:
            handle.remove()
            for block, own in zip(self.blocks, before, strict=True):
                del block.forward
                if own is not None:  # accelerate wraps the forward of each quantised block
                    block.forward = own
        if _hidden(output)._version != version:
            raise RuntimeError("a block of the model writes into its input: its frozen prefix cannot be kept")


@dataclass
class Once:
    """The micro-batches of one batch, whose prefix is run when it is first needed."""

    prefix: Prefix
    find: Callable[[], Sequence[Any]]  # the prefix's output of each micro-batch
    cost: float  # of finding them, in plain forwards of the batch

    def begin(self) -> float:
        """Find the outputs and return the cost."""
        assert len(self._outputs)
        return self.cost

    @contextmanager
    def within(self, number: int) -> Iterator[None]:
        """Let forwards of micro-batch `number` begin after the frozen blocks."""
        with self.prefix.standing_in(self._outputs[number]):
            yield

    @cached_property
    def _outputs(self) -> Sequence[Any]:
        return self.find()


def frozen_prefix(model: nn.Module, leaves: Sequence[Leaf], forward: Callable[[], Any]) -> Prefix | None:
    """Return the blocks that no leaf can reach, as `forward` runs them; None when there are none."""
    try:
        seen = trace(model, forward)
    except ValueError:  # blocks are none, shared, or skipped: each pass runs the model whole
        return None
    blocks = blocks_of(model)
    frozen = blocks[: min(seen.frozen_below(leaf) for leaf in leaves)]
    return Prefix(frozen, shares(frozen, seen), len(blocks)) if frozen else None


def _hidden(output: Any) -> Tensor:
    """The hidden state in what a block returns."""
    hidden: Tensor = output if isinstance(output, Tensor) else output[0]
    return hidden
