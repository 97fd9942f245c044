"""What is raced: entries, tasks, seeds, one budget for all, and one budget for finding rates."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from zocore.config import RunConfig
from zocore.data.tasks import bundled_tasks
from zocore.defaults import before_loading, preset
from zocore.errors import InputError
from zocore.tournament.entries import Entry, number

PLAN = "plan.json"


@dataclass(frozen=True)
class Place:
    """A task, and the model that learns it."""

    name: str
    data: str | None  # a file or folder; None for a bundled task
    model: str


@dataclass(frozen=True)
class Plan:
    """The whole tournament. A cell of it is one run: an entry on a task with a seed, and a rate."""

    entries: tuple[Entry, ...]
    places: tuple[Place, ...]
    seeds: tuple[int, ...]
    cost: float  # forward cost of each final run
    tuning_cost: float  # forward cost of each run that tries a rate
    tuned: tuple[str, ...]  # tasks on which rates are found; others take them over
    around: Mapping[str, float]  # entry -> the rate to begin at with the model given by the user
    batch_size: int = 16
    eval_examples: int = 400
    max_tokens: int = 128
    first_rates: int = 3  # a factor `FACTOR` apart, the preset in the middle
    most_rates: int = 9  # where the search ends even if the best lies on an edge

    def entry(self, name: str) -> Entry:
        """Return the entry of a name."""
        return next(entry for entry in self.entries if entry.name == name)

    def place(self, name: str) -> Place:
        """Return the task of a name."""
        return next(place for place in self.places if place.name == name)

    def tuned_on(self, name: str) -> list[str]:
        """Return the tasks whose rates a task uses: itself if rates are found on it, else those with its model.

        A task whose model is nowhere tuned is tuned itself.
        """
        alike = [place.name for place in self.places if place.model == self.place(name).model]
        tuned = [other for other in alike if other in self.tuned]
        return [name] if name in self.tuned or not tuned else tuned

    def settings(self, entry: Entry, place: Place, seed: int, lr: float | None) -> RunConfig:
        """Return the settings of a run, its steps apart. Raises ValueError when they make no sense."""
        config = RunConfig(
            model=place.model,
            data=place.data,
            seed=seed,
            lr=lr,
            batch_size=self.batch_size,
            eval_examples=self.eval_examples,
            max_tokens=self.max_tokens,
        )
        if place.data is None:
            config = replace(config, task=place.name)
        if not entry.takes_rate:
            return config
        values = {name: number(value) for name, value in entry.options}
        return RunConfig.from_json(config.to_json() | {"method": entry.method, "subspace": entry.subspace} | values)

    def middle(self, entry: Entry, place: Place) -> float:
        """Return the rate to begin at: the one given, or the method's preset for the subspace and model."""
        if place.data is not None and entry.name in self.around:
            return self.around[entry.name]
        config = before_loading(self.settings(entry, place, 0, None))
        return preset(replace(config, kind=_kind(place.model))).lr

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values; models and data by the last part of their path."""
        values = asdict(self)
        values["entries"] = [entry.name for entry in self.entries]
        values["places"] = [[p.name, Path(p.data).name if p.data else None, Path(p.model).name] for p in self.places]
        return values


SAME = ("batch_size", "eval_examples", "max_tokens")  # a cell names its budget and rate, but not these


def take_up(plan: Plan, folder: Path) -> None:
    """Write the plan into its folder, or check that it goes on with what the folder holds.

    Entries, tasks, seeds and budgets may change: what is done and still asked for counts. Raises InputError where
    what all cells share has changed.
    """
    path, told = folder / PLAN, plan.to_json()
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        models = {name: rest for name, *rest in before["places"]}
        now = json.loads(json.dumps(told))
        changed = [rule for rule in SAME if before[rule] != now[rule]]
        moved = [name for name, *rest in now["places"] if models.get(name, rest) != rest]
        if changed or moved:
            what = changed[0].replace("_", " ") if changed else f"data or model of {moved[0]}"
            raise InputError(f"{folder} holds a tournament with another {what}: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def places(names: Sequence[str], data_root: Path | None, model: str) -> tuple[Place, ...]:
    """Return the tasks of a list: bundled ones with the bundled model, folders under `data_root` with `model`.

    Raises InputError for a task that is neither.
    """
    chosen = []
    for name in dict.fromkeys(names):
        if name in bundled_tasks():
            chosen.append(Place(name, None, "bundled"))
        elif data_root is None or not (data_root / name).is_dir():
            where = f"no folder under {data_root}" if data_root else "--data-root is not given"
            raise InputError(f"the task {name!r} is not bundled ({', '.join(bundled_tasks())}), and {where}")
        else:
            chosen.append(Place(name, str(data_root / name), model))
    return tuple(chosen)


def _kind(model: str) -> str | None:
    """How the model is read, from its configuration alone."""
    from transformers import AutoConfig

    from zocore.models.files import find_model
    from zocore.models.kinds import kind_of

    source = find_model(model)
    return kind_of(AutoConfig.from_pretrained(source.location, local_files_only=source.offline))
