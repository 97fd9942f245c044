"""The papers' formulas in NumPy and plain Python, written from the specs and sharing no line with zocore.

Losses are functions of a flat float64 vector; every z is fed in. Learning rates are the papers' own: where
zocore's means something else, the test that compares says so.
"""

from collections.abc import Callable, Sequence
from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Loss = Callable[[Vector], float]
PerExampleLoss = Callable[[int, Vector], float]  # (example, its own weights) -> its loss

MASK = 0xFFFFFFFF


def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 of Salmon et al. (SC 2011) on Python's unbounded integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for number in range(10):
        if number:
            k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    return c0, c1, c2, c3


def _block(number: int, seed: int, step: int, direction: int, leaf: int, purpose: int) -> tuple[int, int, int, int]:
    return philox((number, leaf + 2**24 * purpose, direction, step), (seed & MASK, seed >> 32))


def sign(index: int, seed: int, step: int, direction: int, leaf: int, purpose: int) -> int:
    """Element `index` of a sign tensor: block i // 128, word (i % 128) // 32, bit i % 32."""
    word = _block(index // 128, seed, step, direction, leaf, purpose)[index % 128 // 32]
    return 1 if word >> index % 32 & 1 else -1


def normal(index: int, seed: int, step: int, direction: int, leaf: int, purpose: int = 0) -> float:
    """Element `index` of a normal tensor in float64: block i // 4, two Box-Muller pairs.

    The angle's top two bits are the quadrant; the next 21 place it within the quadrant, about its middle.
    """
    words = _block(index // 4, seed, step, direction, leaf, purpose)
    radius_word, angle_word = words[2 * (index % 4 // 2) : 2 * (index % 4 // 2) + 2]
    radius = sqrt(-2 * np.log(((radius_word >> 9) + 0.5) / 2**23))
    x = ((angle_word >> 9) % 2**21 + 0.5 - 2**20) * np.pi / 2**22
    c, s = (-np.cos(x) if angle_word >> 31 else np.cos(x)), np.sin(x)
    if angle_word >> 30 & 1:
        c, s = s, c
    return float(radius * (s if index % 2 else c))


def phi(x: float) -> float:
    """The standard normal distribution function."""
    return 0.5 * (1 + erf(x / sqrt(2)))


def kolmogorov_smirnov(sample: Vector, cdf: Callable[[float], float]) -> float:
    """The largest distance between the sample's distribution function and `cdf`."""
    ordered = np.sort(np.asarray(sample, dtype=np.float64))
    exact = np.array([cdf(float(x)) for x in ordered])
    n = len(ordered)
    return float(max((np.arange(1, n + 1) / n - exact).max(), (exact - np.arange(n) / n).max()))


def mezo(loss: Loss, theta: Vector, z: Vector, eps: float, lr: float) -> Vector:
    """MeZO (2305.17333): g = (L(theta + eps z) - L(theta - eps z)) / 2 eps, theta - lr g z."""
    g = (loss(theta + eps * z) - loss(theta - eps * z)) / (2 * eps)
    return theta - lr * g * z


def n_spsa(loss: Loss, theta: Vector, zs: Sequence[Vector], eps: float, lr: float) -> Vector:
    """n-SPSA: theta - (lr / n) sum_j g_j z_j, all g_j at the same theta."""
    total = np.zeros_like(theta)
    for z in zs:
        total += (loss(theta + eps * z) - loss(theta - eps * z)) / (2 * eps) * z
    return theta - lr / len(zs) * total


def clipped(loss: Loss, theta: Vector, z: Vector, eps: float, lr: float, threshold: float) -> Vector:
    """QZO (2505.13430): MeZO with d' = clip(d, -C, C)."""
    d = (loss(theta + eps * z) - loss(theta - eps * z)) / (2 * eps)
    return theta - lr * min(max(d, -threshold), threshold) * z


def fzoo(loss: Loss, theta: Vector, us: Sequence[Vector], eps: float, lr: float) -> Vector:
    """FZOO (2506.09034): g = 1/(eps N) sum (l_i - l_0) u_i, divided by the sample deviation of the l_i."""
    base = loss(theta)
    losses = [loss(theta + eps * u) for u in us]
    mean = sum(losses) / len(losses)
    deviation = sqrt(sum((one - mean) ** 2 for one in losses) / (len(losses) - 1))
    g = sum(((one - base) * u for one, u in zip(losses, us, strict=True)), np.zeros_like(theta)) / (eps * len(us))
    return theta - lr * g / deviation


def openai_es(loss: Loss, theta: Vector, zs: Sequence[Vector], sigma: float, lr: float) -> Vector:
    """OpenAI-ES (1703.03864): theta + lr / (n sigma) sum_i F_i eps_i, antithetic, F = centred ranks of
    -loss.
    """
    noises = [*zs, *(-z for z in zs)]
    fitness = [-loss(theta + sigma * noise) for noise in noises]
    ranks = np.array([sum(other < one for other in fitness) for one in fitness]) / (len(fitness) - 1) - 0.5
    total = sum((rank * noise for rank, noise in zip(ranks, noises, strict=True)), np.zeros_like(theta))
    return theta + lr / (len(noises) * sigma) * total


def grzo(loss: PerExampleLoss, theta: Vector, deltas: Sequence[Vector], sigma: float, lr: float, scale: str) -> Vector:
    """GRZO (2606.02857): a_i = delta_i / (s + 1e-8), theta - lr / (2 sigma B) sum_i a_i Delta_i.

    `std` is the paper's s (about the mean, divisor B - 1), `rms` the root mean square,
    `raw` has a_i = delta_i.
    """
    count = len(deltas)
    differences = np.array(
        [loss(i, theta + sigma * deltas[i]) - loss(i, theta - sigma * deltas[i]) for i in range(count)]
    )
    if scale == "std":
        differences = differences / (differences.std(ddof=1) + 1e-8)
    if scale == "rms":
        differences = differences / (sqrt((differences**2).mean()) + 1e-8)
    total = sum((a * delta for a, delta in zip(differences, deltas, strict=True)), np.zeros_like(theta))
    return theta - lr / (2 * sigma * count) * total


def mezo_gv(loss: Loss, theta: Vector, zs: Sequence[Vector], share: float, eps: float, lr: float) -> Vector:
    """MeZO-GV (2601.04710): v = mean(elite z) - mean(other z) by L(theta + eps z), then MeZO along v."""
    ranked = sorted(zs, key=lambda z: loss(theta + eps * z))
    elite = int(share * len(zs))
    v = np.mean(ranked[:elite], axis=0) - np.mean(ranked[elite:], axis=0)
    return mezo(loss, theta, v, eps, lr)


def mezo_greedy(loss: Loss, theta: Vector, zs: Sequence[Vector], eps: float, lr: float) -> Vector:
    """MeZO-Greedy (2601.04710): MeZO along the candidate of lowest L(theta + eps z)."""
    return mezo(loss, theta, min(zs, key=lambda z: loss(theta + eps * z)), eps, lr)


def flip(base: Vector, rows: Vector, columns: Vector) -> Vector:
    """Delta_i = U * (r_i s_i^T) of one matrix, flat."""
    return (base * np.outer(rows, columns)).reshape(-1)
