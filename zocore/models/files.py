"""Where a model's files are, and whether they can be loaded: checked before any of them is opened."""

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from zocore.errors import InputError

BUNDLED = Path(__file__).parents[1] / "bundle" / "model"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")


@dataclass(frozen=True)
class Source:
    """A model's name as given, and what transformers is to load."""

    name: str
    location: str  # a folder, or a hub id
    offline: bool  # nothing is asked of the network


def find_model(name: str | Path, allow_pickle: bool = False) -> Source:
    """Return where "bundled", a folder or a hub id is. Raises InputError when it cannot be a model."""
    name = str(name)
    if name == "bundled":
        _check_folder(BUNDLED, allow_pickle)
        return Source(name, str(BUNDLED), offline=True)
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_folder(folder, allow_pickle)
        return Source(name, str(folder), offline=True)
    if folder.exists():
        raise InputError(f"the model {name!r} is a file: give the folder that holds it")
    if not HUB_ID.fullmatch(name):
        raise InputError(f'there is no model folder {name!r}: give a folder, a hub id such as org/name, or "bundled"')
    return Source(name, name, offline=not _reachable())


def _check_folder(folder: Path, allow_pickle: bool) -> None:
    if not (folder / "config.json").is_file():
        raise InputError(f"the folder {folder.name!r} has no config.json: it is not a Hugging Face model folder")
    safe = any(folder.glob("*.safetensors"))
    pickled = any(path for pattern in PICKLES for path in folder.glob(pattern))
    if not safe and not pickled:
        raise InputError(f"the folder {folder.name!r} has no weights: a model.safetensors file is missing")
    if not safe and not allow_pickle:
        raise InputError(
            f"the folder {folder.name!r} has its weights only as a pickle, which can run code when opened: "
            "convert it to safetensors, or allow pickles if you trust its origin"
        )
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise InputError(f"the folder {folder.name!r} has no tokenizer: a tokenizer.json file is missing")


def _reachable() -> bool:
    """Whether the hub can be found by name: without a network transformers retries for half a minute."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    host = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname
    if any(os.environ.get(name) for name in PROXIES):
        return True  # the proxy looks names up
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True
