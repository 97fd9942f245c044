"""The app as a server of its own process, on loopback."""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.support.places import ROOT


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serve(runs: Path, *options: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start `python -m app` and wait until it answers."""
    return start([sys.executable, "-m", "app"], runs, *options, path=str(ROOT))


def start(program: list[str | Path], runs: Path, *options: str, path: str = "") -> tuple[subprocess.Popen[bytes], str]:
    """Start the app by a program of one's own, in the folder that holds its runs, and wait until it answers."""
    port = free_port()
    command = [*program, "--port", str(port), "--runs", str(runs), *options]
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (runs.parent / "server.log").open("ab") as log:
        server = subprocess.Popen(command, cwd=runs.parent, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/"
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=5).read()
            return server, address
        except OSError:
            assert server.poll() is None, (runs.parent / "server.log").read_text()
            time.sleep(0.5)
    raise AssertionError("the server did not start")
