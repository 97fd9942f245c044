"""What a choice will cost, before it is made: forward passes, seconds, memory, downloads, and whether it fits."""

import os
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import torch

from app.form import catalogue
from app.jobs.lab import Lab
from app.jobs.questions import longest_prompt
from app.jobs.speeds import Speeds
from app.words import clock, size
from zocore import methods
from zocore.config import RunConfig
from zocore.defaults import before_loading
from zocore.errors import InputError
from zocore.memory.bill import Bill, bill
from zocore.runs.session import OF_DATA

FLOPS = {"cpu": 8e10, "cuda": 2e13}  # a cautious guess at what a small batch reaches, until a run was measured
NOISE = {"cpu": 5e-9, "cuda": 2e-10}  # seconds to draw and add the noise of one weight, twice and once more
CHARS = 4  # of a token, about
SPARE = 4  # tokens that a tokenizer adds or our count misses


@dataclass(frozen=True)
class Cost:
    """The card's numbers."""

    steps: int
    passes: int  # forward passes of a step
    per_step: float  # seconds
    measured: bool  # whether the seconds are
    device: str
    dtype: str
    bill: Bill | None
    room: int  # bytes free on the device
    download: int | None  # bytes, 0 when the model is here, None when unknown
    blocker: str = ""

    @property
    def forwards(self) -> int:
        """Forward passes of the whole run."""
        return self.steps * self.passes


def passes(config: RunConfig) -> int:
    """Return the forward passes of one step. Raises ValueError for settings that do not go together."""
    return methods.build(config.method, **config.options).forward_passes()


def cost(config: RunConfig, speeds: Speeds) -> Cost:
    """Return what a run will cost on this machine. Raises ValueError for settings that do not go together."""
    c = before_loading(config)
    device, dtype = str(c.device), str(c.dtype)
    per_step = speeds.seconds(config)
    found = predicted(config)
    room = free(device)
    download = _download(c.model)
    return Cost(
        c.steps,
        passes(config),
        per_step or speeds.near(config) or _guess(config),
        per_step is not None,
        device,
        dtype,
        found,
        room,
        download,
        _blocker(c, found, room),
    )


def predicted(config: RunConfig, method: str = "") -> Bill | None:
    """Return the memory bill of the settings, or of another method on the same model; None when sizes are unknown."""
    c = before_loading(config)
    shape = catalogue.shape(c.model)
    if shape is None:
        return None
    dtype = c.dtype if c.dtype in ("fp32", "bf16", "fp16") else "fp32"
    bits = 8 if c.quantise == "int8" else 4
    return bill(shape, method or c.method, c.batch_size, min(tokens(config), shape.positions), dtype, bits=bits)


def tokens(config: RunConfig) -> int:
    """Return about how many tokens the longest prompt has, from its characters; the cut where it was not measured."""
    if config.data is None:
        characters = _bundled(config.task)
    else:
        characters = _LONGEST.get(_text_key(config), config.max_tokens * CHARS)
    return min(config.max_tokens, characters // CHARS + SPARE)


@lru_cache(maxsize=16)
def _bundled(task: str) -> int:
    try:
        return longest_prompt(RunConfig(task=task))
    except InputError:
        return RunConfig.max_tokens * CHARS


_LONGEST: dict[tuple[object, ...], int] = {}  # characters of the longest prompt of one's own data
MOST_KNOWN = 1000


def _text_key(config: RunConfig) -> tuple[object, ...]:
    """What decides the prompts: the file as it is now, and how it is read."""
    path = Path(config.data or "")
    changed = path.stat().st_mtime_ns if path.exists() else 0
    return changed, *(getattr(config, name) for name in ("data", *OF_DATA))


def measure_texts(config: RunConfig, files: Lab) -> None:
    """Have a child read one's own data, once, so that `tokens` knows its length. Raises InputError for bad data."""
    key = _text_key(config)
    if config.data is None or key in _LONGEST:
        return
    asked = RunConfig(**{name: getattr(config, name) for name in ("data", *OF_DATA)})
    characters = int(files.ask("longest", config=asked.to_json()))
    while len(_LONGEST) >= MOST_KNOWN:
        del _LONGEST[next(iter(_LONGEST))]
    _LONGEST[key] = characters


def free(device: str) -> int:
    """Return the bytes a run may take on a device."""
    if device.startswith("cuda") and torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    for line in _meminfo():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _meminfo() -> list[str]:
    try:
        return Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return []


def _guess(config: RunConfig) -> float:
    """Seconds per step from sizes alone, before anything was measured."""
    c = before_loading(config)
    shape = catalogue.shape(c.model)
    parameters = shape.parameters if shape else 10**8
    device = "cuda" if str(c.device).startswith("cuda") else "cpu"
    forward = 2 * parameters * c.batch_size * tokens(config) / FLOPS[device]
    return passes(config) * (forward + parameters * NOISE[device] + 0.01) + 0.01


def _download(model: str) -> int | None:
    if catalogue.downloaded(model):
        return 0
    shape = catalogue.shape(model)
    return shape.parameters * (4 if shape.parameters < 4e8 else 2) if shape else None


def _blocker(c: RunConfig, found: Bill | None, room: int) -> str:
    """Why the run cannot start, as the label of the Start button; empty when it can."""
    if str(c.device).startswith("cuda") and not torch.cuda.is_available():
        return "Needs a GPU: none here"
    if found is not None and found.total > room:
        return f"Needs {size(found.total)}: {size(room)} free"
    return ""


def card(price: Cost) -> str:
    """Return the card as HTML."""
    kind = "measured on this machine" if price.measured else "estimated, until a run was timed"
    rows = [
        ("Forward passes", f"{price.forwards:,}", f"{price.steps:,} steps × {price.passes}"),
        ("Time", f"about {clock(price.per_step * price.steps)}", kind),
        _memory_row(price),
        _download_row(price.download),
    ]
    body = "".join(
        f"<dt>{name}</dt><dd><b>{escape(value)}</b><span>{escape(note)}</span></dd>" for name, value, note in rows
    )
    return f"<h3>This run will cost</h3><dl>{body}</dl>"


def _memory_row(price: Cost) -> tuple[str, str, str]:
    if price.bill is None:
        return "Memory", "unknown", "sizes are read once the model is here"
    verdict = "fits" if price.bill.total <= price.room else "does not fit"
    return (
        "Memory",
        size(price.bill.total),
        f"estimated, {price.dtype} on {price.device}: {verdict} in {size(price.room)} free",
    )


def _download_row(download: int | None) -> tuple[str, str, str]:
    if download == 0:
        return "Download", "nothing", "the model is here"
    return "Download", "unknown" if download is None else f"about {size(download)}", "once, from the model hub"


def problem(message: str) -> str:
    """Return the card of settings that cannot work."""
    return f"<h3>This cannot run yet</h3><p>{escape(message)}</p>"


def facts(price: Cost) -> dict[str, Any]:
    """Return the card's numbers for the API."""
    return {
        "steps": price.steps,
        "forward_passes": price.forwards,
        "seconds": price.per_step * price.steps,
        "seconds_measured": price.measured,
        "memory_bytes": price.bill.total if price.bill else None,
        "download_bytes": price.download,
        "blocker": price.blocker,
    }
