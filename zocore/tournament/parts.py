"""Which examples are looked at, and how far guessing gets on them."""

from collections import Counter
from collections.abc import Sequence

from zocore.data.tasks import Example
from zocore.noise.addressed import permutation

PART = 2**31 + 2**20  # an epoch of the data order that no run reaches


def part(examples: Sequence[Example], count: int, seed: int = 0) -> tuple[Example, ...]:
    """Return at most `count` examples, drawn and not the first ones, since files may be sorted by label."""
    return tuple(examples[number] for number in permutation(len(examples), seed, PART)[:count])


def commonest(examples: Sequence[Example]) -> float:
    """Return the share of the commonest label: what guessing it gets right."""
    return max(Counter(example.label for example in examples).values()) / len(examples)
