"""Which columns of a table hold text and label, and which word stands for which label."""

from collections.abc import Mapping, Sequence
from math import inf, isfinite, isnan

from zocore.data.files import Table, is_missing
from zocore.errors import InputError

LABEL_NAMES = ("label", "labels", "class", "target", "category", "sentiment", "intent", "answer", "y")
TEXT_NAMES = ("text", "sentence")
MAX_LABELS = 256

LabelWords = str | Sequence[str] | Mapping[str, str]


def find_label(table: Table, named: str | None, taken: Sequence[str] = ()) -> str:
    """Return the label column: the one named, one of a usual name, or the one of fewest distinct values.

    Raises InputError when there is none.
    """
    if named is not None:
        (table.labelled(named) if named in table.columns else table).column(named)
        return named
    free = [name for name in table.columns if name not in taken]
    for usual in LABEL_NAMES:
        for name in free:
            if name.lower() == usual:
                return name
    text = _longest(table, free)
    distinct = {name: len(_values(table, name)) for name in free if name != text or taken}
    limit = min(MAX_LABELS, len(table.rows) // 2)
    few = [name for name, count in distinct.items() if 2 <= count <= limit]
    if not few:
        raise InputError(
            f"no column of {table.name} looks like a label: its columns are {', '.join(table.columns)}; "
            "name the label column"
        )
    return min(few, key=distinct.__getitem__)


def find_texts(table: Table, named: Sequence[str] | None, label: str) -> tuple[str, ...]:
    """Return the text columns: those named, `text` or `sentence`, or the one with the longest values.

    Raises InputError when there is none, or when one of them is the label column.
    """
    if named:
        named = [name.strip() for name in named]
        for name in named:
            table.check(name)
            if name == label:
                raise InputError(f"the column {name!r} cannot be both the text and the label: name two columns")
        return tuple(named)
    others = [name for name in table.columns if name != label]
    if not others:
        raise InputError(f"{table.name} has only the column {label!r}: a text column is missing")
    usual = [name for name in others if name.lower() in TEXT_NAMES]
    return (usual[0] if usual else _longest(table, others),)


def _longest(table: Table, names: Sequence[str]) -> str:
    return max(names, key=lambda name: sum(len(row.get(name, "")) for row in table.rows), default="")


def _values(table: Table, name: str) -> set[str]:
    return {row[name] for row in table.rows if not is_missing(row.get(name))}


def find_names(table: Table, label: str) -> tuple[str, dict[str, str]] | None:
    """Return a column whose values name the numbers in the label column one by one, and the names by label."""
    for column in table.columns:
        pairs = {(row.get(label, ""), row.get(column, "")) for row in table.rows}
        names = dict(sorted(pairs))
        apart = len(pairs) == len(names) == len(set(names.values()))
        if apart and not any(is_missing(name) or _is_number(name) for name in names.values()):
            return column, names
    return None


def digits_note(words: Sequence[str], table: Table, label: str) -> str:
    """Return what to do about label words that are numbers, which tell a language model nothing; empty for others."""
    if not all(_is_number(word) for word in words):
        return ""
    found = find_names(table, label)
    if found is None or set(found[1]) != set(words):
        return (
            f"the label words are the numbers {', '.join(words[:4])}{', ...' if len(words) > 4 else ''}, which tell a "
            f"language model nothing: name the labels, as in --label-words {words[0]}=bad,{words[1]}=good"
        )
    column, names = found
    if len(names) > 8 or any("," in name or "=" in name for name in names.values()):
        way = f"--label-column {column}"
    else:
        way = "--label-words " + ",".join(f"{number}={names[number]}" for number in words)
    return (
        f"the label words are numbers, which tell a language model nothing; the column {column!r} has their names: "
        f"try {way}"
    )


def shown(value: str) -> str:
    """Return a value in quotes as messages cite it, its first characters where it is long."""
    return repr(value if len(value) <= 60 else value[:59] + "…")


def listed(names: Sequence[str]) -> str:
    """Return names as messages list them: the first eight."""
    some = ", ".join(name if len(name) <= 60 else name[:59] + "…" for name in names[:8])
    return some + (f", ... ({len(names)} in all)" if len(names) > 8 else "")


def find_labels(table: Table, column: str) -> tuple[str, ...]:
    """Return the distinct labels, numbers by size and names by alphabet.

    Raises InputError for a single label or for more than a classification task has.
    """
    labels = sorted(dict.fromkeys(table.column(column)), key=_numbers_by_size)
    if len(labels) < 2:
        raise InputError(f"{table.name} has one label only, {shown(labels[0])}: at least two are needed")
    if len(labels) > MAX_LABELS:
        raise InputError(
            f"the column {column!r} of {table.name} has {len(labels)} distinct values, over the limit of "
            f"{MAX_LABELS}: name another label column"
        )
    return tuple(labels)


def _is_number(word: str) -> bool:
    return isfinite(_numbers_by_size(word)[0])


def _numbers_by_size(label: str) -> tuple[float, str]:
    try:
        number = float(label)
    except ValueError:
        number = inf
    return (inf if isnan(number) else number, label)  # NaN is in no order with anything


def match_words(words: LabelWords | None, labels: Sequence[str]) -> tuple[str, ...]:
    """Return one word per label from "terrible,great", from "0=terrible,1=great", or from a list or mapping.

    Without words the labels speak for themselves. Raises InputError when words and labels do not match.
    """
    if words is None:
        return tuple(labels)
    if isinstance(words, str):
        words = _parsed([part.strip() for part in words.split(",")])
    if isinstance(words, Mapping):
        chosen = _mapped(words, labels)
    else:
        chosen = tuple(str(word).strip() for word in words)
    if len(chosen) != len(labels):
        raise InputError(
            f"there are {len(chosen)} label words for {len(labels)} labels: give one word for each of "
            f"{listed(labels)}, in this order"
        )
    if len(set(chosen)) < len(chosen) or not all(chosen):
        raise InputError(f"the label words {listed([repr(word) for word in chosen])} must be different and not empty")
    return chosen


def _parsed(parts: list[str]) -> list[str] | dict[str, str]:
    pairs = [part.split("=", 1) for part in parts]
    if all(len(pair) == 1 for pair in pairs):
        return parts
    for part, pair in zip(parts, pairs, strict=True):
        if len(pair) == 1:
            raise InputError(f"the label word {part!r} has no label: write label=word for all or for none")
    return {label.strip(): word.strip() for label, word in pairs}


def _mapped(words: Mapping[str, str], labels: Sequence[str]) -> tuple[str, ...]:
    unknown = [label for label in map(str, words) if label not in labels]
    if unknown:
        raise InputError(f"label words are given for {shown(unknown[0])}, but the labels are {listed(labels)}")
    given = {str(label): str(word).strip() for label, word in words.items()}
    missing = [label for label in labels if label not in given]
    if missing:
        raise InputError(f"no label word is given for {shown(missing[0])}: write label=word for it too")
    return tuple(given[label] for label in labels)
