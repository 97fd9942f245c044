"""What a choice will cost, before it is made: forward passes, seconds, memory, downloads, and whether it fits."""

import math
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import torch

from app.form import catalogue
from app.jobs.lab import Lab
from app.jobs.lent import ROOM, Plan, lends, offered
from app.jobs.questions import longest_prompt
from app.jobs.speeds import Speeds
from app.words import clock, plain, size
from zocore import methods
from zocore.config import RunConfig
from zocore.data.tasks import bundled_tasks
from zocore.defaults import before_loading
from zocore.errors import InputError
from zocore.memory.bill import Bill, bill
from zocore.models.files import BUNDLED
from zocore.objectives import OBJECTIVES
from zocore.runs import rate_search
from zocore.runs.opening import check
from zocore.runs.task import OF_DATA, read
from zocore.subspaces.blocks import of_blocks

FLOPS = {"cpu": 8e10, "cuda": 2e13}  # a cautious guess at what a small batch reaches, until a run was measured
NOISE = {"cpu": 5e-9, "cuda": 2e-10}  # seconds to draw and add the noise of one weight, twice and once more
LOAD = 1.0  # seconds to open a small model that is here
PER_EXAMPLE = 2.0  # price of a forward in which each example has its own direction: every product is done twice
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
        return (self.steps + self.search) * self.passes


def search_steps(config: RunConfig) -> int:
    """Return how many steps a run does at most to find its learning rate."""
    return rate_search.MOST if config.searches else 0


def passes(config: RunConfig) -> int:
    """Return the forward passes of one step. Raises ValueError for settings that do not go together."""
    return methods.build(config.method, **config.options).forward_passes()


def price(config: RunConfig) -> float:
    """Return what a step of the run costs, in plain forwards' worth of arithmetic, on the average of all its steps.

    Raises ValueError for settings that do not go together.
    """
    return _spent(config, config.steps) / config.steps


def affordable(config: RunConfig, budget: float) -> int:
    """Return how many steps a budget of plain forwards buys."""
    steps = int(budget / _call(config) + 1e-9)
    while steps and _spent(config, steps) > budget + 1e-9:
        steps -= 1
    return steps


def _spent(config: RunConfig, steps: int) -> float:
    """The price of so many steps: the passes of each, and the frozen blocks once for each batch that is new."""
    return _call(config) * steps + _parts(config).frozen * min(steps, _batches(config))


def _call(config: RunConfig) -> float:
    """The price of a step whose frozen blocks have been run before."""
    method, part = methods.build(config.method, **config.options), _parts(config)
    again = part.moved * (PER_EXAMPLE - 1) if method.per_example else 0.0
    return method.forward_cost(1.0 + again - part.frozen)


def _batches(config: RunConfig) -> float:
    """How many batches the training examples of a task make; of a file's, whose count is not known here, no end."""
    return math.inf if config.data else _examples(config.task) / config.batch_size


@dataclass(frozen=True)
class Parts:
    """Shares of a plain forward's products."""

    frozen: float = 0.0  # in the blocks below everything that moves
    moved: float = 1.0  # with weights that move


def _parts(config: RunConfig) -> Parts:
    """The shares for a subspace of the last blocks, from the model's sizes; elsewhere every product counts."""
    shape = catalogue.shape(config.model)
    subspace = methods.METHODS[config.method].home if config.subspace == "auto" else config.subspace
    asked = of_blocks(subspace) if shape is not None else None
    if shape is None or asked is None:
        return Parts()
    name, count = asked
    blocks = min(count or shape.layers, shape.layers)
    block = sum(linear.weights for linear in shape.block_linears)
    head = shape.vocab * shape.hidden
    whole = shape.layers * block + head / texts(config).tokens  # the head reads one place
    moving = sum(linear.weights for linear in shape.writers) if name == "writers" else block
    # the engine counts what is done twice as a share of all matrices, the head whole
    return Parts((shape.layers - blocks) * block / whole, blocks * moving / (shape.layers * block + head))


def cost(config: RunConfig, speeds: Speeds) -> Cost:
    """Return what a run will cost on this machine. Raises ValueError for settings that do not go together."""
    _check_device(config)
    check(replace(config, device=None), catalogue.kind(config.model))
    c = before_loading(config)
    device, dtype = str(c.device), str(c.dtype)
    known = speeds.seconds(config)
    per_step = known or speeds.near(config) or _guess(config)
    found = predicted(config)
    room = free(device)
    download = _download(c.model)
    return Cost(
        c.steps,
        passes(config),
        per_step,
        known is not None,
        device,
        dtype,
        found,
        room,
        download,
        _looks(config, per_step),
        _blocker(c, found, room),
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
    return bill(shape, method or c.method, rows, positions, dtype, options=text.options, bits=bits)


def written(config: RunConfig) -> int:
    """Return the tokens that a forward pass may write for each example: a completion, where the objective writes."""
    return config.max_new_tokens if OBJECTIVES[config.objective].writes else 0


def judged(config: RunConfig) -> int:
    """Return the tokens that an evaluation may write for each example."""
    return config.max_new_tokens if OBJECTIVES[config.objective].writes or config.metric else 0


@dataclass(frozen=True)
class Texts:
    """How long the prompts of a task are to a model."""

    tokens: int  # of the longest
    rows: int = 1  # that one example takes in a batch: one for each label whose word has several tokens
    options: int = 1  # tokens of the longest label word


def texts(config: RunConfig) -> Texts:
    """Return about how long the prompts are: measured, or from the characters of a bundled task, or the cut."""
    measured = _MEASURED.get(_text_key(config))
    if measured is None:
        characters = config.max_tokens * CHARS if config.data else _bundled(config.task)
        return Texts(min(config.max_tokens, characters // CHARS + SPARE))
    count = measured["tokens"] or measured["characters"] // CHARS + SPARE
    return Texts(min(config.max_tokens, count), measured["rows"], measured["options"])


@lru_cache(maxsize=16)
def _examples(task: str) -> float:
    if task not in bundled_tasks():  # nothing is downloaded for a price
        return math.inf
    try:
        return len(read(RunConfig(task=task)).train)
    except InputError:
        return math.inf


@lru_cache(maxsize=16)
def _bundled(task: str) -> int:
    if task not in bundled_tasks():
        return RunConfig.max_tokens * CHARS
    try:
        return longest_prompt(read(RunConfig(task=task)))
    except InputError:
        return RunConfig.max_tokens * CHARS


FEW = ("k_shot", "train_examples")  # settings that take a part of the examples
_MEASURED: dict[tuple[object, ...], dict[str, Any]] = {}  # what the question "texts" found
MOST_KNOWN = 1000


def _text_key(config: RunConfig) -> tuple[object, ...]:
    """What decides the prompts: the model, the file as it is now, and how it is read."""
    path = Path(config.data or "")
    changed = path.stat().st_mtime_ns if config.data and path.exists() else 0
    text = bool(OBJECTIVES[config.objective].text)
    return changed, text, *(getattr(config, name) for name in ("model", "task", "data", *OF_DATA, *FEW))


def measure_texts(config: RunConfig, files: Lab) -> None:
    """Have a child read the data, once for each model, so that `texts` is exact. Raises InputError for bad data.

    A bundled task of the bundled model needs no measuring: each of its labels is one token. Rows of the hub are not
    downloaded for it.
    """
    key, known = _text_key(config), config.data is None
    few = any(getattr(config, name) for name in FEW)  # there may be fewer
    if key in _MEASURED or (known and not few and (config.model == "bundled" or not _tokenizer(config.model))):
        return
    if known and config.task not in bundled_tasks():
        return
    names = ("task", "data", "objective", "reward", "metric", *OF_DATA, *FEW)
    asked = RunConfig(**{name: getattr(config, name) for name in names})
    causal = (config.kind or catalogue.kind(config.model) or "causal") == "causal"
    sizes = files.ask("texts", config=asked.to_json(), tokenizer=_tokenizer(config.model), causal=causal)
    while len(_MEASURED) >= MOST_KNOWN:
        del _MEASURED[next(iter(_MEASURED))]
    _MEASURED[key] = sizes


def _tokenizer(model: str) -> str:
    """Where a model's tokenizer is: its folder or hub id when it is here, empty when it is not."""
    if model == "bundled":
        return str(BUNDLED)
    return model if catalogue.downloaded(model) else ""


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


def _blocker(c: RunConfig, found: Bill | None, room: int) -> str:
    """Why the run cannot start, as the label of the Start button; empty when it can."""
    if str(c.device).startswith("cuda") and not torch.cuda.is_available() and not offered():
        return "Needs a GPU: none here"
    if found is not None and found.total > room:
        return f"Needs {size(found.total)}: {size(room)} free"
    return ""


def card(price: Cost) -> str:
    """Return the card as HTML."""
    kind = "measured on this machine" if price.measured else "estimated, until a run was timed"
    rows = [
        _forwards_row(price),
        ("Time", f"about {clock(price.seconds)}", kind),
        _memory_row(price),
        _download_row(price.download),
        *([_lent_row(price.lent)] if price.lent else []),
    ]
    body = "".join(
        f"<dt>{name}</dt><dd><b>{escape(value)}</b><span>{escape(note)}</span></dd>" for name, value, note in rows
    )
    return f"<h3>This run will cost</h3><dl>{body}</dl>"


def _forwards_row(price: Cost) -> tuple[str, str, str]:
    writes = f", each writing up to {price.written} tokens an example" if price.written else ""
    each = f"{price.steps:,} steps × {price.passes}{writes}"
    if not price.search:
        return "Forward passes", f"{price.forwards:,}", each
    return "Forward passes", f"at most {price.forwards:,}", f"{each}, and {price.search} × {price.passes} for the rate"


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


def _lent_row(plan: Plan) -> tuple[str, str, str]:
    many = f"{plan.slices} slices" if plan.slices > 1 else "one slice"
    each = " each" if plan.slices > 1 else ""
    return (
        "GPU quota",
        f"about {many} of {plan.seconds} s",
        f"lent by the call; {plan.counted} s of your daily quota have to be left for it{each}. A run is paused where "
        "the quota ends, and can go on later or on the CPU",
    )


def problem(message: str) -> str:
    """Return the card of settings that cannot work."""
    return f"<h3>This cannot run yet</h3><p>{escape(plain(message))}</p>"


def facts(price: Cost) -> dict[str, Any]:
    """Return the card's numbers for the API."""
    return {
        "steps": price.steps,
        "forward_passes": price.forwards,
        "tokens_a_forward": price.written,
        "search_steps": price.search,
        "seconds": price.seconds,
        "seconds_measured": price.measured,
        "memory_bytes": price.bill.total if price.bill else None,
        "download_bytes": price.download,
        "blocker": price.blocker,
        "quota_seconds": price.lent.slices * price.lent.counted if price.lent else 0,
    }
