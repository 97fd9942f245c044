"""Read the word lists and sentence patterns of the little world."""

import tomllib
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from . import ROOT

SPLITS = ("train", "dev", "test")
GOOD, BAD = "good", "bad"
OPPOSITE = {GOOD: BAD, BAD: GOOD}


@dataclass(frozen=True)
class Aspect:
    """Nouns one can judge together with the adjectives that fit them."""

    nouns: list[str]
    plural: list[str]
    adjectives: dict[str, list[str]]


@dataclass(frozen=True)
class Domain:
    """One field of life, such as food, with its things, aspects and whole opinions."""

    name: str
    kinds: list[str]
    aspects: list[Aspect]
    clauses: dict[str, list[str]]


@dataclass
class Words:
    """All words that one split may use; `lists` holds those of no particular domain."""

    domains: list[Domain] = field(default_factory=list)
    topics: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)


@cache
def patterns() -> dict[str, Any]:
    """Return the patterns by task and split."""
    return tomllib.loads((ROOT / "patterns.toml").read_text("utf-8"))


@cache
def words(split: str) -> Words:
    """Return the words of a split, or every word for the split "all"."""
    raw = _select(tomllib.loads((ROOT / "lexicon.toml").read_text("utf-8")), split)
    lists = Words(topics=raw.pop("topics"), lists=raw.pop("general") | raw.pop("questions"))
    lists.domains = [_domain(name, table) for name, table in raw.items()]
    return lists


def _domain(name: str, table: dict[str, Any]) -> Domain:
    kinds, clauses = table.pop("kinds"), table.pop("clauses")
    aspects = [
        Aspect(a.get("nouns", []), a.get("plural", []), {GOOD: a["good"], BAD: a["bad"]}) for a in table.values()
    ]
    return Domain(name, kinds, aspects, {GOOD: clauses["praise"], BAD: clauses["blame"]})


def _select(table: dict[str, Any], split: str) -> dict[str, Any]:
    return {
        key: _select(value, split) if isinstance(value, dict) else _share(_listed(value), split)
        for key, value in table.items()
    }


def _listed(text: str) -> list[str]:
    return [" ".join(word.split()) for word in text.split(",")]


def _share(items: list[str], split: str) -> list[str]:
    """Keep one word in four for training only and one for testing only; short lists are shared."""
    hidden = {"train": 1, "dev": 1, "test": 0}.get(split)
    if hidden is None or len(items) < 8:
        return items
    return [item for index, item in enumerate(items) if index % 4 != hidden]
