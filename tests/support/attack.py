"""Requests as a program sends them to a hosted server, from any address, and a watch over how the server bears it."""

import json
import os
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAUSE = 0.25  # seconds between two looks at the page


@dataclass
class Sender:
    """Sends requests to one server. Loopback is trusted as a proxy, so each may name the address it stands for."""

    address: str
    seconds: float = 60.0

    def post(self, path: str, body: bytes, sort: str, origin: str) -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        headers = {"Content-Type": sort, "X-Forwarded-For": origin}
        request = urllib.request.Request(self.address + "gradio_api/" + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.seconds) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            return error.code, json.loads(text) if text.startswith("{") else {"error": text}

    def call(self, name: str, *data: Any, origin: str = "198.51.100.1") -> Any:
        """Return what a named endpoint answers, or its sentence as {"error": ...}."""
        body = json.dumps({"data": list(data)}).encode()
        status, found = self.post(f"run/{name}", body, "application/json", origin)
        return found["data"][0] if status == 200 else found

    def press(self, number: int, data: list[Any], session: str, origin: str) -> tuple[int, Any]:
        """Do what the page does when one of its controls is used."""
        body = json.dumps({"data": data, "fn_index": number, "session_hash": session}).encode()
        return self.post("run/predict", body, "application/json", origin)

    def upload(self, name: str, content: bytes, origin: str) -> tuple[int, Any]:
        """Send a file as the page does; return where it was put."""
        head = f'--zo\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        return self.post("upload", head + content + b"\r\n--zo--\r\n", "multipart/form-data; boundary=zo", origin)

    def page(self) -> float:
        """Return the seconds that the page took to come."""
        began = time.monotonic()
        with urllib.request.urlopen(self.address, timeout=self.seconds) as answer:
            answer.read()
        return time.monotonic() - began

    def config(self) -> Any:
        """Return the page's components and events."""
        with urllib.request.urlopen(self.address + "config", timeout=self.seconds) as answer:
            return json.loads(answer.read())

    def event(self, element: str, kind: str) -> tuple[int, int]:
        """Return the number of the event of an element, and how many values it takes."""
        config = self.config()
        part = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == element)
        for one in config["dependencies"]:
            if [part, kind] in [list(target) for target in one["targets"]]:
                return one["id"], len(one["inputs"])
        raise AssertionError(f"{element} has no event {kind}")


def family(pid: int) -> list[int]:
    """Return a process and all its children."""
    found = [pid]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        if parent == pid:
            found += family(int(path.parent.name))
    return found


def resident(pid: int) -> int:
    """Return the bytes a process holds in memory, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


@dataclass
class Watch:
    """Looks at the page and the memory again and again, until it is told to end."""

    sender: Sender
    pid: int
    waits: list[float] = field(default_factory=list)
    server_bytes: int = 0
    child_bytes: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(PAUSE):
            try:
                self.waits.append(self.sender.page())
            except OSError:
                self.waits.append(self.sender.seconds)
            server, *children = family(self.pid)
            self.server_bytes = max(self.server_bytes, resident(server))
            self.child_bytes = max([self.child_bytes, *map(resident, children)])

    def figures(self) -> str:
        """Return the longest and the usual wait, and the memory, in one line."""
        waits = sorted(self.waits) or [0.0]
        middle, late = waits[len(waits) // 2], waits[int(0.99 * (len(waits) - 1))]
        return (
            f"page: {len(waits)} looks, median {middle:.2f} s, 99 % below {late:.2f} s, longest {waits[-1]:.2f} s; "
            f"memory: server {self.server_bytes / 1e6:.0f} MB, largest child {self.child_bytes / 1e6:.0f} MB"
        )
