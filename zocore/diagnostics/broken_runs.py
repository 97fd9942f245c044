"""Runs broken on purpose, each in one way that people have met, until a warning names the fault.

Three are settings that make no sense; two are faults that this engine does not have, so they are put in here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from zocore.carriers.carrier import MoveTo
from zocore.carriers.in_place import InPlace
from zocore.config import RunConfig
from zocore.defaults import filled
from zocore.diagnostics.machinery_checks import find_fault
from zocore.directions.laws import Direction, SharedDirection
from zocore.noise.addressed import Key
from zocore.runs.events import Event, StepDone, Warned
from zocore.runs.loop import run_session
from zocore.runs.opening import open_session
from zocore.runs.session import Session
from zocore.step.losses import AnyDirection, Trace
from zocore.step.step import Method
from zocore.step.update import State
from zocore.weights.leaf import Leaf

CHECK_EVERY = 25  # steps between two checks of the machinery
AFTER = 15  # steps still done after a warning
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Fault:
    """One way to break a run."""

    title: str
    about: str
    settings: Callable[[RunConfig], RunConfig] = lambda config: config
    sabotage: Callable[[Session], None] = lambda session: None


class NoWayBack(InPlace):
    """In-place probes that stay where the last one was: the restore was forgotten."""

    @contextmanager
    def along(self, direction: SharedDirection) -> Iterator[MoveTo]:
        """Yield `move_to(offset)` and leave the weights there."""
        position = 0.0

        def move_to(offset: float) -> None:
            nonlocal position
            for leaf in self.leaves:
                direction.displace(leaf.matrix, leaf.matrix, leaf, offset - position)
                leaf.commit()
            position = offset

        yield move_to


class LostSeed(Method):
    """A method whose update draws new noise: the seed of the probe was lost."""

    def apply(
        self,
        leaves: Sequence[Leaf],
        directions: Sequence[AnyDirection],
        coefficients: Sequence[float],
        trace: Trace | None,
        key: Key,
        lr: float,
        state: State,
    ) -> None:
        """Update along fresh directions that were never probed."""
        lost = [replace(d, key=replace(d.key, step=d.key.step + 2**22)) for d in directions if isinstance(d, Direction)]
        super().apply(leaves, lost, coefficients, trace, key, lr, state)


def _forget_restore(session: Session) -> None:
    session.carrier = NoWayBack(session.leaves)


def _lose_seed(session: Session) -> None:
    method = session.method
    assert isinstance(method, Method)
    session.method = LostSeed(method.name, method.sampler, method.difference, method.shaping, method.update)


def _times(name: str, factor: float) -> Callable[[RunConfig], RunConfig]:
    return lambda config: replace(config, **{name: factor * getattr(filled(config), name)})


FAULTS: Mapping[str, Fault] = {
    "lr": Fault(
        "Learning rate × 100",
        "Each step overshoots, and the next one measures the slope at a worse place.",
        _times("lr", 100),
    ),
    "tiny-eps": Fault(
        "eps too small in half precision",
        "In 16 bits the probe rounds back onto the weights, so both sides give the same loss.",
        lambda config: replace(config, dtype="bf16", eps=1e-8),
    ),
    "huge-eps": Fault(
        "eps too large", "The probes are so far away that they see another part of the loss.", _times("eps", 100)
    ),
    "lost-seed": Fault(
        "Lost seed",
        "The update draws its noise without the probe's seed, and moves where nothing was measured.",
        sabotage=_lose_seed,
    ),
    "no-restore": Fault(
        "No restore",
        "After the second probe the weights stay at minus eps z, so training comes with a random walk.",
        sabotage=_forget_restore,
    ),
}


def run_broken(name: str, config: RunConfig, stop: Stop = lambda: False) -> Iterator[Event]:
    """Yield the events of a run broken in one way; it ends soon after a warning."""
    fault = FAULTS[name]
    session = open_session(fault.settings(replace(config, method="mezo", update="auto", carrier="scratch")))
    fault.sabotage(session)
    warned: list[int] = []
    last = 0

    def over() -> bool:
        return stop() or bool(warned and last >= warned[0] + AFTER)

    for event in run_session(session, over):
        yield event
        if isinstance(event, Warned):
            warned.append(event.step)
        if isinstance(event, StepDone):
            last = event.step
            if last % CHECK_EVERY == 0 and not warned and (message := find_fault(session, last)):
                warned.append(last)
                yield Warned(last, message)
