"""What a choice will cost, before it is made: seconds, memory, downloads, and whether it fits."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from app.form import catalogue
from app.form.arithmetic import kept_examples, passes, price, search_steps
from app.form.prompts import judged, mean_tokens, texts, written
from app.jobs.lent import ROOM, Plan, lends, offered
from app.jobs.speeds import Speeds
from app.words import size
from zocore.config import RunConfig
from zocore.defaults import before_loading
from zocore.errors import InputError
from zocore.memory.bill import Bill, bill
from zocore.runs.opening import check

FLOPS = {"cpu": 8e10, "cuda": 2e13}  # a cautious guess at what a small batch reaches, until a run was measured
NOISE = {"cpu": 5e-9, "cuda": 2e-10}  # seconds to draw and add the noise of one weight, twice and once more
LOAD = 1.0  # seconds to open a small model that is here


@dataclass(frozen=True)
class Cost:
    """The card's numbers."""

    steps: int
    passes: float  # forward passes of a step, on average
    per_step: float  # seconds
    measured: bool  # whether the seconds are
    device: str
    dtype: str
    bill: Bill | None
    room: int  # bytes free on the device
    download: int | None  # bytes, 0 when the model is here, None when unknown
    looks: float = 0.0  # seconds of loading and of the evaluations
    blocker: str = ""
    written: int = 0  # tokens that a forward pass may write for each example, where it writes
    lent: Plan | None = None  # slices of a GPU that is lent by the call
    search: int = 0  # steps that looking for the learning rate takes at most

    @property
    def seconds(self) -> float:
        """Of the whole run, evaluations and the search for a rate included."""
        return (self.steps + self.search) * self.per_step + self.looks

    @property
    def forwards(self) -> int:
        """Forward passes of the whole run, at most."""
        return round((self.steps + self.search) * self.passes)


def cost(config: RunConfig, speeds: Speeds) -> Cost:
    """Return what a run will cost on this machine. Raises ValueError for settings that do not go together."""
    _check_device(config)
    check(replace(config, device=None), catalogue.kind(config.model))
    c = before_loading(config)
    device, dtype = str(c.device), str(c.dtype)
    measured = speeds.seconds(config)
    per_step = measured or speeds.near(config) or _guess(config)
    memory = predicted(config)
    room = free(device)
    download = _download(c.model)
    return Cost(
        c.steps,
        passes(config),
        per_step,
        measured is not None,
        device,
        dtype,
        memory,
        room,
        download,
        _looks(config, per_step),
        _blocker(c, memory, room),
        written(config),
        Plan.of(c.steps * per_step + _looks(config, per_step)) if lends(config) else None,
        search_steps(config),
    )


def _check_device(config: RunConfig) -> None:
    if str(config.device).startswith("cuda") and not torch.cuda.is_available():
        raise InputError("this preset needs a GPU, and this machine has none: choose another preset")


def predicted(config: RunConfig, method: str = "") -> Bill | None:
    """Return the memory bill of the settings, or of another method on the same model; None when sizes are unknown."""
    c = before_loading(config)
    shape = catalogue.shape(c.model)
    if shape is None:
        return None
    dtype = c.dtype if c.dtype in ("fp32", "bf16", "fp16") else "fp32"
    bits = 8 if c.quantise == "int8" else 4
    text = texts(config)
    rows, positions = c.batch_size * text.rows, min(text.tokens + judged(c), c.max_tokens, shape.positions)
    counted = bill(shape, method or c.method, rows, positions, dtype, options=text.options, bits=bits)
    if method not in ("", c.method) or c.device != "cpu":
        return counted
    tokens = kept_examples(config) * text.rows * mean_tokens(c.task)
    return replace(counted, kept=int(tokens) * shape.hidden * (4 if dtype == "fp32" else 2))


def needed(memory: Bill) -> int:
    """Return the bytes that the device has to hold: on a CPU what is kept of frozen blocks comes on top."""
    return memory.total + memory.kept


def free(device: str) -> int:
    """Return the bytes a run may take on a device."""
    if device.startswith("cuda") and offered():
        return ROOM
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
    text = texts(config)
    new = written(c)
    forward = 2 * parameters * c.batch_size * text.rows * (text.tokens + new) / FLOPS[device]
    # the noise of a probe is made anew for each token that is written
    noise = passes(config) * max(1, new) * (parameters * NOISE[device] + 0.01)
    return price(config) * forward + noise + 0.01


def _looks(config: RunConfig, per_step: float) -> float:
    """Seconds of loading and of the evaluations before, between and after, from the seconds of a step."""
    count = 2 + (config.steps // config.eval_every if config.eval_every else 0)
    forward = per_step / price(config) / config.batch_size  # of one example
    if judged(config) and not written(config):
        forward *= 1 + judged(config) / texts(config).tokens
    return LOAD * (2 if config.searches else 1) + count * config.eval_examples * forward


def _download(model: str) -> int | None:
    if catalogue.downloaded(model):
        return 0
    shape = catalogue.shape(model)
    return shape.parameters * (4 if shape.parameters < 4e8 else 2) if shape else None


def _blocker(c: RunConfig, memory: Bill | None, room: int) -> str:
    """Why the run cannot start, as the label of the Start button; empty when it can."""
    if str(c.device).startswith("cuda") and not torch.cuda.is_available() and not offered():
        return "Needs a GPU: none here"
    if memory is not None and needed(memory) > room:
        return f"Needs {size(needed(memory))}: {size(room)} free"
    return ""
