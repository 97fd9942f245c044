"""What every carrier can do: let forwards see theta + offset * z, and leave the weights as they were."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from zocore.carriers.layout import Layout

MoveTo = Callable[[float], None]  # takes an offset: the forwards that follow see theta + offset * z
D = TypeVar("D", contravariant=True)


class Carrier(Protocol[D]):
    """Carries directions of one type: those a whole batch shares, or one for each example."""

    layout: Layout | None  # of the forward to come; set by the losses

    def along(self, direction: D) -> AbstractContextManager[MoveTo]:
        """Return a block that yields `move_to(offset)` and ends with the weights where they were."""

    def cost(self, direction: D) -> float:
        """Return what one displaced forward costs, in plain ones."""
