"""`--data hub:...`: datasets of the hub as tables, from folders laid out like them; one sentence for what cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest

from zocore.config import RunConfig
from zocore.data.hub import hub_tables
from zocore.data.tasks import read_task
from zocore.errors import InputError
from zocore.runs.task import read

datasets = pytest.importorskip("datasets")
ROWS = [(f"sentence number {i}, about something", i % 2) for i in range(24)]


def _split(rows: list[tuple[str, int]], names: tuple[str, ...] = ("bad", "good")) -> Any:
    features = datasets.Features({"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    columns = {"sentence": [text for text, _ in rows], "label": [label for _, label in rows]}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset as the hub has it: one Parquet file a split, the labels of the test kept secret."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = tmp_path / "reviews" / "data"
    data.mkdir(parents=True)
    for name, rows in (("train", ROWS), ("validation", ROWS[:6]), ("test", [(text, -1) for text, _ in ROWS[:5]])):
        _split(rows).to_parquet(data / f"{name}-00000-of-00001.parquet")
    return tmp_path / "reviews"


def test_a_dataset_is_read_with_its_splits_columns_and_names(folder: Path) -> None:
    """Labels by their names; a test split whose labels are secret is left out, so the validation split is the test."""
    task = read_task(f"hub:{folder}")
    assert task.label_names == ("bad", "good") and task.template == "{sentence}"
    assert [task.label_names[e.label] for e in task.test] == ["bad", "good"] * 3
    assert len(task.train) + len(task.dev) == 24 and len(task.dev) == 2


def test_settings_read_the_same_from_the_hub_as_from_a_file(folder: Path, tmp_path: Path) -> None:
    """The same rows as JSON Lines give the same task but for its name."""
    for name, rows in (("train", ROWS), ("validation", ROWS[:6])):
        lines = [json.dumps({"sentence": text, "label": ("bad", "good")[label]}) for text, label in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    words = {"template": "{text} It was", "label_words": "terrible,great"}
    one, other = (read(RunConfig(data=data, **words)) for data in (f"hub:{folder}", str(tmp_path)))  # type: ignore[arg-type]
    assert (one.train, one.dev, one.test) == (other.train, other.dev, other.test)
    assert (one.template, one.label_words) == (other.template, other.label_words)


def test_a_configuration_is_a_folder_of_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the branch where the hub keeps every dataset's tables."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "glue" / "cb").mkdir(parents=True)
    _split(ROWS).to_parquet(tmp_path / "glue" / "cb" / "train.parquet")
    (tmp_path / "glue" / "rte").mkdir()
    _split(ROWS[:4]).to_parquet(tmp_path / "glue" / "rte" / "train.parquet")
    assert len(hub_tables(f"hub:{tmp_path / 'glue'}:cb")["train"].rows) == 24


def test_what_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owner, name, revision and configuration reach the package as it wants them."""
    asked: list[Any] = []

    def load(*arguments: Any, **named: Any) -> Any:
        asked.append((arguments, named))
        return {"train": _split(ROWS)}

    monkeypatch.setattr(datasets, "load_dataset", load)
    for data in ("hub:me/mine", "hub:me/mine:small", "hub:me/mine@v1:small", "hub:me/mine@refs/convert/parquet:small"):
        hub_tables(data)
    assert asked == [
        (("me/mine", None), {"revision": None}),
        (("me/mine", "small"), {"revision": None}),
        (("me/mine", "small"), {"revision": "v1"}),
        (("me/mine",), {"data_dir": "small", "revision": "refs/convert/parquet"}),
    ]


REASONS = {
    "script": (
        RuntimeError("Dataset scripts are no longer supported, but found mine.py"),
        "hub:me/mine@refs/convert/p",
    ),
    "gated": (ValueError("Dataset 'me/mine' is a gated dataset on the Hub. You must"), "gated: accept its terms"),
    "missing": (ValueError("Dataset 'me/mine' doesn't exist on the Hub or cannot be"), "there is no dataset 'me/mine'"),
    "no network": (ConnectionError("Couldn't reach 'me/mine' on the Hub"), "the hub cannot be reached: connect"),
    "configurations": (
        ValueError("Config name is missing.\nPlease pick one among the available configs: ['a', 'b']"),
        "several configurations: choose one of 'a', 'b' with hub:me/mine:CONFIGURATION",
    ),
    "anything else": (KeyError("shards"), "cannot be loaded: 'shards'"),
}


@pytest.mark.parametrize("why", REASONS)
def test_each_reason_is_one_sentence(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong and what to do, without a traceback of the package."""
    error, said = REASONS[why]

    def load(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(InputError) as caught:
        hub_tables("hub:me/mine")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_dataset_without_training_rows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the splits it has; an empty split too."""
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"auxiliary": _split(ROWS)})
    with pytest.raises(InputError, match="no split 'train': its splits are auxiliary"):
        hub_tables("hub:me/mine")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"train": _split([])})
    with pytest.raises(InputError, match="no rows in its split"):
        hub_tables("hub:me/mine")
    with pytest.raises(InputError, match="--data must be hub:owner/name"):
        hub_tables("hub:")


def test_without_the_package_files_work_and_the_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is asked for by name."""
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InputError, match='need the package datasets: pip install "datasets'):
        hub_tables("hub:me/mine")
