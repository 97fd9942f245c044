"""Where a quantised layer reads its scales, and how it responds to directions of each example's own.

A quantised weight is code * scale, with one scale per block of 64 weights (4 bits) or per row (int8). Codes
never change. The leaf owns a float32 master of the scales; the layer reads its *live* copy, which is always
fetched through the module and always written with `copy_`: bitsandbytes may replace the tensor, and other
references to it must stay good. Hiding copies the master back, so a probe leaves nothing behind.
"""

from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zocore.carriers.flipout import Call, Flipout, Responder, responder
from zocore.weights.leaf import Leaf


@dataclass(frozen=True, eq=False)
class FourBitScales:
    """The scales of a bitsandbytes `Linear4bit`: one for each block of the flattened weight."""

    module: Any  # bitsandbytes has few types
    master: Tensor  # (N, K / block), or (blocks,) where blocks straddle rows

    @property
    def state(self) -> Any:
        """The layer's quantisation state. Raises RuntimeError when its scales are no longer float32."""
        state: Any = self.module.weight.quant_state
        refuse_packed(state)
        return state

    def show(self, tensor: Tensor) -> None:
        """Let the layer read `tensor`, of the master's shape."""
        self.state.absmax.copy_(tensor.view(-1))

    def hide(self) -> None:
        """Let the layer read the master, bit for bit."""
        self.show(self.master)

    def commit(self) -> None:
        """Let the layer read what an update left in the master."""
        self.show(self.master)

    def response(self, call: Call) -> Tensor:
        """r * ((x * expand(s)) P^T), with P the codes under scales U: exact, as W is linear in its scales."""
        from bitsandbytes.functional import dequantize_4bit  # two seconds that only quantised models need

        x = call.x
        state = copy(self.state)
        state.absmax, state.dtype = call.base(torch.float32).view(-1), x.dtype
        signs = call.column_signs(x).repeat_interleave(state.blocksize, dim=-1)
        product = functional.linear(x * signs, dequantize_4bit(self.module.weight.data, state))
        return product * call.row_signs(product)


@dataclass(frozen=True, eq=False)
class RowScales:
    """The scales of a bitsandbytes `Linear8bitLt`: one for each row, which is each output."""

    module: Any
    master: Tensor  # (N,)

    def show(self, tensor: Tensor) -> None:
        """Let the layer read `tensor` (N,)."""
        self.module.state.SCB.copy_(tensor)

    def hide(self) -> None:
        """Let the layer read the master, bit for bit."""
        self.show(self.master)

    def commit(self) -> None:
        """Let the layer read what an update left in the master."""
        self.show(self.master)

    def response(self, call: Call) -> Tensor:
        """(y - bias) * U r / scale: a row's scale scales one output, so no second product is needed."""
        bias = self.module.bias
        product = call.output if bias is None else call.output - bias
        # a row of zeros has scale 0 and does not respond
        share = torch.where(self.master == 0, 0.0, call.base(torch.float32) / self.master)
        return product * (share.to(product.dtype) * call.row_signs(product))


@responder.register
def _(site: FourBitScales, leaf: Leaf, carrier: Flipout) -> Responder:
    if leaf.tensor.ndim < 2:
        raise ValueError(
            f"per-example directions and {leaf.name} do not go together: its blocks straddle rows, which its "
            "signs cannot; leave it out, or take a method with one direction for the whole batch"
        )
    return lambda call: call.add(site.response(call))


@responder.register
def _(site: RowScales, leaf: Leaf, carrier: Flipout) -> Responder:
    return lambda call: call.add(site.response(call))


def refuse_packed(state: Any) -> None:
    """Raise RuntimeError when bitsandbytes has packed the layer for fast inference on the CPU."""
    if getattr(state, "packing_format_for_cpu", False):
        raise RuntimeError(
            "bitsandbytes has packed this model's scales into bfloat16 for the CPU, too coarse to probe: "
            "load the model again and prepare it before its first forward"
        )
