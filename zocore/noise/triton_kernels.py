"""The noise of `addressed.py` as one pass over a tensor on a GPU: out = shrink * base + c * z, z in registers.

A program writes one stretch of one row: it makes whole blocks of noise (4 normals or 128 signs for each Philox
call), computes in float32 and rounds once, to nearest or stochastically. Equal bit for bit to plain torch, for
which three things have to hold at every launch: no fused multiply-add (`enable_fp_fusion=False`), division and
square root as IEEE 754 rounds them (`div_rn`, `sqrt_rn`), and no function from a device library.

`device_pass.py` launches these kernels. Nothing here needs a GPU to be imported, interpreted or compiled.
"""

from math import log, pi

import triton
import triton.language as tl

NOTHING, NORMALS, SIGNS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # what z is made of

LOG_2 = tl.constexpr(log(2))
QUARTER_TURN = tl.constexpr(pi / 2 * 2.0**-21)
CENTRE = tl.constexpr(0.5 - 2.0**20)
# the coefficients of addressed.py; each is rounded to float32 where it meets a float32 tensor
A3, A5, A7, A9 = (tl.constexpr(1 / n) for n in (3, 5, 7, 9))
S3, S5, S7, S9 = (tl.constexpr(n) for n in (-1 / 6, 1 / 120, -1 / 5040, 1 / 362880))
C2, C4, C6, C8 = (tl.constexpr(n) for n in (-1 / 2, 1 / 24, -1 / 720, 1 / 40320))
ULP_23 = tl.constexpr(2.0**-23)
FLOAT16_NORMAL, FLOAT16_STEP = tl.constexpr(2.0**-14), tl.constexpr(2.0**24)

# numbers that change with each call: specialising on their values would compile the kernel again and again
CHANGING = ("origin", "width", "chunks", "rank", "c", "shrink", "word", "direction", "step", "low", "high")
ROUNDING = ("round_direction", "round_step", "round_low", "round_high")


@triton.jit
def _philox(block, c1, c2, c3, k0, k1):
    """The four words (uint32) of each block number (uint32); the other arguments are uint32 scalars."""
    c0 = block
    for _ in tl.static_range(10):
        a_low, a_high = c0 * 0xD2511F53, tl.umulhi(c0, 0xD2511F53)
        b_low, b_high = c2 * 0xCD9E8D57, tl.umulhi(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = b_high ^ c1 ^ k0, b_low, a_high ^ c3 ^ k1, a_low
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def _words(block, word, direction, step, low, high):
    """Philox at an address whose parts come as int32: a Python integer above 2^31 would change the signature."""
    c1, c2, c3 = (
        word.to(tl.uint32, bitcast=True),
        direction.to(tl.uint32, bitcast=True),
        step.to(tl.uint32, bitcast=True),
    )
    k0, k1 = low.to(tl.uint32, bitcast=True), high.to(tl.uint32, bitcast=True)
    return _philox(block.to(tl.uint32), c1, c2, c3, k0, k1)


@triton.jit
def _interleave(a, b, c, d, COUNT: tl.constexpr):
    """a0 b0 c0 d0 a1 b1 ...: COUNT of each as one vector."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [4 * COUNT])


@triton.jit
def _radius(word):
    """sqrt(-2 ln u), as in addressed.py."""
    u = ((word >> 9).to(tl.int32).to(tl.float32) + 0.5) * ULP_23
    bits = u.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23
    m = (bits - (exponent << 23)).to(tl.float32, bitcast=True)
    s = tl.div_rn(m - 1.0, m + 1.0)
    t = s * s
    artanh = s * (1.0 + t * (A3 + t * (A5 + t * (A7 + t * A9))))
    return tl.sqrt_rn((exponent.to(tl.float32) * LOG_2 + 2.0 * artanh) * -2.0)


@triton.jit
def _box_muller(radius_word, angle_word):
    """Two normals from two words, as in addressed.py."""
    radius = _radius(radius_word)
    x = (((angle_word >> 9) & 0x1FFFFF).to(tl.int32).to(tl.float32) + CENTRE) * QUARTER_TURN
    t = x * x
    sine = x * (1.0 + t * (S3 + t * (S5 + t * (S7 + t * S9))))
    cosine = 1.0 + t * (C2 + t * (C4 + t * (C6 + t * C8)))
    cosine = tl.where((angle_word >> 31) == 1, -cosine, cosine)
    swap = ((angle_word >> 30) & 1) == 1
    return radius * tl.where(swap, sine, cosine), radius * tl.where(swap, cosine, sine)


@triton.jit
def _noise(block, word, direction, step, low, high, LAW: tl.constexpr, BLOCKS: tl.constexpr):
    """The elements of BLOCKS blocks in order, float32: 4 normals or 128 signs each."""
    w0, w1, w2, w3 = _words(block, word, direction, step, low, high)
    if LAW == NORMALS:
        z0, z1 = _box_muller(w0, w1)
        z2, z3 = _box_muller(w2, w3)
        z = _interleave(z0, z1, z2, z3, BLOCKS)
    else:
        flat = _interleave(w0, w1, w2, w3, BLOCKS)
        bits = (flat[:, None] >> tl.arange(0, 32).to(tl.uint32)[None, :]) & 1
        z = tl.reshape((bits.to(tl.int32) * 2 - 1).to(tl.float32), [128 * BLOCKS])
    return z


@triton.jit
def _load(pointer, inside):
    """Stored elements as float32, zero outside; bfloat16 by its bits, which is exact for every value."""
    x = tl.load(pointer, inside, other=0.0)
    if x.dtype == tl.bfloat16:
        wide = (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        wide = x.to(tl.float32)
    return wide


@triton.jit
def _store(pointer, inside, x):
    """Store float32 elements, rounded to nearest, ties to even; bfloat16 by integer arithmetic, as _load."""
    if pointer.dtype.element_ty == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        nearest = bits + 0x7FFF + ((bits >> 16) & 1)
        halves = tl.where(x == x, nearest >> 16, 0x7FC0).to(tl.int16)
        tl.store(pointer, halves.to(tl.bfloat16, bitcast=True), inside)
    else:
        tl.store(pointer, x.to(pointer.dtype.element_ty), inside)


@triton.jit
def _stochastic(x, words, target: tl.constexpr):
    """x rounded up or down to what the 16-bit target holds, with the chance that keeps the mean (still float32)."""
    bits = x.to(tl.int32, bitcast=True)
    if target == tl.bfloat16:
        rounded = ((bits + (words & 0xFFFF).to(tl.int32)) & -65536).to(tl.float32, bitcast=True)
    else:
        rounded = ((bits + (words & 0x1FFF).to(tl.int32)) & -8192).to(tl.float32, bitcast=True)
        small = tl.floor(x.to(tl.float64) * FLOAT16_STEP + words.to(tl.float64) * 2.3283064365386963e-10)
        rounded = tl.where(tl.abs(x) < FLOAT16_NORMAL, (small * 5.960464477539063e-08).to(tl.float32), rounded)
    return rounded


@triton.jit
def _store_rounded(
    out, at, inside, x, element, word, direction, step, low, high, STOCHASTIC: tl.constexpr, GROUPS: tl.constexpr
):
    """Store x of the elements from `element` on (a multiple of 4) with one rounding; four share a Philox call."""
    if STOCHASTIC:
        group = element // 4 + tl.arange(0, GROUPS)
        w0, w1, w2, w3 = _words(group, word, direction, step, low, high)
        x = _stochastic(x, _interleave(w0, w1, w2, w3, GROUPS), out.dtype.element_ty)
    _store(out + at, inside, x)


@triton.jit(do_not_specialize=[*CHANGING, "round_word", *ROUNDING])
def displace(
    out, base, numbers, left, right, origin: tl.int64, width: tl.int64, chunks, rank, c, shrink,
    word, direction, step, low, high, round_word, round_direction, round_step, round_low, round_high,
    LAW: tl.constexpr, PRODUCT: tl.constexpr, NUMBERED: tl.constexpr, STOCHASTIC: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """out = shrink * base + c * z for rows of `width` elements.

    The rows follow each other from element `origin` of the leaf on, or are those in `numbers`. With PRODUCT, z is
    multiplied by (or is, where LAW is NOTHING) sum_k left[row, k] right[k, column], summed in the order of k:
    left is (rows, rank), of all the leaf's rows where they are numbered, and right (rank, width), float32.
    """
    PER: tl.constexpr = 128 if LAW == SIGNS else 4
    row, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    number = tl.load(numbers + row) if NUMBERED else row.to(tl.int64)
    first = origin + number * width  # element of the leaf with which the row begins
    block = first // PER + chunk.to(tl.int64) * BLOCKS
    column = block * PER - first + tl.arange(0, PER * BLOCKS)
    inside = (column >= 0) & (column < width)
    at = row.to(tl.int64) * width + column
    x = _load(base + at, inside) * shrink
    if PRODUCT:
        total = tl.full([PER * BLOCKS], 0.0, tl.float32)
        for k in range(rank):
            of_row = tl.load(left + number * rank + k)
            total += of_row * tl.load(right + k * width + column, inside, other=0.0)
    if LAW == NOTHING:
        shift = total * c
    else:
        shift = _noise(block + tl.arange(0, BLOCKS), word, direction, step, low, high, LAW, BLOCKS) * c
        if PRODUCT:
            shift = shift * total
    _store_rounded(
        out, at, inside, x + shift, block * PER, round_word, round_direction, round_step, round_low, round_high,
        STOCHASTIC, PER * BLOCKS // 4,
    )  # fmt: skip


@triton.jit(do_not_specialize=["c", "shrink", "direction", "step", "low", "high", *ROUNDING])
def displace_many(
    table, like, c, shrink, direction, step, low, high, round_direction, round_step, round_low, round_high,
    LAW: tl.constexpr, STOCHASTIC: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """The same for many small tensors at once: one row of the table (int64) tells a program where it works.

    A row is (address of out, address of base, elements, first block, counter word of the leaf, that of its
    rounding); the tensors are whole leaves of the dtype that `like` points to.
    """
    PER: tl.constexpr = 128 if LAW == SIGNS else 4
    entry = table + tl.program_id(0) * 6
    out, base = tl.load(entry).to(like.dtype, bitcast=True), tl.load(entry + 1).to(like.dtype, bitcast=True)
    elements, block, word = tl.load(entry + 2), tl.load(entry + 3), tl.load(entry + 4).to(tl.int32)
    round_word = tl.load(entry + 5).to(tl.int32)
    at = block * PER + tl.arange(0, PER * BLOCKS)
    inside = at < elements
    z = _noise(block + tl.arange(0, BLOCKS), word, direction, step, low, high, LAW, BLOCKS)
    x = _load(base + at, inside) * shrink + z * c
    _store_rounded(
        out, at, inside, x, block * PER, round_word, round_direction, round_step, round_low, round_high,
        STOCHASTIC, PER * BLOCKS // 4,
    )  # fmt: skip


@triton.jit(do_not_specialize=["start", "count", "word", "direction", "step", "low", "high"])
def round_stochastically(
    out, exact, start: tl.int64, count: tl.int64, word, direction, step, low, high, GROUPS: tl.constexpr
):
    """Round a float32 vector into a 16-bit one; element i uses random word start + i."""
    group = start // 4 + tl.program_id(0).to(tl.int64) * GROUPS
    at = group * 4 - start + tl.arange(0, 4 * GROUPS)
    inside = (at >= 0) & (at < count)
    x = tl.load(exact + at, inside, other=0.0)
    _store_rounded(out, at, inside, x, group * 4, word, direction, step, low, high, True, GROUPS)
