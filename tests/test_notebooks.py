"""The notebooks: clean and small as committed, and running to their last assert with every control touched."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbstripout import strip_output

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

MOST_CELLS = 25
MOST_BYTES = 100_000
TOUCH_EVERYTHING = """
import time

import ipywidgets
from ipywidgets.widgets import widget as _registry

_all = [w for w in _registry._instances.values() if isinstance(w, ipywidgets.ValueWidget | ipywidgets.Button)]
for _w in _all:
    if isinstance(_w, ipywidgets.SelectionSlider | ipywidgets.ToggleButtons):
        for _value in (_w._options_values[-1], _w._options_values[0]):
            _w.value = _value  # an error in a callback is raised here, not swallowed as in a front end
    elif isinstance(_w, ipywidgets.IntSlider):
        _w.value = _w.min
        _w.value = _w.max
    elif isinstance(_w, ipywidgets.Text):
        _w.value = "The coffee was great."
_presses = [w for w in _all if isinstance(w, ipywidgets.Button) and w._click_handlers.callbacks]
_works = [value for value in globals().values() if isinstance(value, Work)]
[callback(w) for w in _presses if w.description != "Stop" for callback in w._click_handlers.callbacks]
_until = time.monotonic() + 60
while any(len(_work.found) < 8 and _work.go.disabled for _work in _works) and time.monotonic() < _until:
    time.sleep(0.2)
[callback(w) for w in _presses if w.description == "Stop" for callback in w._click_handlers.callbacks]
for _work in _works:
    _work.wait()
    assert not _work.go.disabled and _work.halt.disabled, "a thread ended without giving its buttons back"
_pictures = [value for value in globals().values() if isinstance(value, Picture)]
assert len(_pictures) == 1, "one FigureWidget a notebook"
assert {trace.meta for trace in _pictures[0].widget.data} == set(range(_pictures[0].count)), "a panel is empty"
assert len(_presses) >= 2 and len(_all) - len(_presses) >= 2, "buttons and controls to play with"
print("touched", len(_all), "controls")
"""


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def test_there_are_seven_in_order() -> None:
    """The course is numbered 1 to 7 and the README has a line for each."""
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(1, 8)]
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"({path.name})" in readme for path in NOTEBOOKS)


@each
def test_committed_without_results(path: Path) -> None:
    """No outputs, no execution counts, no widget state; small, valid, with an id for each cell."""
    nb = read(path)
    nbformat.validate(nb)  # type: ignore[no-untyped-call]
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert "widgets" not in nb.metadata and nb.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in nb.cells}) == len(nb.cells) <= MOST_CELLS
    assert path.stat().st_size < MOST_BYTES
    stripped = strip_output(deepcopy(nb), keep_output=False, keep_count=False, keep_id=True)
    assert stripped == nb, "nbstripout --keep-id would change it"


@each
def test_has_the_parts_of_a_lesson(path: Path) -> None:
    """It says what one will know, asks for a prediction, has exercises with folded solutions, and ends in asserts."""
    nb = read(path)
    first, last = nb.cells[0], nb.cells[-1]
    assert first.cell_type == "markdown" and "**Afterwards you will" in first.source
    assert "**Predict first.**" in first.source and "?" in first.source
    setup = next(cell.source for cell in nb.cells if cell.cell_type == "code")
    assert "pip install" in setup and "versions()" in setup and "guess(" in setup
    text = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    code = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "code")
    exercises = text[text.index("## Exercises") :]
    assert 2 <= len(re.findall(r"^\d\. ", exercises[: exercises.index("<details>")], re.M)) <= 3
    assert "<summary>Solutions</summary>" in exercises and "</details>" in exercises
    assert last.cell_type == "code" and last.source.count("assert ") >= 3
    assert "from zocore" in code and len(re.findall(r"= Picture\(", code)) == 1 and "Work(" in code
    assert "class MeZO" not in code or path.name.startswith("02")


@each
def test_speaks_of_no_machine(path: Path) -> None:
    """No paths of somebody's disk."""
    assert not re.search(r"(/home/|/root/|/work/|/tmp/|[A-Z]:\\\\)", json.dumps(read(path)))


@each
@pytest.mark.slow
def test_runs_to_its_last_assert(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in fast mode from its own folder, then every slider moved and every button pressed."""
    for name, value in (("ZO_FAST", "1"), ("HF_HUB_OFFLINE", "1"), ("TMPDIR", str(tmp_path))):
        monkeypatch.setenv(name, value)
    nb = read(path)
    nb.cells.append(nbformat.v4.new_code_cell(TOUCH_EVERYTHING))  # type: ignore[no-untyped-call]
    NotebookClient(nb, timeout=300, resources={"metadata": {"path": str(FOLDER)}}, store_widget_state=False).execute()
    said = "".join(out.get("text", "") for cell in nb.cells[-2:] for out in cell.outputs)
    assert "all claims hold" in said and "touched" in said
