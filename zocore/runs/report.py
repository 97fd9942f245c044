"""A run's figures in the trackers people use: TensorBoard, Trackio, Weights & Biases.

Trackers read the same events as the terminal and change nothing: one that fails is left out for the rest of the run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from math import isfinite, sqrt
from pathlib import Path
from typing import Any, Protocol

from zocore.errors import InputError
from zocore.runs.events import EstimatorMeasured, EvalDone, Event, RunEnded, RunStarted, StepDone

PROJECT = "zocore"
SPLITS = {"dev": "eval", "test": "test"}  # as trackers call them


class Tracker(Protocol):
    """One run in one tracker."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Add figures at a step."""

    def finish(self) -> None:
        """Write what is still held and close the run."""


Begin = Callable[[Any, str, Path, dict[str, Any]], Tracker]  # the package, the run's name, its folder, its settings


@dataclass
class TensorBoard:
    """Scalars in `tensorboard/` of the run folder."""

    writer: Any

    @classmethod
    def begin(cls, package: Any, name: str, folder: Path, settings: dict[str, Any]) -> "TensorBoard":
        """Open the writer, with the settings as text."""
        writer = package.SummaryWriter(str(folder / "tensorboard"))
        writer.add_text("settings", "\n".join(f"    {setting}: {value}" for setting, value in settings.items()))
        return cls(writer)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """One scalar for each figure."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def finish(self) -> None:
        """Close the file."""
        self.writer.close()


@dataclass
class Module:
    """A tracker that is a module with `init`, `log` and `finish`: Trackio, Weights & Biases."""

    package: Any

    @classmethod
    def trackio(cls, package: Any, name: str, folder: Path, settings: dict[str, Any]) -> "Module":
        """Begin a run in Trackio's own folder; a resumed run goes on in it."""
        package.init(project=PROJECT, name=name, config=settings, resume="allow")
        return cls(package)

    @classmethod
    def wandb(cls, package: Any, name: str, folder: Path, settings: dict[str, Any]) -> "Module":
        """Begin a run, its files in the run folder; WANDB_MODE=offline keeps it there."""
        package.init(project=PROJECT, name=name, config=settings, dir=str(folder))
        return cls(package)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """All figures at once."""
        self.package.log(dict(figures), step=step)

    def finish(self) -> None:
        """Close the run."""
        self.package.finish()


@dataclass(frozen=True)
class Sort:
    """How one sort of tracker is reached."""

    module: str
    install: str  # what pip is asked for
    begin: Begin


TRACKERS: Mapping[str, Sort] = {
    "tensorboard": Sort("torch.utils.tensorboard", "tensorboard", TensorBoard.begin),
    "trackio": Sort("trackio", "trackio", Module.trackio),
    "wandb": Sort("wandb", "wandb", Module.wandb),
}


@dataclass
class Report:
    """The trackers of one run. Raises InputError, before anything runs, for one that is unknown or not installed."""

    names: Sequence[str]
    folder: Path
    _trackers: dict[str, Tracker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._packages = {name: _package(name) for name in self.names}

    def add(self, event: Event) -> list[str]:
        """Pass an event on; return one sentence for each tracker that failed and is now left out."""
        if isinstance(event, RunStarted):
            return _said([self._begin(name, event.config) for name in self._packages])
        step, values = figures(event)
        said = [self._tried(name, "log", values, step) for name in list(self._trackers) if values]
        if isinstance(event, RunEnded):
            said += [self._tried(name, "finish") for name in list(self._trackers)]
        return _said(said)

    def _begin(self, name: str, settings: dict[str, Any]) -> str:
        try:
            begin = TRACKERS[name].begin
            self._trackers[name] = begin(self._packages[name], self.folder.name, self.folder, settings)
        except Exception as error:  # a tracker's own: no network, no account, a full disk
            return _left_out(name, error)
        return ""

    def _tried(self, name: str, what: str, *arguments: Any) -> str:
        try:
            getattr(self._trackers[name], what)(*arguments)
        except Exception as error:
            del self._trackers[name]
            return _left_out(name, error)
        return ""


def figures(event: Event) -> tuple[int, dict[str, float]]:
    """Return an event's figures by the names trackers use, and their step; none for events without figures."""
    match event:
        case StepDone():
            values = {"loss": event.loss, "learning_rate": event.lr, "forward_passes": event.forward_passes}
            values |= {"forward_cost": event.forward_cost, "seconds": event.seconds, "memory_bytes": event.memory_bytes}
            slopes = event.projected_grads
            if slopes:
                values["projected_grad"] = sqrt(sum(slope * slope for slope in slopes) / len(slopes))
            if event.unexplained is not None:
                values["unexplained"] = event.unexplained
            return event.step, {f"train/{name}": float(value) for name, value in values.items()}
        case EvalDone():
            split = SPLITS[event.split]
            values = {"loss": event.loss, "accuracy": event.accuracy, **(event.scores or {})}
            return event.step, {f"{split}/{name}": value for name, value in values.items() if isfinite(value)}
        case EstimatorMeasured():
            values = {"variance": event.variance, "length": event.norm}
            values |= {} if event.cosine is None else {"cosine": event.cosine}
            return event.step, {f"estimator/{name}": value for name, value in values.items()}
    return 0, {}


def _package(name: str) -> Any:
    if name not in TRACKERS:
        raise InputError(f"--report-to knows {', '.join(TRACKERS)}, not {name!r}")
    try:
        return import_module(TRACKERS[name].module)
    except ImportError:
        raise InputError(f"--report-to {name} needs its package: pip install {TRACKERS[name].install}") from None


def _said(sentences: Sequence[str]) -> list[str]:
    return [sentence for sentence in sentences if sentence]


def _left_out(name: str, error: Exception) -> str:
    return f"{name} failed and is left out from here ({type(error).__name__}: {error}); the run and its recording go on"
