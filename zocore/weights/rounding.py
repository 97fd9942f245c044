"""Storing float32 results in 16-bit weights without losing small steps.

Rounding to nearest swallows a step below half an ulp of the weight: at an rms step of 1.25e-5 only 11 % of
bfloat16 weights of size 0.02 move at all. Stochastic rounding goes up or down with the chance that makes the
mean exact, so steps survive on average, and each stored value is still off by less than one ulp.
"""

import torch
from torch import Tensor

from zocore.noise import device_pass
from zocore.noise.addressed import Address, uniform_words
from zocore.noise.kernels import random_words


def store(target: Tensor, exact: Tensor, where: Address, start: int) -> None:
    """Round `exact` (float32) stochastically into `target` (bfloat16 or float16) of the same shape.

    Element i of the tensor uses random word `start` + i of the address. Raises TypeError for other dtypes.
    """
    if target.dtype in (torch.bfloat16, torch.float16) and device_pass.fits(target, exact):
        return device_pass.round_stochastically(target, exact, where, start)
    words = _words(where, start, exact.numel(), exact.device).view(exact.shape)
    if target.dtype == torch.bfloat16:
        target.copy_(_drop_bits(exact, words, 16))
    elif target.dtype == torch.float16:
        target.copy_(torch.where(exact.abs() < 2.0**-14, _subnormal(exact, words), _drop_bits(exact, words, 13)))
    else:
        raise TypeError(f"stochastic rounding is for bfloat16 and float16, not {target.dtype}")


def _words(where: Address, start: int, count: int, device: torch.device) -> Tensor:
    return random_words(where, start, count) if device.type == "cpu" else uniform_words(where, start, count, device)


def _drop_bits(exact: Tensor, words: Tensor, bits: int) -> Tensor:
    """Add noise below the kept mantissa, then cut: the magnitude goes up with the chance of its cut part."""
    noise = (words & (1 << bits) - 1).to(torch.int32)
    return (exact.view(torch.int32) + noise & -1 << bits).view(torch.float32)


def _subnormal(exact: Tensor, words: Tensor) -> Tensor:
    """Below 2^-14 float16 is a fixed grid of step 2^-24."""
    return torch.floor(exact.double() * 2.0**24 + words.double() * 2.0**-32).float() * 2.0**-24
