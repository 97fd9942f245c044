"""An assembled Space: everything it needs and nothing else, and its entry serves a run to its end."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.space.assemble import KINDS, assemble, requirements
from tests.support.attack import Sender
from tests.support.places import ROOT
from tests.support.server import free_port
from zocore.errors import InputError

STAND_IN = str(ROOT / "tests" / "support" / "lent")
WARM = "from app.jobs.child import warm_up; warm_up()"
SMALL: dict[str, Any] = {"method": "mezo", "steps": 8, "eval_examples": 20, "batch_size": 4, "seed": 3}


def front(folder: Path) -> dict[str, str]:
    """Return the lines of a README's front matter that are names and values."""
    matter = (folder / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    return dict(line.split(": ", 1) for line in matter.splitlines() if ": " in line)


def named(line: str) -> str:
    """Return the package of a line of requirements."""
    return re.split(r"[<>=]", line)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_holds_what_it_needs_and_nothing_else(kind: str, tmp_path: Path) -> None:
    count = assemble(kind, tmp_path / "space")
    files = {str(p.relative_to(tmp_path / "space")) for p in (tmp_path / "space").rglob("*") if p.is_file()}
    assert len(files) == count
    assert {"README.md", "LICENSE", "app/__main__.py", "app/jobs/lent.py", "zocore/cli.py"} <= files
    wanted = {"docker": {"Dockerfile", "pyproject.toml"}, "zerogpu": {"main.py", "requirements.txt"}}[kind]
    assert wanted <= files
    assert not [f for f in files if re.search(r"tests/|notebooks|__pycache__|\.pyc$|^app/space|HOSTING", f)]
    facts = front(tmp_path / "space")
    assert len(facts["short_description"]) <= 60 and facts["license"] == "apache-2.0"
    assert facts["sdk"] == {"docker": "docker", "zerogpu": "gradio"}[kind]
    if kind == "zerogpu":
        assert facts["app_file"] in files and re.fullmatch(r"6\.\d+\.\d+", facts["sdk_version"])
        lines = (tmp_path / "space" / "requirements.txt").read_text().splitlines()
        assert all(re.search(r">=.+,<", line) for line in lines), lines
        assert "torch>=2.8,<2.12" in lines and any(line.startswith("spaces>") for line in lines)
        assert {named(line) for line in requirements()} < {named(line) for line in lines}


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        assemble("docker", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    clone = tmp_path / "clone"
    (clone / ".git").mkdir(parents=True)
    (clone / "README.md").write_text("---\nold\n")
    assemble("zerogpu", clone)
    assert (clone / ".git").is_dir() and "sdk: gradio" in (clone / "README.md").read_text()


@contextmanager
def entry(folder: Path, command: list[str], environment: Mapping[str, str]) -> Iterator[Sender]:
    """Start a Space as its host does, in its own folder, and end it."""
    port, log = free_port(), folder.parent / "space.log"
    settings = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    settings |= {**environment, "ZOCORE_PORT": str(port), "ZOCORE_RUNS": str(folder.parent / "runs")}
    settings |= {"ZOCORE_HOST": "127.0.0.1"}
    # a folder where nothing ever ran has no compiled kernels: on a busy machine they take longer than a slice
    subprocess.run([sys.executable, "-c", WARM], cwd=folder, env=settings, check=True, timeout=600)
    with log.open("ab") as file:
        server = subprocess.Popen(command, cwd=folder, env=settings, stdout=file, stderr=file)
    send = Sender(f"http://127.0.0.1:{port}/")
    try:
        for _ in range(600):
            try:
                send.page()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.5)
        yield send
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        server.terminate()
        server.wait(timeout=30)


def until_over(send: Sender, job: str) -> Any:
    end = time.monotonic() + 600  # children go behind all else on a busy machine
    while not (status := send.call("status", job))["over"]:
        assert time.monotonic() < end, status
        time.sleep(0.3)
    return status


def losses(send: Sender, job: str) -> list[float]:
    """Return the losses of the steps, each of which comes once."""
    body = json.dumps({"data": [job, 0]}).encode()
    status, found = send.post("run/events", body, "application/json", "198.51.100.1")
    assert status == 200, found
    steps = [event for event in found["data"][0] if event["event"] == "StepDone"]
    assert [event["step"] for event in steps] == list(range(1, SMALL["steps"] + 1))
    return [event["loss"] for event in steps]


def dockers(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command and the variables of a Dockerfile, but for those that name folders of the container."""
    text = (folder / "Dockerfile").read_text().replace("\\\n", " ")
    named = [pair for line in re.findall(r"^ENV (.*)$", text, re.M) for pair in shlex.split(line)]
    variables = dict(pair.split("=", 1) for pair in named)
    found = re.findall(r"^CMD (\[.*\])$", text, re.M)
    program, *rest = json.loads(found[-1])
    assert program == "python"
    return [sys.executable, *rest], {k: v for k, v in variables.items() if "/home/user" not in v}


@pytest.mark.soak
def test_both_kinds_do_a_run_to_its_end_and_it_is_the_same_run(tmp_path: Path) -> None:
    """The docker kind in a child process; the zerogpu kind in a slice, and on the CPU where the quota ends."""
    assemble("docker", tmp_path / "docker" / "space")
    command, variables = dockers(tmp_path / "docker" / "space")
    with entry(tmp_path / "docker" / "space", command, variables) as send:
        assert "safetensors only" in send.call("start", {"allow_pickle": True}, "")["error"], "it is hosted"
        run = send.call("start", SMALL, "")
        assert until_over(send, run["job"])["phase"] == "finished"
        whole = losses(send, run["job"])
    assemble("zerogpu", tmp_path / "lent" / "space")
    quota = tmp_path / "lent" / "quota"
    variables = {"PYTHONPATH": STAND_IN, "SPACES_ZERO_GPU": "true", "STAND_IN_QUOTA": str(quota)}
    variables["ZOCORE_SLICE"] = "400"  # of a busy machine; what is killed sooner is asked for again
    with entry(tmp_path / "lent" / "space", [sys.executable, "main.py"], variables) as send:
        from gradio_client import Client

        lab = Client(send.address, verbose=False)
        assert send.call("price", SMALL)["quota_seconds"] > 0
        run = send.call("start", SMALL, "")
        said = list(lab.submit(run["job"], run["visitor"], api_name="/drive"))
        assert said[0].startswith("slice 1") and said[-1].startswith("finished"), said
        assert until_over(send, run["job"])["phase"] == "finished"
        assert losses(send, run["job"]) == whole
        quota.write_text("10")
        run = send.call("start", SMALL, "")
        said = list(lab.submit(run["job"], run["visitor"], api_name="/drive"))
        assert "paused at step 0" in said[-1] and "quota exceeded" in said[-1], said
        send.call("resume", run["job"], run["visitor"], True)
        assert until_over(send, run["job"])["phase"] == "finished"
        assert losses(send, run["job"]) == whole
