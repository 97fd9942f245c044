"""Putting a Space together: the packages, what they need with bounds, an entry, and a README with the front matter."""

import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from zocore.errors import InputError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = ("zocore", "app")
LEFT_OUT = ("app/space", "app/installed", "app/record.py", "app/HOSTING.md")  # what no Space runs
OF_A_CLONE = {".git", ".gitattributes", "README.md"}  # what the clone of a new Space holds
TORCH = "torch>=2.8,<2.12"  # the builds that ZeroGPU offers
SPACES = "spaces>=0.51,<1"
ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@dataclass(frozen=True)
class Kind:
    """One kind of Space: lines of its front matter, a sentence, and the files beside the packages."""

    front: Callable[[], str]
    how: str
    files: Callable[[], Mapping[str, str]]


def assemble(kind: str, to: Path) -> int:
    """Write a Space into a folder and return how many files it has.

    Raises InputError when the folder holds something else, or the project is not a clone.
    """
    if not (ROOT / "pyproject.toml").is_file():
        raise InputError("a Space is assembled from a clone of the project, not from an installed package")
    if to.exists() and (not to.is_dir() or {path.name for path in to.iterdir()} - OF_A_CLONE):
        raise InputError(f"{to} holds other files: give a new folder, or the clone of a new Space")
    made, sources = KINDS[kind], list(_sources())
    for path in sources:
        target = to / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    readme = (HERE / "readme.md").read_text(encoding="utf-8").format(kind=made.front(), how=made.how)
    texts = {"README.md": readme, ".gitattributes": ATTRIBUTES, **made.files()}
    for name, text in texts.items():
        (to / name).write_text(text, encoding="utf-8")
    return len(sources) + len(texts)


def _sources() -> Iterator[Path]:
    """The files of the packages that a Space runs, and the licence."""
    yield ROOT / "LICENSE"
    left_out = [ROOT / name for name in LEFT_OUT]
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            kept = not any(path.is_relative_to(one) for one in left_out)
            if path.is_file() and kept and path.suffix != ".pyc" and "__pycache__" not in path.parts:
                yield path


def requirements(more: Sequence[str] = (), torch: str = "") -> list[str]:
    """Return what the app needs, with the project's bounds; torch's may be narrower where a Space is built."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["app"]]
    return [torch if torch and line.startswith("torch>") else line for line in needed] + list(more)


def _zerogpu_front() -> str:
    lines = ("sdk: gradio", f"sdk_version: {version('gradio')}", 'python_version: "3.12"', "app_file: main.py")
    return "\n".join([*lines, "suggested_hardware: zero-a10g"])


def _zerogpu() -> dict[str, str]:
    entry = (HERE / "main.py").read_text(encoding="utf-8")
    return {"main.py": entry, "requirements.txt": "\n".join(requirements([SPACES], TORCH)) + "\n"}


def _docker() -> dict[str, str]:
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    proxy = "# only the Space's own proxy reaches this server\nENV FORWARDED_ALLOW_IPS=*\n"
    head, command = recipe.rsplit("CMD ", 1)
    needed = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    return {"Dockerfile": f"{head}{proxy}CMD {command}", "pyproject.toml": needed, ".dockerignore": ignored}


KINDS: Mapping[str, Kind] = {
    "zerogpu": Kind(
        _zerogpu_front,
        "The GPU of this Space is lent by the call: a run is done in slices, each of which takes some seconds of your "
        "daily quota, and says so before it starts. A run whose quota is used up can go on later, or on the CPU.",
        _zerogpu,
    ),
    "docker": Kind(
        lambda: "sdk: docker\napp_port: 7860\nsuggested_hardware: cpu-basic",
        "On a GPU, change the default of `TORCH_BACKEND` in the Dockerfile to a CUDA build, such as cu128.",
        _docker,
    ),
}
