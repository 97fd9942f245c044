"""What a training step costs in memory, computed from a model's sizes alone, for each method.

`bill(shape_of("llama-3-8b"), "mezo")` gives a `Bill` in bytes. Weights, gradients and optimiser state are
exact counts; scratch and activations are estimates of the peak and leave out the device's context, the
allocator's rounding, attention masks and the batch itself. GB means 1e9 bytes, GiB means 2**30.

Every method gets the same lean forward: no dropout, no KV cache, fused attention (no tokens x tokens
scores) and logits only where there is a label. A trainer that keeps all logits needs more than shown here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from zocore.memory.shapes import ModelShape
from zocore.methods import METHODS, Memory
from zocore.tables import aligned

GB = 10**9
GIB = 2**30

FP32 = 4  # bytes
NOISE_TILE = 2**20  # elements: noise is drawn in fp32 tiles of this size, never for a whole tensor
NF4_BLOCK = 64  # weights per scale, the default of bitsandbytes
_WIDTHS = {"fp32": 4, "bf16": 2, "fp16": 2}  # bytes per weight

# Capacity in GiB as PyTorch reports it in its out-of-memory messages, a little below the number on the
# box: drivers and error correction keep a part. It moves by some 0.1 GiB between driver versions.
_CAPACITY = {
    "RTX 3060 12 GB": 11.63,
    "T4 16 GB": 14.56,
    "L4 24 GB": 22.03,
    "A10G 24 GB": 22.05,
    "RTX 4090 24 GB": 23.65,
    "A100 40 GB": 39.38,
    "A100 80 GB": 79.14,
    "H100 80 GB": 79.18,
    "RTX Pro 6000 96 GB": 94.97,
    "H200 141 GB": 139.72,
}
# A process's CUDA context and libraries take 0.4 to 0.6 GiB before the first tensor.
_CONTEXT = 0.6
CARDS: dict[str, int] = {name: int((size - _CONTEXT) * GIB) for name, size in _CAPACITY.items()}
"""Bytes free for tensors on each card, smallest card first."""


@dataclass(frozen=True)
class Bill:
    """Peak memory of one training step, in bytes, split by what holds it."""

    method: str
    weights: int
    scratch: int
    activations: int
    gradients: int = 0
    optimiser_state: int = 0
    kept: int = 0  # outputs of a frozen prefix, in the machine's own memory whatever the device

    @property
    def total(self) -> int:
        """The sum of the five parts on the device, in bytes; on a CPU `kept` comes on top."""
        return self.weights + self.scratch + self.activations + self.gradients + self.optimiser_state


@dataclass(frozen=True)
class _Run:
    """A model and the settings of a run, with the sizes that several methods share (in bytes)."""

    method: str
    shape: ModelShape
    batch: int
    tokens: int
    width: int  # bytes per weight and per activation
    options: int
    bits: int
    lora_rank: int

    @property
    def positions(self) -> int:
        return self.batch * self.tokens

    @property
    def weights(self) -> int:
        return self.shape.parameters * self.width

    @property
    def forward(self) -> int:
        """Forward without a graph: the widest moment of a block, or the logits, whichever is larger."""
        return max(_block_peak(self), _logits(self))


# --- Activations ---

# Tensors as wide as the MLP: (alive at once in a forward, kept for the backward, kept when the weights are
# frozen). A gated MLP keeps gate, act(gate), up and their product; a frozen one drops the last matrix's
# input. ReLU keeps only its output, GELU its input and output. The tanh forms of GELU are written out as
# separate operations in transformers, each of which keeps its operands. Checked against PyTorch's own saved
# tensors in tests/memory/test_memory.py.
_GATED = (3, 4, 3)
_PLAIN = {"relu": (2, 1, 1), "gelu": (2, 2, 1), "gelu_new": (4, 5, 4)}


def _mlp_copies(shape: ModelShape) -> tuple[int, int, int]:
    return _GATED if shape.gated_mlp else _PLAIN.get(shape.activation, _PLAIN["gelu_new"])


def _block_peak(run: _Run) -> int:
    # Four hidden-wide tensors (embeddings, residual, its normed copy, the block's output) and the MLP's.
    # Attention holds less than the MLP at the usual intermediate >= 2 x hidden, so it sets no peak.
    alive, _, _ = _mlp_copies(run.shape)
    return run.positions * (4 * run.shape.hidden + alive * run.shape.intermediate) * run.width


def _logits(run: _Run) -> int:
    # Logits, their fp32 copy when they are 16-bit, and the fp32 log-softmax, at label positions only.
    copy = FP32 if run.width < FP32 else 0
    return run.batch * run.options * run.shape.vocab * (run.width + copy + FP32)


def _saved(run: _Run, frozen: bool = False) -> int:
    """Activations that the backward pass needs, all layers, no checkpointing (estimate, bytes).

    The count per layer is that of Korthikanti et al. 2022 (arXiv:2205.05198, section 4.1: s*b*h*34 bytes in
    16 bit plus attention scores), less the dropout masks and the scores, which fused attention never stores;
    a gated MLP and an RMSNorm computed in fp32 are counted the same way. Frozen weights need no inputs kept.
    """
    shape, width = run.shape, run.width
    norm_input = FP32 + (0 if frozen else width) if shape.rms_norm else width
    attention = 4 * shape.heads * shape.head_dim  # q, k, v (kv heads repeated) and the output
    inputs = 0 if frozen else 2 * shape.hidden  # of the q, k, v matrices and of the MLP
    _, kept, kept_frozen = _mlp_copies(shape)
    mlp = (kept_frozen if frozen else kept) * shape.intermediate
    return run.positions * shape.layers * (2 * norm_input * shape.hidden + (attention + inputs + mlp) * width)


def _backward_activations(run: _Run, frozen: bool = False) -> int:
    # On top of what was saved, the backward pass holds one block's gradients, about as wide as its forward;
    # the logits' gradient doubles the logits.
    return _saved(run, frozen) + max(_block_peak(run), 2 * _logits(run))


# --- Methods that only run forwards ---


def _tile(elements: int) -> int:
    return min(elements, NOISE_TILE) * FP32


def _inference(run: _Run) -> Bill:
    return Bill(run.method, run.weights, 0, run.forward)


def _probe(run: _Run) -> Bill:
    # theta + eps * z is written for one module at a time, so the largest tensor sets the scratch.
    largest = run.shape.largest_tensor
    return Bill(run.method, run.weights, largest * run.width + _tile(largest), run.forward)


def _combination(run: _Run) -> Bill:
    # MeZO-GV's direction is a sum over seeds, combined per tensor: the sum and one term, both fp32.
    plain = _probe(run)
    return Bill(run.method, run.weights, plain.scratch + 2 * run.shape.largest_tensor * FP32, run.forward)


def _per_example(run: _Run) -> Bill:
    # The base U of one matrix, dense even for the embedding when it is tied, since the head uses every row;
    # signs r and s for each example; the signed input and the product (s * x) U^T on top of the forward.
    shape = run.shape
    widest = max(shape.vocab, shape.intermediate)
    signs = run.batch * (widest + shape.hidden) * FP32
    product = run.positions * (shape.hidden + shape.intermediate) * run.width
    return Bill(run.method, run.weights, shape.largest_tensor * FP32 + signs, run.forward + product)


def _quantised(run: _Run) -> tuple[int, int]:
    """Bytes of the weights with quantised blocks, and the number of fp32 scales among them."""
    linears = run.shape.block_linears
    if run.bits == 4:
        scales = sum(ceil(linear.weights / NF4_BLOCK) for linear in linears)
    else:
        scales = sum(linear.rows for linear in linears)
    scales *= run.shape.layers
    quantised = run.shape.block_linear_parameters
    rest = (run.shape.parameters - quantised) * run.width
    return quantised * run.bits // 8 + scales * FP32 + rest, scales


def _dequantised(run: _Run) -> int:
    return max(linear.weights for linear in run.shape.block_linears) * run.width


def _scales(run: _Run) -> Bill:
    # The scales that the forward reads are rewritten from an fp32 master, which is kept as state.
    weights, scales = _quantised(run)
    return Bill(run.method, weights, _dequantised(run) + _tile(scales), run.forward, 0, scales * FP32)


PUSHED_BLOCKS = 2  # of the subspace `writers:2`, the home of the methods that push outputs


def _outputs(run: _Run) -> Bill:
    # Signs and the pushed output of one layer beside the forward; of what the layers read only means are kept. The
    # update of a matrix is added in place by one thin product.
    pushed = run.positions * run.shape.hidden * (FP32 + run.width)
    return Bill(run.method, run.weights, pushed, run.forward)


def _outputs_and_moments(run: _Run) -> Bill:
    # Adam builds the estimate of one matrix at a time, and keeps two moments of the writers that move. What the pushes
    # teach, from the features (as wide as the hidden state) to each of two writers a block, is kept with them.
    writers = run.shape.hidden * (run.shape.heads * run.shape.head_dim + run.shape.intermediate)
    one = run.shape.hidden * run.shape.intermediate * FP32
    plain = _outputs(run)
    moments = 2 * PUSHED_BLOCKS * writers * FP32
    jacobian = 2 * PUSHED_BLOCKS * run.shape.hidden**2 * FP32
    return Bill(run.method, run.weights, max(plain.scratch, 3 * one), run.forward, 0, moments + jacobian)


# --- References that run a backward pass ---


def _gradient(run: _Run) -> Bill:
    return Bill(run.method, run.weights, 0, _backward_activations(run), run.weights)


def _moments(run: _Run) -> Bill:
    # Mixed precision, 16 bytes per parameter: 16-bit weights and gradients, fp32 master and both moments.
    master = FP32 if run.width < FP32 else 0
    state = run.shape.parameters * (master + 2 * FP32)
    return Bill(run.method, run.weights, 0, _backward_activations(run), run.weights, state)


def _adamw_pure(run: _Run) -> Bill:
    # Everything in the weights' dtype: 8 bytes per parameter in 16 bit, at the price of lost small updates.
    return Bill(run.method, run.weights, 0, _backward_activations(run), run.weights, 2 * run.weights)


def _with_adapters(run: _Run, frozen_weights: int, scratch: int) -> Bill:
    # Adapters on q and v (on the one fused matrix where q, k and v share it), all in fp32: weights,
    # gradients and two moments. Under autocast they share one kept input, and each keeps a rank-wide result.
    shape, rank = run.shape, run.lora_rank
    linears = shape.block_linears
    targets = linears[:1] if shape.fused_qkv else (linears[0], linears[2])
    adapters = shape.layers * sum(rank * (linear.rows + linear.cols) for linear in targets) * FP32
    inputs = run.positions * shape.layers * (shape.hidden + len(targets) * rank) * run.width
    activations = _backward_activations(run, frozen=True) + inputs
    return Bill(run.method, frozen_weights + adapters, scratch, activations, adapters, 2 * adapters)


def _lora(run: _Run) -> Bill:
    return _with_adapters(run, run.weights, 0)


def _qlora(run: _Run) -> Bill:
    return _with_adapters(run, _quantised(run)[0], _dequantised(run))


COUNTS: Mapping[Memory, Callable[[_Run], Bill]] = {
    "probe": _probe,
    "combination": _combination,
    "per example": _per_example,
    "scales": _scales,
    "outputs": _outputs,
    "outputs and moments": _outputs_and_moments,
    "gradient": _gradient,
    "gradient and moments": _moments,
}
"""How a step's memory is counted; each method's row in `methods.py` names one."""


@dataclass(frozen=True)
class Reference:
    """Something to compare the methods with that is no method of this project."""

    title: str
    count: Callable[[_Run], Bill]


REFERENCES: Mapping[str, Reference] = {
    "lora-adamw": Reference("LoRA + AdamW", _lora),
    "qlora-adamw": Reference("QLoRA + AdamW", _qlora),
    "adamw-pure": Reference("AdamW, 16 bit", _adamw_pure),
    "inference": Reference("inference only", _inference),
}
NAMES = (*METHODS, *REFERENCES)
"""What there is a bill for."""
TABLE = (*METHODS, "lora-adamw")
"""The rows of the memory table."""


def title(name: str) -> str:
    """Return a method's or reference's name as people read it."""
    return METHODS[name].title if name in METHODS else REFERENCES[name].title


def bill(
    shape: ModelShape,
    method: str,
    batch: int = 16,
    tokens: int = 128,
    dtype: str = "bf16",
    *,
    options: int = 1,
    bits: int = 4,
    lora_rank: int = 8,
    kept_examples: int = 0,
) -> Bill:
    """Peak memory of one step, in bytes, for `batch` inputs of `tokens` with `options` label positions each.

    `bits` (4 or 8) counts for qzo and qlora-adamw, `lora_rank` for the two LoRA methods. `kept_examples` is how many
    training examples there are, where the last blocks alone move and what the others give for each is kept.
    """
    if method not in NAMES:
        raise ValueError(f"unknown method '{method}': choose one of {', '.join(NAMES)}.")
    if dtype not in _WIDTHS:
        raise ValueError(f"unknown dtype '{dtype}': choose one of {', '.join(_WIDTHS)}.")
    for name, value in {"batch": batch, "tokens": tokens, "options": options, "lora_rank": lora_rank}.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, not {value!r}.")
    if tokens > shape.positions:
        raise ValueError(f"{shape.name} reads at most {shape.positions} tokens, not {tokens}.")
    if bits not in (4, 8):
        raise ValueError(f"bits must be 4 or 8, not {bits!r}.")
    if not isinstance(kept_examples, int) or kept_examples < 0:
        raise ValueError(f"kept_examples must be 0 or more, not {kept_examples!r}.")
    count = COUNTS[METHODS[method].memory] if method in METHODS else REFERENCES[method].count
    counted = count(_Run(method, shape, batch, tokens, _WIDTHS[dtype], options, bits, lora_rank))
    return replace(counted, kept=kept_examples * tokens * shape.hidden * _WIDTHS[dtype])


def bills(shape: ModelShape, batch: int = 16, tokens: int = 128, dtype: str = "bf16", **settings: int) -> list[Bill]:
    """The bills of all methods and of LoRA with AdamW, in that order; the settings are those of `bill`."""
    return [bill(shape, method, batch, tokens, dtype, **settings) for method in TABLE]


def fits(bill: Bill) -> list[str]:
    """Names of the cards in `CARDS` that hold the total, smallest first (an estimate)."""
    return [card for card, usable in CARDS.items() if bill.total <= usable]


def render(bills: Sequence[Bill]) -> str:
    """The bills as an aligned text table in GB (MB when all are small), with the smallest card for each."""
    unit, scale = ("GB", GB) if any(one.total >= GB for one in bills) else ("MB", 10**6)
    keeps = any(one.kept for one in bills)
    head = ["method", "weights", "scratch", "activations", "gradients", "optimiser", f"total {unit}"]
    head += [*(["kept in RAM"] if keeps else []), "fits from"]
    rows = []
    for one in bills:
        kept = [one.kept] if keeps else []
        parts = (one.weights, one.scratch, one.activations, one.gradients, one.optimiser_state, one.total, *kept)
        card = next(iter(fits(one)), "no single card")
        rows.append([one.method, *(f"{part / scale:.2f}" for part in parts), card])
    return aligned(head, rows)
