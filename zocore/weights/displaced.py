"""out = shrink * base + c * z on any device and in any dtype, computed wide and rounded once.

One compiled pass writes it where there is one (numba on a CPU, Triton on CUDA), plain torch elsewhere, and all
give the same bits: a product is summed in the order of its terms, never by a matrix library, whose order
differs from one device to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zocore.noise import addressed, device_pass, kernels
from zocore.noise.addressed import Address
from zocore.noise.device_pass import Small
from zocore.noise.shift import Shift
from zocore.weights.leaf import tiles
from zocore.weights.rounding import store

Rows = int | Tensor  # the first row of a run of rows, or the number of each row (int64)
SMALL = 2**16  # elements up to which the launch costs more than the pass


def displace(
    out: Tensor,
    base: Tensor,
    shift: Shift,
    c: float,
    rows: Rows = 0,
    shrink: float = 1.0,
    rounding: Address | None = None,
) -> None:
    """Write shrink * base + c * z into `out`, both (n, width) of any float dtype: the given rows of a leaf.

    `out` may be `base`. With `rounding`, a 16-bit `out` is rounded stochastically by the words at that address;
    the rows must then follow each other.
    """
    c, width, left, right = c * shift.weight, out.shape[1], shift.left, shift.right
    at = rows * width if isinstance(rows, int) else rows.to(out.device, non_blocking=True)
    if isinstance(at, int) and at + out.numel() > addressed.LARGEST:
        raise ValueError(
            f"a tensor of {at + out.numel()} elements is beyond the noise's addresses: 2^34 is the largest"
        )
    if left is not None and right is not None and isinstance(rows, int):
        left = left[rows : rows + len(out)]
        if width == 1:  # a vector: one long row is faster than many short ones
            out, base, left, right = out.view(1, -1), base.view(1, -1), right.T, left.T.contiguous()
        left = left.contiguous()
    shift = Shift(shift.where, shift.signs, left=left, right=right)
    if device_pass.fits(out, base, left, right):
        device_pass.displace(out, base, shift, c, at, shrink, rounding)
    elif left is None and shrink == 1 and _numba(out, base):
        _add(out, base, shift, c, at)
    else:
        for tile in tiles(out):
            _tile(out, base, shift, c, at, shrink, rounding, tile)


@dataclass(frozen=True, eq=False)
class Job:
    """What `displace` is to do to one whole leaf."""

    out: Tensor
    base: Tensor
    shift: Shift
    shrink: float = 1.0
    rounding: Address | None = None

    @property
    def kind(self) -> tuple[object, ...] | None:
        """What jobs have in common that one launch can do, or None for one that is worth its own."""
        small = self.out.numel() <= SMALL and self.out.dtype == self.base.dtype
        if self.shift.where is None or self.shift.left is not None or not small:
            return None
        if not device_pass.fits(self.out, self.base):
            return None
        shift = self.shift
        return self.out.dtype, self.out.device, shift.signs, shift.weight, self.shrink, self.rounding is None


def displace_all(jobs: Sequence[Job], c: float) -> None:
    """Do many jobs; where the device has compiled passes, small leaves of a kind take one launch together."""
    kinds: dict[tuple[object, ...] | None, list[Job]] = {}
    for job in jobs:
        kinds.setdefault(job.kind, []).append(job)
    for kind, alike in kinds.items():
        if kind is None or len(alike) == 1:
            for job in alike:
                displace(job.out, job.base, job.shift, c, 0, job.shrink, job.rounding)
        else:
            shift = alike[0].shift
            smalls = [Small(j.out, j.base, j.shift.where, j.rounding) for j in alike if j.shift.where is not None]
            device_pass.displace_many(smalls, shift.signs, c * shift.weight, alike[0].shrink)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which noise is added: float64 for float64, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def thin_product(left: Tensor, right: Tensor) -> Tensor:
    """Return left (n, K) @ right (K, width), each element summed in the order of k: the same on every device."""
    total = torch.zeros(left.shape[0], right.shape[1], dtype=left.dtype, device=left.device)
    if device_pass.fits(total, left, right) and left.is_contiguous():
        device_pass.displace(total, total, Shift(left=left, right=right), 1.0)
    elif _numba(total, right):
        kernels.add_products(total.numpy(), left.contiguous().numpy(), right.numpy())
    else:
        for k in range(left.shape[1]):
            total += left[:, k : k + 1] * right[k]
    return total


def _tile(
    out: Tensor,
    base: Tensor,
    shift: Shift,
    c: float,
    at: int | Tensor,
    shrink: float,
    rounding: Address | None,
    tile: slice,
) -> None:
    """The same for some of the rows, through a wide copy where `out` cannot take the sum as it is."""
    exact = wide(base.dtype)
    source = base[tile].to(exact)
    if shrink != 1:
        source = source * shrink
    direct = out.dtype == exact and rounding is None
    target = out[tile] if direct else torch.empty_like(source)
    here = at + tile.start * out.shape[1] if isinstance(at, int) else at[tile]
    if shift.left is None or shift.right is None:
        _add(target, source, shift, c, here)
    else:
        left = shift.left[tile] if isinstance(at, int) else shift.left[here]
        total = thin_product(left.to(exact), shift.right.to(exact))
        if shift.where is None:
            torch.add(source, total.mul_(c), out=target)
        else:
            z = torch.zeros_like(source)
            _add(z, z, shift, c, here)
            torch.add(source, z.mul_(total), out=target)
    if rounding is not None and isinstance(here, int):
        store(out[tile], target, rounding, here)
    elif not direct:
        out[tile].copy_(target)


def _add(out: Tensor, base: Tensor, shift: Shift, c: float, at: int | Tensor) -> None:
    """out = base + c * noise in float32 or float64, from element `at` on or for the rows so numbered."""
    assert shift.where is not None
    if _numba(out, base):
        return kernels.displace(out, base, shift.where, shift.signs, c, at)
    draw = addressed.signs if shift.signs else addressed.normals
    count = out.numel() if isinstance(at, int) else out.shape[1]
    z = draw(shift.where, at, count, out.device).view(out.shape)
    torch.add(base, z.to(out.dtype).mul_(c), out=out)


def _numba(*tensors: Tensor) -> bool:
    """Whether the compiled CPU loops can read and write these tensors."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 and t.is_contiguous() for t in tensors)
