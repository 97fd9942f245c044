"""Settings of runs that take well under a second: tiny models, a data file, and every replayable way to run."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.support import tiny
from zocore.config import RunConfig

WORDS = {0: ["terrible", "bad", "negative"], 1: ["great", "good", "positive"]}
ROWS = 30

# every replayable way to run: method, subspace, law, update, dtype and carrier
ZEROTH_ORDER: dict[str, dict[str, Any]] = {
    "mezo": {},
    "n-spsa": {"method": "n-spsa", "directions": 3},
    "grzo": {"method": "grzo"},
    "mezo-gv": {"method": "mezo-gv"},
    "mezo-greedy": {"method": "mezo-greedy", "pool": 3},
    "fzoo": {"method": "fzoo", "directions": 3},
    "openai-es": {"method": "openai-es", "directions": 2},
    "qzo nf4": {"method": "qzo", "clip": 2.0},
    "qzo fp4, 2 directions": {"method": "qzo", "quantise": "fp4", "directions": 2},
    "qzo int8": {"method": "qzo", "quantise": "int8"},
    "grzo on scales": {"method": "grzo", "subspace": "scales"},
    "lora": {"subspace": "lora"},
    "lora on nf4": {"subspace": "lora", "quantise": "nf4"},
    "lora, gpt2": {"subspace": "lora", "model": "gpt2"},
    "lora on int8": {"subspace": "lora", "quantise": "int8"},
    "grzo on lora": {"method": "grzo", "subspace": "lora"},
    "sparse": {"keep": 0.5},
    "grzo, sparse": {"method": "grzo", "keep": 0.5},
    "low rank": {"rank": 2},
    "grzo, low rank": {"method": "grzo", "rank": 2},
    "rademacher": {"noise": "rademacher"},
    "one layer": {"subspace": r"layers\.0\."},
    "activity": {"method": "activity", "subspace": "writers:1"},
    "activity, a push a token": {"method": "activity", "subspace": "writers", "tie": "none", "sides": 1},
    "activity on lora": {"method": "activity", "subspace": "lora"},
    "activity, bf16": {"method": "activity", "subspace": "writers:1", "dtype": "bf16"},
    "activity, micro-batch": {"method": "activity", "subspace": "writers:1", "micro_batch": 3},
    "feedback": {"method": "feedback", "subspace": "writers:1"},
    "feedback, a push in two steps": {"method": "feedback", "subspace": "writers:1", "push_every": 2},
    "feedback onto scores, a push in two": {
        "method": "feedback",
        "subspace": "writers:1",
        "onto": "scores",
        "push_every": 2,
    },
    "feedback, two pushes": {"method": "feedback", "subspace": "writers", "directions": 2, "sides": 2, "alpha": 0.5},
    "feedback, bf16": {"method": "feedback", "subspace": "writers:1", "dtype": "bf16"},
    "feedback on lora on nf4": {"method": "feedback", "subspace": "lora", "quantise": "nf4"},
    "feedback, gpt2": {"method": "feedback", "subspace": "writers:1", "model": "gpt2"},
    "feedback, opt": {"method": "feedback", "subspace": "writers:1", "model": "opt"},
    "feedback, bert": {"method": "feedback", "subspace": "writers:1", "model": "bert"},
    "feedback onto scores": {"method": "feedback", "subspace": "writers:1", "onto": "scores"},
    "feedback, encoder": {"method": "feedback", "subspace": "writers:1", "model": "bert", "kind": "encoder"},
    "feedback, micro-batch": {"method": "feedback", "subspace": "writers", "micro_batch": 3},
    "feedback, long label words": {
        "method": "feedback",
        "subspace": "writers:1",
        "label_words": "really terrible,great",
    },
    "momentum": {"update": "momentum"},
    "adam": {"update": "adam", "lr": 1e-3},
    "grzo, adam": {"method": "grzo", "update": "adam", "lr": 1e-3},
    "decay, linear": {"decay": 0.1, "schedule": "linear"},
    "bf16": {"dtype": "bf16"},
    "grzo, bf16": {"method": "grzo", "dtype": "bf16"},
    "bf16 with masters": {"dtype": "bf16", "master": True},
    "grzo, bf16 with masters": {"method": "grzo", "dtype": "bf16", "master": True},
    "micro-batch": {"micro_batch": 3},
    "grzo, micro-batch": {"method": "grzo", "micro_batch": 3},
    "gpt2": {"model": "gpt2"},
    "grzo, opt": {"method": "grzo", "model": "opt"},
    "grzo, bert": {"method": "grzo", "model": "bert"},
}
BACKPROP: dict[str, dict[str, Any]] = {
    "sgd": {"method": "sgd", "lr": 1e-2},
    "adamw": {"method": "adamw", "lr": 1e-3},
    "adamw on lora": {"method": "adamw", "subspace": "lora", "lr": 1e-3},
}
IN_PLACE: dict[str, dict[str, Any]] = {"in-place": {"carrier": "in-place"}}


@cache
def home() -> Path:
    """A folder of this process that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="zocore-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def model_folder(family: str = "llama") -> str:
    """A random two-layer model with its tokenizer, saved once."""
    return str(tiny.save(home() / family, family))


@cache
def data_file() -> str:
    """Thirty short sentences of two labels."""
    lines = [
        json.dumps({"text": f"the film was {WORDS[i % 2][i // 2 % 3]} food {'a' * (i % 5)}", "label": i % 2})
        for i in range(ROWS)
    ]
    path = home() / "data.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def settings(**changes: Any) -> RunConfig:
    """A run of four steps on a tiny model in well under a second."""
    values: dict[str, Any] = {
        "method": "mezo",
        "data": data_file(),
        "template": "{text} It was",
        "label_words": "terrible,great",
        "steps": 4,
        "batch_size": 4,
        "lr": 1e-3,
        "eps": 1e-3,
        "device": "cpu",
    }
    values |= changes
    values["model"] = model_folder(values.get("model", "llama"))
    return RunConfig(**values)


def weights(session: Any) -> list[torch.Tensor]:
    """Copies of everything that moves."""
    return [leaf.tensor.clone() for leaf in session.leaves]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Whether two lists of tensors are bitwise equal."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
