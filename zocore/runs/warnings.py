"""Warnings about the usual ways in which a zeroth-order run goes wrong, each with what to do about it."""

from collections import deque
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean, variance

from zocore.runs.events import StepDone, Warned

WINDOW = 20  # steps looked at together
PLATEAU = 120  # steps within which a loss should have fallen
CLEAR = 2.0  # standard errors by which the second half of them has to lie below the first
LEARNED = 0.8  # of the first losses: below it, standing still is the end of a run that went well
FITTED = 0.1  # a loss below this has little left to fall
DECAYED = 0.3  # of the first rate: below it a schedule has all but ended the run, and standing still is meant
START = 3  # steps whose loss is the start's: one that overshoots climbs within a few
MAX_SKIPPED = 5  # non-finite losses in a row that end a run


@dataclass
class Watch:
    """Reads the steps of a run and gives each warning once."""

    given: set[str] = field(default_factory=set)
    skipped_in_row: int = 0
    skipped: int = 0
    _first: list[float] = field(default_factory=list)
    _last: deque[StepDone] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _long: deque[float] = field(default_factory=lambda: deque(maxlen=PLATEAU))
    _first_lr: float = 0.0

    def add(self, step: StepDone) -> list[Warned]:
        """Take in one step and return the warnings it gives rise to."""
        self.skipped_in_row = self.skipped_in_row + 1 if step.skipped else 0
        self.skipped += step.skipped
        if step.skipped:
            return []
        self._last.append(step)
        self._long.append(step.loss)
        self._first_lr = self._first_lr or step.lr
        if len(self._first) < START:
            self._first.append(step.loss)
        return [warning for warning in self._look(step.step) if warning is not None]

    def _look(self, step: int) -> list[Warned | None]:
        if len(self._last) < WINDOW:
            return []
        losses = [event.loss for event in self._last]
        silent = [event for event in self._last if event.loss_plus and event.loss_plus == event.loss_minus]
        climbed = fmean(losses) > 1.5 * max(self._first) + 0.1  # a loss that has saturated up there is silent too
        return [
            self._once(
                step,
                climbed,
                "the loss has climbed well above its start: the learning rate is too high, try a tenth of it",
            ),
            self._once(
                step,
                len(silent) > WINDOW // 2 and not climbed,
                "most probes give the same loss on both sides, so nothing can be learned from them: "
                "eps is too small for this dtype or objective, or the examples are all fitted",
            ),
            self._once(
                step,
                self._last[-1].lr > DECAYED * self._first_lr and self._has_learned_nothing(),
                f"the loss has not clearly fallen in {PLATEAU} steps: try three times the learning rate, or more "
                "directions; --lr auto looks for a rate",
            ),
            self._once(
                step,
                all(loss == 0 for loss in losses),
                "the loss is exactly 0: the examples are fitted, or the loss is not what it should be",
            ),
        ]

    def _has_learned_nothing(self) -> bool:
        """Whether the loss is nearly where it began and no longer falls; further down, it has levelled off."""
        return fmean(self._long) > LEARNED * fmean(self._first) and _stands_still(list(self._long))

    def _once(self, step: int, true: bool, message: str) -> Warned | None:
        if not true or message in self.given:
            return None
        self.given.add(message)
        return Warned(step, message)


def _stands_still(losses: list[float]) -> bool:
    """Whether the second half of the last steps lies no clearly lower than the first, with loss left to lose."""
    if len(losses) < PLATEAU or fmean(losses) < FITTED:
        return False
    first, second = losses[: PLATEAU // 2], losses[PLATEAU // 2 :]
    error = sqrt((variance(first) + variance(second)) / (PLATEAU // 2))
    return fmean(first) - fmean(second) < CLEAR * error
