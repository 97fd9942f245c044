"""The noise of `addressed.py` as one compiled pass: out = base + offset * z, with z made in registers.

On a CPU a weight pass costs little and its noise costs much: `torch.normal_` takes about fifteen times the
time of the addition. These loops are written so that the compiler turns each into vector instructions, and
keep z in a buffer that never leaves the first-level cache. `addressed.py` is the definition; this is its fast
copy, equal bit for bit (tests/noise/test_noise.py), and used for contiguous float32 tensors on the CPU only.
"""

from math import log, pi

import numpy as np
from numba import njit
from torch import Tensor, from_numpy

from zocore.noise.addressed import Address

f4, i4, u4, u8 = np.float32, np.int32, np.uint32, np.uint64
LANES = 128  # blocks of normals made at once
SIGN_LANES = 16  # blocks of signs made at once: 2048 signs, 8 KB

LOG_2 = f4(log(2))
QUARTER_TURN = f4(pi / 2 * 2.0**-21)
CENTRE = f4(0.5 - 2.0**20)
# the coefficients of addressed.py, rounded to float32 as torch rounds them there
A3, A5, A7, A9 = f4(1 / 3), f4(1 / 5), f4(1 / 7), f4(1 / 9)
S3, S5, S7, S9 = f4(-1 / 6), f4(1 / 120), f4(-1 / 5040), f4(1 / 362880)
C2, C4, C6, C8 = f4(-1 / 2), f4(1 / 24), f4(-1 / 720), f4(1 / 40320)
ONE, TWO, HALF, MINUS_TWO = f4(1), f4(2), f4(0.5), f4(-2)
ULP_23 = f4(2.0**-23)


def displace(out: Tensor, base: Tensor, where: Address, signs: bool, c: float, at: int | Tensor) -> None:
    """Write base + c * z into `out` (n, width) from element `at` of a leaf on, or for rows numbered (n,) int64.

    Both tensors are contiguous float32 on the CPU and may be the same one.
    """
    arguments = (f4(c), *where.counter, *where.key)
    if isinstance(at, int):
        one = displace_by_signs if signs else displace_by_normals
        one(out.view(-1).numpy(), base.view(-1).numpy(), at, *arguments)
    else:
        many = displace_rows_by_signs if signs else displace_rows_by_normals
        many(out.numpy(), base.numpy(), at.numpy(), *arguments)


compiled = njit(nogil=True, error_model="numpy", cache=True)


@compiled
def _philox(words, first, count, a1, a2, a3, k0, k1):
    """Fill words[0..3, :count] (uint32) with the blocks first, first + 1, ..."""
    for j in range(count):
        c0, c1, c2, c3 = u4(first + j), u4(a1), u4(a2), u4(a3)
        q0, q1 = u4(k0), u4(k1)
        for _ in range(10):
            a, b = u8(c0) * u8(0xD2511F53), u8(c2) * u8(0xCD9E8D57)
            c0, c1 = u4(b >> u8(32)) ^ c1 ^ q0, u4(b)
            c2, c3 = u4(a >> u8(32)) ^ c3 ^ q1, u4(a)
            q0, q1 = u4(q0 + u4(0x9E3779B9)), u4(q1 + u4(0xBB67AE85))
        words[0, j], words[1, j], words[2, j], words[3, j] = c0, c1, c2, c3


@compiled
def _radius(word, count, u, u_bits, m, m_bits, radius):
    """radius = sqrt(-2 ln u), as noise._log."""
    for j in range(count):
        u[j] = (f4(i4(word[j] >> u4(9))) + HALF) * ULP_23
    for j in range(count):
        exponent = (u_bits[j] - i4(0x3F3504F3)) >> i4(23)
        m_bits[j] = u_bits[j] - (exponent << i4(23))
        u_bits[j] = exponent
    for j in range(count):
        s = (m[j] - ONE) / (m[j] + ONE)
        t = s * s
        artanh = s * (ONE + t * (A3 + t * (A5 + t * (A7 + t * A9))))
        radius[j] = np.sqrt((f4(u_bits[j]) * LOG_2 + TWO * artanh) * MINUS_TWO)


@compiled
def _turn(word, count, radius, a, a_bits, b, b_bits):
    """(a, b) = radius (cos phi, sin phi), as noise._box_muller; signs and swap by bit arithmetic."""
    for j in range(count):
        x = (f4(i4((word[j] >> u4(9)) & u4(0x1FFFFF))) + CENTRE) * QUARTER_TURN
        t = x * x
        a[j] = radius[j] * (ONE + t * (C2 + t * (C4 + t * (C6 + t * C8))))
        b[j] = radius[j] * (x * (ONE + t * (S3 + t * (S5 + t * (S7 + t * S9)))))
    for j in range(count):
        a_bits[j] ^= i4(word[j] & u4(0x80000000))
        swapped = (a_bits[j] ^ b_bits[j]) & (i4(word[j] << u4(1)) >> i4(31))
        a_bits[j] ^= swapped
        b_bits[j] ^= swapped


@compiled
def _interleave(z, a, b, c, d, count):
    for j in range(count):
        z[j, 0], z[j, 1], z[j, 2], z[j, 3] = a[j], b[j], c[j], d[j]


@compiled
def _add(out, base, offset, z):
    for i in range(out.size):
        out[i] = base[i] + offset * z[i]


@compiled
def displace_by_normals(out, base, start, offset, a1, a2, a3, k0, k1):
    """out[i] = base[i] + offset * z[start + i] for float32 vectors; `out` may be `base`."""
    words = np.empty((4, LANES), np.uint32)
    lanes = np.empty((7, LANES), np.float32)
    bits = lanes.view(np.int32)  # the same memory, read as integers
    z = np.empty((LANES, 4), np.float32)
    done, block = 0, start // 4
    while done < out.size:
        skip = start + done - 4 * block  # nonzero only when the range starts inside a block
        count = min(LANES, (skip + out.size - done + 3) // 4)
        _philox(words, block, count, a1, a2, a3, k0, k1)
        _radius(words[0], count, lanes[0], bits[0], lanes[1], bits[1], lanes[2])
        _turn(words[1], count, lanes[2], lanes[3], bits[3], lanes[4], bits[4])
        _radius(words[2], count, lanes[0], bits[0], lanes[1], bits[1], lanes[2])
        _turn(words[3], count, lanes[2], lanes[5], bits[5], lanes[6], bits[6])
        _interleave(z, lanes[3], lanes[4], lanes[5], lanes[6], count)
        span = min(4 * count - skip, out.size - done)
        _add(out[done : done + span], base[done : done + span], offset, z.reshape(-1)[skip : skip + span])
        done += span
        block += count


@compiled
def _widen(word, z):
    """Bit i of the word as z[i] = +1 or -1."""
    for bit in range(32):
        z[bit] = f4(i4((word >> u4(bit)) & u4(1)) * i4(2) - i4(1))


@compiled
def displace_by_signs(out, base, start, offset, a1, a2, a3, k0, k1):
    """out[i] = base[i] + offset * z[start + i] with z = +1 or -1, for float32 vectors; `out` may be `base`."""
    words = np.empty((4, LANES), np.uint32)
    z = np.empty(128 * SIGN_LANES, np.float32)
    done, block = 0, start // 128
    while done < out.size:
        skip = start + done - 128 * block
        count = min(SIGN_LANES, (skip + out.size - done + 127) // 128)
        _philox(words, block, count, a1, a2, a3, k0, k1)
        for j in range(count):
            for k in range(4):
                _widen(words[k, j], z[128 * j + 32 * k :])
        span = min(128 * count - skip, out.size - done)
        _add(out[done : done + span], base[done : done + span], offset, z[skip : skip + span])
        done += span
        block += count


@compiled
def displace_rows_by_normals(out, base, rows, offset, a1, a2, a3, k0, k1):
    """The same for the rows (n, width) so numbered."""
    for i in range(rows.size):
        displace_by_normals(out[i], base[i], rows[i] * out.shape[1], offset, a1, a2, a3, k0, k1)


@compiled
def displace_rows_by_signs(out, base, rows, offset, a1, a2, a3, k0, k1):
    """The same for the rows (n, width) so numbered."""
    for i in range(rows.size):
        displace_by_signs(out[i], base[i], rows[i] * out.shape[1], offset, a1, a2, a3, k0, k1)


@compiled
def add_products(total, left, right):
    """total[i, j] += sum_k left[i, k] * right[k, j], term by term: the order of k is the order of the roundings."""
    for i in range(total.shape[0]):
        for k in range(right.shape[0]):
            for j in range(right.shape[1]):
                total[i, j] += left[i, k] * right[k, j]


def random_words(where: Address, start: int, count: int) -> Tensor:
    """Return what `noise.uniform_words` returns on a CPU: `count` integers (int64) from 0 to 2^32 - 1."""
    first = start // 4
    blocks = -(-(start + count) // 4) - first
    words = np.empty((4, blocks), np.uint32)
    _philox(words, first, blocks, *where.counter, *where.key)
    return from_numpy(words.T.reshape(-1)[start - 4 * first :][:count].astype(np.int64))
