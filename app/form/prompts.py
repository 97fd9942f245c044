"""How long the prompts of a choice are to its model: measured by a child, or guessed from characters."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.form import catalogue
from app.jobs.lab import Lab
from app.jobs.questions import prompt_lengths
from zocore.config import RunConfig
from zocore.data.tasks import bundled_tasks
from zocore.errors import InputError
from zocore.models.files import BUNDLED
from zocore.objectives import OBJECTIVES
from zocore.runs.task import OF_DATA, read

CHARS = 4  # of a token, about
SPARE = 4  # tokens that a tokenizer adds or our count misses
FEW = ("k_shot", "train_examples")  # settings that take a part of the examples
_MEASURED: dict[tuple[object, ...], dict[str, Any]] = {}  # what the question "texts" found
MOST_KNOWN = 1000


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
        characters = config.max_tokens * CHARS if config.data else max(_bundled(config.task))
        return Texts(min(config.max_tokens, characters // CHARS + SPARE))
    count = measured["tokens"] or measured["characters"] // CHARS + SPARE
    return Texts(min(config.max_tokens, count), measured["rows"], measured["options"])


def mean_tokens(task: str) -> float:
    """Return about how many tokens a bundled task's prompts have on the average."""
    lengths = _bundled(task)
    return sum(lengths) / len(lengths) / CHARS


@lru_cache(maxsize=16)
def _bundled(task: str) -> tuple[int, ...]:
    """The characters of each prompt of a bundled task; of another's, one of the longest that may be."""
    if task not in bundled_tasks():
        return (RunConfig.max_tokens * CHARS,)
    try:
        return tuple(prompt_lengths(read(RunConfig(task=task))))
    except InputError:
        return (RunConfig.max_tokens * CHARS,)


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
    key, of_project = _text_key(config), config.data is None
    few = any(getattr(config, name) for name in FEW)  # there may be fewer
    if key in _MEASURED or (of_project and not few and (config.model == "bundled" or not _tokenizer(config.model))):
        return
    if of_project and config.task not in bundled_tasks():
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
