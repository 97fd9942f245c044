"""Values read from JSON, held against the types of a dataclass: one sentence for whatever does not fit."""

import json
from dataclasses import MISSING, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

DEEPEST = 8  # lists and objects inside each other, where a type leaves the content open
LARGEST = 2**63  # no count, size or seed is larger
WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", list: "a list"}
WORDS |= {dict: "an object", NoneType: "null"}


def parsed(line: str | bytes) -> dict[str, Any]:
    """Return the JSON object of a line. Raises ValueError when it holds none."""
    try:
        value = json.loads(line)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else "it is not valid JSON"
        raise ValueError(reason) from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def check_record(kind: Any, record: dict[str, Any]) -> None:
    """Raise ValueError unless the record's names and values are those of the dataclass `kind`."""
    types = _hints(kind)
    for name, value in record.items():
        if name not in types:
            raise ValueError(f"it has an unknown field {name[:40]!r}")
        check(types[name], value, name)
    missing = [name for name in _required(kind) if name not in record]
    if missing:
        raise ValueError(f"the field {missing[0]!r} is missing")


def check(hint: Any, value: Any, name: str) -> None:
    """Raise ValueError, naming the place, unless `value` is of the type that `hint` says."""
    if hint is Any:
        _check_depth(value, name)
    elif get_origin(hint) in (Union, UnionType):
        _check_one_of(get_args(hint), value, name)
    elif get_origin(hint) is list:
        _check_plain(list, value, name)
        for number, item in enumerate(value):
            check(get_args(hint)[0], item, f"{name}[{number}]")
    elif get_origin(hint) is dict:
        _check_plain(dict, value, name)
        for key, item in value.items():
            check(get_args(hint)[1], item, f"{name}[{key[:40]!r}]")
    else:
        _check_plain(hint, value, name)


def _check_one_of(hints: tuple[Any, ...], value: Any, name: str) -> None:
    if value is None and NoneType in hints:
        return
    check(next(hint for hint in hints if hint is not NoneType), value, name)


def _check_plain(kind: type[Any], value: Any, name: str) -> None:
    number = kind is float and type(value) is int
    if type(value) is not kind and not number:
        raise ValueError(f"{name} must be {WORDS[kind]}, not {_shown(value)}")
    if type(value) is int and abs(value) >= LARGEST:
        raise ValueError(f"{name} is a number of more than 63 bits")


def _check_depth(value: Any, name: str) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [item for box in level if isinstance(box, list | dict) for item in _inside(box)]
    if any(isinstance(item, list | dict) for item in level):
        raise ValueError(f"{name} is nested more than {DEEPEST} deep")


def _inside(box: list[Any] | dict[str, Any]) -> list[Any]:
    return list(box.values()) if isinstance(box, dict) else box


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{WORDS[type(value)]}"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:39] + "…"


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


@cache
def _required(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)
