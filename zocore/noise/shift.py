"""What one pass adds to a tensor: noise at an address, a sum of outer products, or the two multiplied."""

from dataclasses import dataclass

from torch import Tensor

from zocore.noise.addressed import Address


@dataclass(frozen=True, eq=False)
class Shift:
    """z of one leaf as a single pass can write it: noise, the product left @ right, or noise times that product.

    The product is summed in the order of its K terms on every device. Factors are (rows of the leaf, K) and
    (K, width), float32 (float64 for a float64 leaf).
    """

    where: Address | None = None  # of the noise; None for a product alone
    signs: bool = False  # Rademacher signs, else normals
    weight: float = 1.0  # multiplies c
    left: Tensor | None = None
    right: Tensor | None = None
