"""The package: its wheel holds all it needs and works from any folder, and the lists of what it needs are one list."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import urllib.request
import venv
import zipfile
from collections.abc import Collection
from pathlib import Path

import pytest

from tests.support.imports import imported
from tests.support.places import ROOT
from tests.support.server import start

FACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = FACTS["project"]
EXTRAS = PROJECT["optional-dependencies"]
SOURCES = ("zocore", "app", "pyproject.toml", "setup.py", "README.md", "LICENSE")
IMPORTED_AS = {"jupyterlab": "IPython", "pillow": "PIL"}  # the first comes with it
SMALL = ["--steps", "2", "--eval-examples", "20"]


def needed(extra: str = "") -> set[str]:
    """Names under which the core's packages are imported, or an extra's own."""
    names = [re.split(r"[><=]", line)[0] for line in (EXTRAS[extra] if extra else PROJECT["dependencies"])]
    return {IMPORTED_AS.get(name, name) for name in names if not name.startswith("zocore")}


def taken(*folders: str) -> set[str]:
    """Third-party packages that the Python files of folders import."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    names = {name.split(".")[0] for path in files for name in imported(path)}
    return names - set(sys.stdlib_module_names) - {"zocore", "app", "tests", "live"}


def test_the_core_lists_what_the_engine_imports() -> None:
    """`pip install zocore` brings what files of the engine import, but for datasets; hub and accelerate come along."""
    with_others = {"huggingface_hub", "triton"}  # brought by transformers, and by torch where there is a GPU
    for_others = {"accelerate"}  # transformers asks for it
    assert taken("zocore") - with_others == (needed() | needed("hub")) - for_others


def test_the_extras_list_what_the_app_and_the_notebooks_import() -> None:
    """Beyond the core the app imports what its extra lists, and live.py what the notebooks' lists."""
    of_its_host = {"spaces"}  # where a GPU is lent by the call
    assert taken("app") - needed() - {"huggingface_hub"} - of_its_host == needed("app")
    assert taken("notebooks") - needed() - needed("app") == needed("notebooks")


def test_there_is_one_list() -> None:
    """Requirement files and the image take what they need from pyproject.toml."""
    for name, wanted in (("requirements.txt", {"app"}), ("tests/requirements.txt", {"dev"})):
        (line,) = (ROOT / name).read_text(encoding="utf-8").splitlines()
        extras = re.fullmatch(r"-e \.\[(.*)\]", line)
        assert extras and set(extras[1].split(",")) == wanted <= set(EXTRAS)
    assert "-r pyproject.toml --extra app" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def source(folder: Path) -> Path:
    """A copy of all that the package is built from: building writes beside its sources."""
    folder.mkdir(parents=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    return folder


def pip(*arguments: str) -> None:
    """Run pip with no index and with the running environment's setuptools."""
    command = [sys.executable, "-m", "pip", "-q", *arguments]
    done = subprocess.run(
        [*command, "--no-deps", "--no-index", "--no-build-isolation"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def environment(folder: Path, *what: str) -> Path:
    """A clean environment in which one thing is installed; other packages are the running environment's."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/*/site-packages")
    (packages / "running.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip("--python", str(folder / "bin" / "python"), "install", "--ignore-installed", *what)
    return folder / "bin"


def said(command: list[str | Path], cwd: Path) -> str:
    """What a command prints when it ends well."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHONPATH"))}
    done = subprocess.run(command, cwd=cwd, env=clean, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the project as it stands."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", str(source(folder / "source")), "-w", str(folder))
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that holds the wheel."""
    return environment(tmp_path_factory.mktemp("environment") / "venv", str(wheel))


def missing(names: Collection[str]) -> list[str]:
    """Files of the engine and of the app that are not among a wheel's names."""
    files = [path.relative_to(ROOT) for room in ("zocore", "app") for path in (ROOT / room).rglob("*")]
    wanted = [path.as_posix() for path in files if (ROOT / path).is_file() and "__pycache__" not in path.parts]
    placed = {name: re.sub("^app/", "zocore_app/app/", name).replace("app/installed/", "") for name in wanted}
    return [name for name, place in placed.items() if place not in names]


@pytest.mark.slow
def test_the_wheel_holds_every_file(wheel: Path) -> None:
    """Code, bundled model and tasks, scripts, style sheets and recordings; and a lack of one would be found."""
    names = zipfile.ZipFile(wheel).namelist()
    assert missing(names) == []
    assert missing([name for name in names if not name.endswith(".safetensors")]) == [
        "zocore/bundle/model/model.safetensors"
    ]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"zocore", "zocore_app"}


@pytest.mark.slow
def test_the_installed_command_works_elsewhere(programs: Path, tmp_path: Path) -> None:
    """`zocore` and `python -m zocore` run in a folder that has nothing of the project."""
    assert "finished" in said([programs / "zocore", "train", *SMALL], tmp_path)
    assert (tmp_path / "runs").is_dir()
    assert said([programs / "zocore", "memory"], tmp_path) == said(
        [programs / "python", "-m", "zocore", "memory"], tmp_path
    )


@pytest.mark.slow
def test_the_core_needs_no_extra(programs: Path, tmp_path: Path) -> None:
    """Training goes on where none of the extras' packages can be imported."""
    others = needed("app") | needed("notebooks") | needed("dev")
    lines = f"""
import sys
sys.modules |= dict.fromkeys({sorted(others - {"setuptools"})})
from zocore.cli import main
sys.exit(main(["train", *{SMALL}]))
"""
    assert "finished" in said([programs / "python", "-c", lines], tmp_path)


@pytest.mark.slow
def test_the_installed_app_runs_a_job(programs: Path, tmp_path: Path) -> None:
    """`zocore-app` answers from any folder and trains; its page carries scripts and the recorded run."""
    from gradio_client import Client

    server, address = start([programs / "zocore-app"], tmp_path / "runs")
    try:
        lab = Client(address, verbose=False)
        job = lab.predict({"method": "mezo", "steps": 2, "eval_examples": 20}, "", api_name="/start")["job"]
        for _ in range(600):
            if lab.predict(job, api_name="/status")["over"]:
                break
            time.sleep(0.2)
        assert lab.predict(job, api_name="/result")["end"]["status"] == "finished"
        page = urllib.request.urlopen(address).read().decode()
        scripts = set(re.findall(r"(gradio_api/file=[^\"\\]*zocore_app[^\"\\]*)", page))
        assert len(scripts) >= 4
        assert all(urllib.request.urlopen(address + script).read() for script in scripts)
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_an_editable_install_is_the_source(tmp_path: Path) -> None:
    """`pip install -e .` runs from another folder, and what is changed in the source is changed at once."""
    folder = source(tmp_path / "source")
    programs = environment(tmp_path / "venv", "-e", str(folder))
    with (folder / "zocore" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write("\nCHANGED = True\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert said([programs / "python", "-c", "import zocore; print(zocore.CHANGED)"], elsewhere) == "True\n"
    assert "--hosted" in said([programs / "zocore-app", "--help"], elsewhere)
    assert "mezo" in said([programs / "zocore", "memory"], elsewhere)
