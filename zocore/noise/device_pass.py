"""Launching the kernels of `triton_kernels.py`: one pass over a tensor, or over many small ones.

Triton comes with torch for CUDA and needs a C compiler to build its launcher. Where either is missing, plain
torch makes the same noise bit for bit, and one warning says what that costs.
"""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from zocore.noise.addressed import NORMALS_PER_BLOCK, SIGNS_PER_BLOCK, Address, Key, Purpose, address
from zocore.noise.shift import Shift

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
STRETCH = 1024  # elements that one program writes
TABLES = 8  # tables of small leaves that are kept
NOWHERE = Address((0, 0, 0), (0, 0))  # where nothing is drawn


@dataclass(frozen=True, eq=False)
class Small:
    """One of many tensors written in one launch: a whole leaf, contiguous; all are of one dtype."""

    out: Tensor
    base: Tensor
    where: Address
    rounding: Address | None = None  # where a 16-bit tensor is rounded stochastically; for all of them or for none


@cache
def compiled(device_type: str) -> bool:
    """Whether tensors of this kind of device have compiled passes; tried once, on one small tensor."""
    if device_type != "cuda":
        return False
    try:
        x = torch.zeros(1, 8, device=device_type)
        displace(x, x, Shift(address(Key(0, 0), 0, Purpose.NORMAL)), 1.0)
    except Exception as error:  # no Triton, no compiler, no driver it knows: each raises something else
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        warnings.warn(
            "noise on the GPU is made by plain torch, with over a hundred launches for each tensor instead of one, "
            f"because Triton does not work here ({reason}): the results are the same, but steps are much slower. "
            "Triton needs a C compiler: install gcc and libc6-dev",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def fits(*tensors: Tensor | None) -> bool:
    """Whether compiled passes exist for these tensors' device, dtypes and layout."""
    given = [t for t in tensors if t is not None]
    return compiled(given[0].device.type) and all(t.dtype in DTYPES and t.is_contiguous() for t in given)


def displace(
    out: Tensor,
    base: Tensor,
    shift: Shift,
    c: float,
    at: int | Tensor = 0,
    shrink: float = 1.0,
    rounding: Address | None = None,
) -> None:
    """Write shrink * base + c * z into `out` (n, width), which begins at element `at` of its leaf.

    Or, with a tensor `at` (n,), for the rows so numbered. `shift.left` holds the factors of the n rows, of all
    the leaf's rows where they are numbered. With `rounding`, a 16-bit `out` is rounded stochastically by the
    words at that address.
    """
    if not out.numel():
        return
    height, width = out.shape
    where, left, right = shift.where, shift.left, shift.right
    if left is None and isinstance(at, int):  # rows that follow each other are one long row
        height, width = 1, height * width
    law = 0 if where is None else 2 if shift.signs else 1
    per = SIGNS_PER_BLOCK if law == 2 else NORMALS_PER_BLOCK
    chunks = -(-width // STRETCH) + 1  # a row may begin inside a block
    noise = where or rounding or NOWHERE
    with _on(out.device):
        _kernels().displace[(height * chunks,)](
            out,
            base,
            out if isinstance(at, int) else at,
            out if left is None else left,
            out if right is None else right,
            at if isinstance(at, int) else 0,
            width,
            chunks,
            0 if left is None else left.shape[1],
            c,
            shrink,
            *_signed(noise),
            *_signed(rounding or noise),
            LAW=law,
            PRODUCT=left is not None,
            NUMBERED=not isinstance(at, int),
            STOCHASTIC=rounding is not None,
            BLOCKS=STRETCH // per,
            enable_fp_fusion=False,
        )


def displace_many(tensors: Sequence[Small], signs: bool, c: float, shrink: float = 1.0) -> None:
    """Write shrink * base + c * z into many small tensors in one launch; their addresses differ in the leaf alone."""
    like, blocks = tensors[0].out, STRETCH // (SIGNS_PER_BLOCK if signs else NORMALS_PER_BLOCK)
    where, rounding = tensors[0].where, tensors[0].rounding
    table = _table(tensors, blocks)
    with _on(like.device):
        _kernels().displace_many[(len(table),)](
            table,
            like,
            c,
            shrink,
            *_signed(where)[1:],
            *_signed(rounding or where)[1:],
            LAW=2 if signs else 1,
            STOCHASTIC=rounding is not None,
            BLOCKS=blocks,
            enable_fp_fusion=False,
        )


def round_stochastically(out: Tensor, exact: Tensor, where: Address, start: int) -> None:
    """Round `exact` (float32) into `out` (16-bit) of the same shape; element i uses random word `start` + i."""
    with _on(out.device):
        _kernels().round_stochastically[(-(-out.numel() // STRETCH) + 1,)](
            out, exact, start, out.numel(), *_signed(where), GROUPS=STRETCH // 4, enable_fp_fusion=False
        )


_tables: dict[tuple[Any, ...], Tensor] = {}


def _table(tensors: Sequence[Small], blocks: int) -> Tensor:
    """Where each program works, as `displace_many` reads it; kept on the device."""
    places = [
        (s.out.data_ptr(), s.base.data_ptr(), s.out.numel(), s.where.counter[0], (s.rounding or s.where).counter[0])
        for s in tensors
    ]
    device = tensors[0].out.device
    key = (device, blocks, *places)
    if key not in _tables:
        if len(_tables) >= TABLES:
            _tables.clear()
        rows = [
            (out, base, elements, blocks * program, word, round_word)
            for out, base, elements, word, round_word in places
            for program in range(-(-elements // STRETCH))
        ]
        _tables[key] = torch.tensor(rows, dtype=torch.int64).to(device, non_blocking=True)
    return _tables[key]


def _signed(where: Address) -> list[int]:
    """The five words of an address as 32-bit integers with a sign: others would be passed in another type."""
    return [word - 2**32 if word >= 2**31 else word for word in (*where.counter, *where.key)]


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which is another where a model is spread over several."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@cache
def _kernels() -> Any:
    from zocore.noise import triton_kernels  # Triton is there on CUDA machines only

    return triton_kernels
