"""The rooms of the house: imports run one way, the engine knows nothing of the app, no test takes from another."""

import ast
from pathlib import Path

import pytest

from tests.support.imports import imported
from tests.support.places import ROOT

# each room may import from itself and from those before it
ENGINE = [
    "errors",
    "noise",
    "weights",
    "directions",
    "carriers",
    "subspaces",
    "parallel",
    "step",
    "presets",
    "methods",
    "optimizer",
    "hf",
    "tables",
    "data",
    "models",
    "objectives",
    "config",
    "defaults",
    "memory",
    "recipes",
    "runs",
    "diagnostics",
    "bench",
    "compare",
    "tournament",
    "terminal",
    "arguments",
    "cli",
]
APP = [
    "quiet",
    "jobs",
    "log",
    "door",
    "front",
    "charts",
    "words",
    "claims",
    "results",
    "preview",
    "form",
    "tabs",
    "scripts",
    "api",
    "page",
    "opening_run",
    "record",
    "installed",
    "space",
]
ORDERS = {"zocore": ENGINE, "app": APP}


def against_the_order(package: Path, order: list[str]) -> list[str]:
    """Imports from a room to one after it, as sentences."""
    wrong = []
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).with_suffix("").parts[0]
        if room not in order:
            continue
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == package.name and len(parts) > 1 and parts[1] in order[order.index(room) + 1 :]:
                wrong.append(f"{path.relative_to(package)} imports {name}")
    return wrong


@pytest.mark.parametrize("package", ORDERS)
def test_imports_run_against_no_order(package: str) -> None:
    """No room imports from one that stands after it, in functions neither."""
    assert against_the_order(ROOT / package, ORDERS[package]) == []


@pytest.mark.parametrize("package", ORDERS)
def test_every_room_has_a_place_and_a_sentence(package: str) -> None:
    """A new folder or module gets its place in the order, and every folder says in its `__init__` what it is for."""
    beside = {"bundle", "__init__", "__main__"}
    entries = {p.stem for p in (ROOT / package).iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert entries - beside == set(ORDERS[package])
    for path in (ROOT / package).rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_the_engine_does_not_know_the_app() -> None:
    """zocore imports no user interface."""
    wrong = [
        f"{path} imports {name}"
        for path in (ROOT / "zocore").rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in ("app", "gradio", "plotly", "ipywidgets", "notebooks", "tests")
    ]
    assert wrong == []


def test_tests_share_helpers_through_support_alone() -> None:
    """No test module imports another: what two need lies in tests/support."""
    wrong = [
        f"{path} imports {name}"
        for path in (ROOT / "tests").rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in ("tests", "conftest") and not name.startswith("tests.support") and name != "tests"
    ]
    assert wrong == []


def test_an_import_against_the_order_is_found(tmp_path: Path) -> None:
    """The check itself: a package whose lower room imports the upper one is told."""
    package = tmp_path / "house"
    for room, line in (("cellar", "def f():\n    from house.roof import tiles\n"), ("roof", "")):
        (package / room).mkdir(parents=True)
        (package / room / "tiles.py").write_text(line)
    assert against_the_order(package, ["cellar", "roof"])
    assert not against_the_order(package, ["roof", "cellar"])
