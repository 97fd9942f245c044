"""The notebooks: clean and small as committed, and running to their last assert with every control touched.

nbmake executes them, in fast mode and once each: what a notebook leaves behind is then exported and looked at.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbstripout import strip_output

from tests.support.places import ROOT

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
    return nbformat.read(path, as_version=4)


def test_there_are_seven_in_order() -> None:
    """The course is numbered 1 to 7 and the README has a line for each."""
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(1, 8)]
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"({path.name})" in readme for path in NOTEBOOKS)


@each
def test_committed_without_results(path: Path) -> None:
    """No outputs, no execution counts, no widget state; small, valid, with an id for each cell."""
    nb = read(path)
    nbformat.validate(nb)
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


def nbmake(path: Path, *code: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Add cells to the notebook, execute it with `pytest --nbmake` and return what pytest and the notebook say."""
    nb = read(path)
    nb.cells += [nbformat.v4.new_code_cell(cell) for cell in code]
    nbformat.write(nb, path)
    left = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHONPATH"))}
    environment = left | {"ZO_FAST": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TMPDIR": str(path.parent)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbmake", "--overwrite", str(path)]
    done = subprocess.run(command, cwd=path.parent, env=environment, check=False, capture_output=True, text=True)
    return done, read(path)


def clone(project: Path, path: Path) -> Path:
    """A project of the folders a notebook needs, as in a fresh clone; return its copy of the notebook."""
    for name in ("zocore", "app"):
        (project / name).symlink_to(ROOT / name)
    (project / "notebooks").mkdir()
    for name in ("live.py", path.name):
        shutil.copy(FOLDER / name, project / "notebooks")
    return project / "notebooks" / path.name


def drawn(page: Path) -> Any:
    """For each picture that Chromium shows on a page, with no network: its panels, and how many shapes it drew."""
    from playwright.sync_api import sync_playwright

    look = """() => [...document.querySelectorAll(".js-plotly-plot")].map(picture => ({
        panels: [...new Set(picture.data.map(trace => trace.meta))],
        shapes: picture.querySelectorAll(".scatterlayer .trace, .barlayer .point").length,
    }))"""
    with sync_playwright() as made:
        browser = made.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        tab.route(re.compile("^https?:"), lambda route: route.abort())
        tab.goto(page.as_uri())
        tab.wait_for_selector(".js-plotly-plot .main-svg")
        found = tab.evaluate(look)
        browser.close()
    return found


@each
@pytest.mark.slow
def test_runs_to_its_last_assert(path: Path, tmp_path: Path) -> None:
    """From a fresh clone: all cells, every slider and button; then exported, its picture shows without a network."""
    done, nb = nbmake(clone(tmp_path, path), TOUCH_EVERYTHING, SOLUTIONS[path.name[:2]])
    assert done.returncode == 0, done.stdout
    said = "".join(out.get("text", "") for cell in nb.cells[-3:] for out in cell.outputs)
    assert "all claims hold" in said and "touched" in said
    assert "Traceback" not in json.dumps([cell.get("outputs", []) for cell in nb.cells]), "an error was swallowed"
    nb.metadata.pop("widgets", None)  # as a notebook saved in JupyterLab: no state, so no live widget on the page
    page = tmp_path / "page.html"
    page.write_text(HTMLExporter().from_notebook_node(nb)[0], encoding="utf-8")
    if shutil.which("chromium"):
        with ThreadPoolExecutor(1) as apart:  # the page tests of the same process may hold a running event loop
            (picture,) = apart.submit(drawn, page).result()
        assert len(picture["panels"]) == 2 and picture["shapes"] >= 2


# What the folded solutions state, run after the notebook they belong to.
SOLUTIONS = {
    "01": """
signs = alignment.alignment(open_session(replace(SETTINGS, noise="rademacher")), [1, 2])
assert all(0.2 < a / b < 2 for a, b in zip(signs.cosine, found.cosine))
middle, two = looks[0].base, looks[0].found[DISTANCES.index(1e-2)]
assert abs(((two.plus + two.minus) / 2 - middle) * 2 / two.eps**2 / second_difference(0, two.eps) - 1) < 1e-3
""",
    "02": """
run, mine = opened()
log = [(k, mine.step(k, loss_of(run, k))[1]) for k in range(1, 5)]
again, rebuilt = opened()
for k, g in log:
    rebuilt.move(k, -SETTINGS.lr * g)
apart = max(float((p - q).abs().max()) for p, q in zip(mine.parameters, rebuilt.parameters))
assert 0 < apart / max(float(p.abs().max()) for p in mine.parameters) < 1e-6
gone = {}
for dtype in (torch.bfloat16, torch.float32):
    run, _ = opened()
    walker = MeZO(run.loaded.model.to(dtype).parameters(), 0, SETTINGS.eps)
    w = [p.clone() for p in walker.parameters]
    for k in range(10):
        walker.move(k, SETTINGS.eps), walker.move(k, -2 * SETTINGS.eps), walker.move(k, SETTINGS.eps)
    far, size = (sum(float(t.double().square().sum()) for t in ts) ** 0.5
                 for ts in ([p - q for p, q in zip(walker.parameters, w)], w))
    gone[dtype] = far / size * 20**0.5  # a random walk: 20 times as many moves, the root of it as far
assert 0.01 < gone[torch.bfloat16] < 0.2 and 1e-8 < gone[torch.float32] < 2e-6, gone
assert 0.9**44 < 0.01 < 0.9**43
""",
    "03": """
for size, factor in ((2, 0.71), (16, 0.97)):
    s = torch.randn(200_000, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = s - s.mean(1, keepdim=True)
    progress = [float((x * s).mean() / x.square().mean().sqrt()) for x in (t, s)]
    assert abs(progress[0] / progress[1] - factor) < 0.01
""",
    "04": """
from math import log
y = torch.randn(200_000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
v = y - y.mean(1, keepdim=True)
assert abs(float((v * y).sum(1).mean()) ** 2 / float(v.square().sum(1).mean()) - (5 - 1)) < 0.1
assert exact_gv(8, 0.25, 40_000) < table[8][0]
said = [round(x, 2) for m in (4, 8) for x in (sqrt(2 * log(m)), sqrt(table[m][1]))]
assert said == [1.67, 1.25, 2.04, 1.55], said
""",
    "05": """
def walk(k, C, eps=1e-3, eta=0.1, scale=1.0, table=0.7):
    for z in (0.3, -1.2, 0.8):  # one scale, the loss (scale * table - 2)²
        d = ((z * k * eps + scale * k) * table / k - 2) ** 2 - ((scale * k - z * k * eps) * table / k - 2) ** 2
        d = max(-C / k, min(C / k, d / (2 * k * eps)))
        scale = (scale * k - k * k * eta * d * z) / k
    return scale
assert abs(walk(1, 1.0) - walk(3, 1.0)) < 1e-9 and abs(walk(1, 1.0) - walk(1, 9.0)) > 1e-3
assert abs(erf(1.96 / sqrt(2)) - 0.95) < 1e-3
""",
    "06": """
lanes = [compare.lanes(SETTINGS, ["mezo"], [0], 60, unit="forward_passes", lrs={"mezo": lr})[0] for lr in (1e-3, 3e-3)]
end = [[e.loss for e in run_session(open_session(lane.config)) if isinstance(e, EvalDone)][-1] for lane in lanes]
assert end[1] > 2 * end[0], end  # three times the rate diverges
""",
    "07": """
from dataclasses import replace
from zocore import read_recording
settings, half, asked = replace(SETTINGS, steps=4), folder / "half", iter([False, False, True])
claim(half)
list(record(run(settings, lambda: next(asked)), half))
kept = read_recording(half)
rest = [e.step for e in run(settings, recording=kept) if type(e).__name__ == "StepDone"]
assert len(kept.steps) == 2 and rest == [3, 4]
""",
}


FAULTS = {
    "a slider": "ipywidgets.IntSlider().observe(fail, 'value')",
    "a choice": "ipywidgets.ToggleButtons(options=['a', 'b']).observe(fail, 'value')",
    "a button": "ipywidgets.Button().on_click(fail)",
    "a thread": "work = Work()",
}
STAGE = """
import ipywidgets

def fail(_=None):
    raise RuntimeError("a fault of this control")

class Picture: ...

class Work:
    found, go, wait = [], ipywidgets.Button(), fail
"""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.slow
def test_an_error_in_a_callback_fails(fault: str, tmp_path: Path) -> None:
    """The cell that touches every control lets no error of theirs pass, and nbmake reports it."""
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(STAGE + FAULTS[fault])])
    nbformat.write(nb, tmp_path / "faulty.ipynb")
    done, _ = nbmake(tmp_path / "faulty.ipynb", TOUCH_EVERYTHING)
    assert done.returncode == 1 and "a fault of this control" in done.stdout


@pytest.mark.slow
def test_two_threads_may_draw_in_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slider and a work in its thread change the number of lines at once: none is lost, nothing is raised."""
    monkeypatch.syspath_prepend(str(FOLDER))
    live = importlib.import_module("live")

    def chart(lines: int) -> Any:
        data = [live.trace([0, 1], [0, k], str(k), "#0072B2") for k in range(lines)]
        return {"data": data, "layout": live.plots.layout()}

    picture = live.Picture(("one", chart(1)), ("two", chart(1)))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(lambda n: [picture.show(n, chart(1 + k % 5)) for k in range(60)], n) for n in (0, 1)]
            [job.result() for job in jobs]
    finally:
        sys.setswitchinterval(before)
    assert sorted(trace.meta for trace in picture.widget.data) == [0] * 5 + [1] * 5


@each
@pytest.mark.parametrize("missing", ["the project", "a package"])
def test_first_cell_says_what_is_missing(path: Path, missing: str, tmp_path: Path) -> None:
    """On a bare machine one sentence tells what to do next: bring the project's folder, or install what it needs."""
    first = next(cell.source for cell in read(path).cells if cell.cell_type == "code")
    if missing == "a package":
        (tmp_path / "live.py").write_text("import package_nobody_has")
    (tmp_path / "first.py").write_text(first, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "first.py"], cwd=tmp_path, env={"PATH": ""}, check=False, capture_output=True, text=True
    )
    remedy = "set PROJECT to the path" if missing == "the project" else '%pip install -q -e "..[notebooks]"'
    assert done.returncode == 1 and remedy in done.stderr.splitlines()[-1]
