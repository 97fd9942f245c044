"""Noise with an address: every random number of a run is a pure function of where it is used.

A random *stream* has a position, and two pieces of code can remember that position differently; that is how
published zeroth-order code came to update along directions it never probed. Here there is no stream. The
counter-based generator Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
maps an address to 128 random bits:

    key     = run seed (64 bits)
    counter = (block, leaf id + 2^24 * purpose, direction, step)           # four 32-bit words

so noise is the same in any order, tile, shard or dtype. Signs use only integers; normals use only additions,
multiplications, divisions and square roots, which IEEE 754 rounds in one way, so both are bitwise equal on
every device. `kernels.py` holds the compiled form for CPU tensors; a test proves the two equal bit for bit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from math import log, pi

import torch
from torch import Tensor

WORD = 0xFFFFFFFF  # mask of one 32-bit word
SIGNS_PER_BLOCK = 128  # four words of 32 bits
NORMALS_PER_BLOCK = 4  # two Box-Muller pairs
MAX_LEAF_ID = 2**24 - 1
TILE_BLOCKS = 2**15  # plain torch works fastest on a CPU while its dozen temporaries stay in cache
GPU_TILE = 2**24  # elements made at once elsewhere, where each of 150 operations is a launch
LARGEST = 2**32 * NORMALS_PER_BLOCK  # elements that block numbers of 32 bits reach
VERSION = 1  # goes into every recording: another version of this file means other noise


class Purpose(IntEnum):
    """What a draw is for: draws of different purposes never share an address."""

    NORMAL = 0
    SIGN = 1
    ROW_SIGN = 2
    COLUMN_SIGN = 3
    LEFT_FACTOR = 4
    RIGHT_FACTOR = 5
    ROUNDING = 6
    DATA_ORDER = 7
    INITIAL = 8
    PUSH = 9
    SAMPLE = 10


@dataclass(frozen=True)
class Key:
    """The address of one direction: (run seed, step, direction). Raises ValueError when a part is out of range."""

    seed: int
    step: int
    direction: int = 0

    def __post_init__(self) -> None:
        for part, bits in (("seed", 64), ("step", 32), ("direction", 32)):
            if not 0 <= getattr(self, part) < 2**bits:
                raise ValueError(f"{part} must be from 0 to 2^{bits} - 1, not {getattr(self, part)}")


@dataclass(frozen=True)
class Address:
    """The part of Philox's input that is constant over one tensor: counter words 1 to 3 and the two key words."""

    counter: tuple[int, int, int]
    key: tuple[int, int]


def address(key: Key, leaf_id: int, purpose: Purpose) -> Address:
    """Return the address of a whole tensor of noise. Raises ValueError when the leaf id has more than 24 bits."""
    if not 0 <= leaf_id <= MAX_LEAF_ID:
        raise ValueError(f"leaf id must be from 0 to {MAX_LEAF_ID}, not {leaf_id}")
    return Address((leaf_id + (int(purpose) << 24), key.direction, key.step), (key.seed & WORD, key.seed >> 32))


def philox(blocks: Tensor, where: Address) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four 32-bit words of each block number, as int64 tensors of the shape of `blocks`."""
    c0 = blocks
    c1, c2, c3 = (torch.full_like(blocks, word) for word in where.counter)
    k0, k1 = where.key
    for _ in range(10):
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # wraps modulo 2^64: every bit right, the sign ignored below
        c0, c1, c2, c3 = (b >> 32 & WORD) ^ c1 ^ k0, b & WORD, (a >> 32 & WORD) ^ c3 ^ k1, a & WORD
        k0, k1 = k0 + 0x9E3779B9 & WORD, k1 + 0xBB67AE85 & WORD
    return c0, c1, c2, c3


def signs(where: Address, start: int | Tensor, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return Rademacher signs (float32, +1 or -1) of `count` elements from `start` on.

    A tensor of starts (n,), in units of `count`, gives (n, count): the rows so numbered of a matrix.
    """
    return _gather(where, start, count, device, SIGNS_PER_BLOCK, _sign_block)


def normals(where: Address, start: int | Tensor, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return standard normals (float32, at most 5.8 in size), addressed as in `signs`."""
    return _gather(where, start, count, device, NORMALS_PER_BLOCK, _normal_block)


def uniform_words(where: Address, start: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return `count` uniform integers from 0 to 2^32 - 1 (int64) of the elements from `start` on."""
    return _gather(where, start, count, device, 4, lambda words: torch.stack(words, dim=-1))


def permutation(count: int, seed: int, epoch: int) -> list[int]:
    """Return the order in which epoch number `epoch` visits `count` examples, from the data's own addresses."""
    words = uniform_words(address(Key(seed, epoch), 0, Purpose.DATA_ORDER), 0, count)
    return torch.argsort(words, stable=True).tolist()


Expand = Callable[[tuple[Tensor, ...]], Tensor]


def _gather(
    where: Address, start: int | Tensor, count: int, device: torch.device | str, per_block: int, expand: Expand
) -> Tensor:
    """Expand the blocks that cover the wanted elements and cut away what lies outside."""
    if isinstance(start, Tensor):
        return _gather_rows(where, start * count, count, per_block, expand)
    first, last = start // per_block, -(-(start + count) // per_block)
    parts = [expand(philox(blocks, where)).reshape(-1) for blocks in _tiles(first, last, device, per_block)]
    whole = torch.cat(parts) if parts else torch.empty(0, device=device)
    return whole[start - first * per_block :][:count]


def _gather_rows(where: Address, starts: Tensor, count: int, per_block: int, expand: Expand) -> Tensor:
    """The same for many stretches of `count` elements at once: (n,) starts give (n, count)."""
    span = -(-count // per_block) + 1  # blocks that cover a stretch wherever it starts
    blocks = (starts // per_block).unsqueeze(1) + torch.arange(span, device=starts.device)
    whole = expand(philox(blocks, where)).reshape(len(starts), span * per_block)
    columns = (starts % per_block).unsqueeze(1) + torch.arange(count, device=starts.device)
    return whole.gather(1, columns)


def _tiles(first: int, last: int, device: torch.device | str, per_block: int) -> Iterator[Tensor]:
    size = TILE_BLOCKS if torch.device(device).type == "cpu" else GPU_TILE // per_block
    for block in range(first, last, size):
        yield torch.arange(block, min(block + size, last), dtype=torch.int64, device=device)


def _sign_block(words: tuple[Tensor, ...]) -> Tensor:
    """Element i of a block is bit i % 32 of word i // 32: 1 gives +1, 0 gives -1."""
    shifts = torch.arange(32, device=words[0].device)
    bits = torch.stack(words, dim=-1).unsqueeze(-1) >> shifts & 1
    return (2 * bits - 1).to(torch.float32)


def _normal_block(words: tuple[Tensor, ...]) -> Tensor:
    return torch.stack((*_box_muller(words[0], words[1]), *_box_muller(words[2], words[3])), dim=-1)


def _box_muller(radius_word: Tensor, angle_word: Tensor) -> tuple[Tensor, Tensor]:
    """Two normals from two words: r cos(phi) and r sin(phi), with r^2 = -2 ln u and phi uniform on the circle."""
    u = ((radius_word >> 9).to(torch.float32) + 0.5) * 2.0**-23  # exact, never 0 or 1
    radius = (_log(u) * -2.0).double().sqrt().float()  # CPU torch.sqrt of float32 is not correctly rounded
    # phi = x + q pi/2: 21 bits give x in (-pi/4, pi/4), the two top bits the quadrant q
    x = ((angle_word >> 9 & 0x1FFFFF).to(torch.float32) + (0.5 - 2.0**20)) * (pi / 2 * 2.0**-21)
    sine, cosine = _sine_cosine(x)
    cosine = torch.where(angle_word >> 31 == 1, -cosine, cosine)
    swap = (angle_word >> 30 & 1) == 1
    return radius * torch.where(swap, sine, cosine), radius * torch.where(swap, cosine, sine)


def _log(u: Tensor) -> Tensor:
    """ln u by u = m 2^e with m in [sqrt(1/2), sqrt(2)) and ln m = 2 artanh((m-1)/(m+1)), summed to s^9."""
    bits = u.view(torch.int32)
    exponent = bits - 0x3F3504F3 >> 23  # 0x3F3504F3 is sqrt(1/2) as a float32
    m = (bits - (exponent << 23)).view(torch.float32)
    s = (m - 1.0) / (m + 1.0)
    t = s * s
    artanh = s * (1.0 + t * (1 / 3 + t * (1 / 5 + t * (1 / 7 + t * (1 / 9)))))
    return exponent.to(torch.float32) * log(2) + 2.0 * artanh


def _sine_cosine(x: Tensor) -> tuple[Tensor, Tensor]:
    """Taylor sums, good to one float32 rounding for |x| <= pi/4."""
    t = x * x
    sine = x * (1.0 + t * (-1 / 6 + t * (1 / 120 + t * (-1 / 5040 + t * (1 / 362880)))))
    cosine = 1.0 + t * (-1 / 2 + t * (1 / 24 + t * (-1 / 720 + t * (1 / 40320))))
    return sine, cosine
