"""A run's weights at any step, forwards and backwards: what a slider over a recording needs.

Going forward replays the steps between; going back starts from the nearest remembered copy. Copies are taken
on the way, every few steps, while they fit a budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zocore.runs.events import StepDone
from zocore.runs.opening import open_session
from zocore.runs.rebuilding import check_base, replay
from zocore.runs.recording import Recording, read_recording
from zocore.runs.session import Session
from zocore.runs.snapshot import Snapshot

BUDGET = 300_000_000  # bytes of remembered copies
STRIDE = 50  # steps between two copies


@dataclass
class Timeline:
    """Owns a session, whose weights it moves along the recorded steps."""

    recording: Recording
    session: Session
    step: int = 0
    _snapshots: dict[int, Snapshot] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.session.method.zeroth_order:
            raise ValueError(
                f"{self.session.method.name} and replay do not go together: its gradients are not in the recording"
            )
        self._remember()

    @property
    def last(self) -> int:
        """The last recorded step."""
        return self._steps[-1].step if self._steps else 0

    def go(self, step: int) -> None:
        """Bring the weights to where they were after a step. Raises ValueError for a step that is not recorded."""
        if not 0 <= step <= self.last:
            raise ValueError(f"the recording has steps 0 to {self.last}: there is no step {step}")
        if step < self.step:
            self.step = max(remembered for remembered in self._snapshots if remembered <= step)
            self._snapshots[self.step].restore(self.session)
        while self.step < step:
            until = min(step, (self.step // STRIDE + 1) * STRIDE)
            replay(self.session, [event for event in self._steps if self.step < event.step <= until])
            self.step = until
            self._remember()

    def answers(self, texts: Sequence[str | Mapping[str, str]]) -> list[list[float]]:
        """Return the label probabilities (n, L) of new texts at the weights as they are."""
        probabilities: list[list[float]] = self.session.objective.probabilities(texts).tolist()
        return probabilities

    def completions(self, prompts: Sequence[str]) -> list[str]:
        """Return what the weights as they are write after prompts. Raises ValueError where the run has labels."""
        written = self.session.objective.written(prompts)
        if written is None:
            raise ValueError("this run answers with labels and writes nothing")
        return written

    @property
    def _steps(self) -> list[StepDone]:
        return self.recording.steps

    def _remember(self) -> None:
        size = sum(leaf.tensor.nbytes for leaf in self.session.leaves)
        if self.step % STRIDE == 0 and self.step not in self._snapshots and size * len(self._snapshots) <= BUDGET:
            self._snapshots[self.step] = Snapshot.of(self.session)


def open_timeline(folder: Path) -> Timeline:
    """Return the timeline of a run folder, at step 0. Raises ValueError when the run cannot be replayed."""
    recording = read_recording(folder)
    session = open_session(recording.config, recording.header.frozen)
    check_base(session, recording)
    return Timeline(recording, session)
