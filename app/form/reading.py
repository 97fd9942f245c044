"""What a visitor's file was read as: rows kept and dropped, duplicates, the balance of the labels, and proposals."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

MOST_LABELS = 20  # for which words are proposed and bars are drawn
STARS = ("terrible", "bad", "okay", "good", "great")
ORDER = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def words_for(labels: Sequence[str], names: Mapping[str, str] | None = None) -> str:
    """Return one line a label, `label = word`: a proposal where labels are numbers, else the labels themselves.

    `names` are those of another column of the file, where one has them. Empty for more labels than fit on a page.
    """
    if not 2 <= len(labels) <= MOST_LABELS or any("=" in label or "," in label for label in labels):
        return ""
    words = [names[label] for label in labels] if names else list(labels)
    if not names and all(map(_is_number, labels)):
        words = list(_for_numbers(len(labels)))
    if len(set(words)) < len(words) or any("," in word or not word for word in words):
        return ""
    return "\n".join(f"{label} = {word}" for label, word in zip(labels, words, strict=True))


def _for_numbers(count: int) -> Sequence[str]:
    """Words for so many numbers in order; what they mean nobody knows but the visitor."""
    if count == 2:
        return ("no", "yes")
    if count == 3:
        return ("bad", "okay", "good")
    return STARS if count == len(STARS) else [ORDER[i] if i < len(ORDER) else f"number {i + 1}" for i in range(count)]


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def joined(lines: str) -> str:
    """Return words as `RunConfig.label_words` takes them: from lines of `label = word`, or as they are."""
    parts = [line.strip() for line in lines.splitlines() if line.strip()]
    pairs = [part.rpartition("=") for part in parts]
    if len(parts) < 2 or any("," in part for part in parts):
        return lines.strip()
    return ",".join(f"{label.strip()}={word.strip()}" if equal else word for label, equal, word in pairs)


def template_for(kind: str | None, columns: Sequence[str]) -> str:
    """Return a template that suits a kind of model: where the answer stands, if it has a place at all.

    A language model goes on after the text; a masked model fills a gap; an encoder compares the text with the words.
    """
    text = "\n".join(f"{{{name}}}" for name in columns)
    if not columns or kind in ("encoder", "classifier"):
        return text
    return f"{text}\nAnswer: {{label}}." if kind == "masked" else f"{text}\nAnswer: {{label}}"


def templates_for(columns: Sequence[str]) -> set[str]:
    """Return every template that is proposed for these columns."""
    return {template_for(kind, columns) for kind in ("encoder", "masked", "causal")}


def report(task: Mapping[str, Any]) -> str:
    """Return what was read, as the question "prompt" found it, as HTML."""
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in _facts(task))
    return f'<dl class="zo-read">{rows}</dl>{_balance(task)}'


def _facts(task: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    used = sum(task["counts"])
    counts = "{:,} to train on, {:,} to look at meanwhile, {:,} to test".format(*task["counts"])
    yield "Kept", f"<b>{used:,}</b> of {task['rows']:,} rows: {counts}"
    dropped = []
    if task["unlabelled"]:
        dropped.append(_lost(task["unlabelled"], "without a label", task["lines"]))
    if task["textless"]:
        dropped.append(_lost(task["textless"], "with an empty text", task["textless_lines"]))
    beyond = task["rows"] - task["unlabelled"] - task["textless"] - used
    if beyond > 0:
        dropped.append(f"<b>{beyond:,}</b> at random, beyond the {used:,} that a run reads")
    yield "Dropped", "; ".join(dropped) or "none"
    yield "Duplicates", _duplicates(task)


def _lost(count: int, why: str, lines: Sequence[int]) -> str:
    """How many rows were dropped and why, and the first of their lines."""
    said = ", ".join(map(str, lines)) + (", …" if count > len(lines) else "")
    return f"<b>{count:,}</b> {why} ({'lines' if count > 1 else 'line'} {said})"


def _duplicates(task: Mapping[str, Any]) -> str:
    if not task["repeated"]:
        return "none"
    sentence = f"<b>{task['repeated']:,}</b> rows with a text that came before"
    if task["leaked"]:
        sentence += f"; texts of the test that are trained on too, so that its accuracy is too high: {task['leaked']:,}"
    if task["disagreeing"]:
        sentence += f"; texts with more than one label: {task['disagreeing']:,}"
    return sentence


def _balance(task: Mapping[str, Any]) -> str:
    """Bars of how many rows each label has, and what always giving the commonest would get."""
    labels, counts = task["labels"], task["balance"]
    total, most = sum(counts), max(counts)
    rows = "".join(
        f'<li><span>{escape(_cut(label))}</span><i style="--share:{100 * count / most:.0f}%"></i>'
        f"<b>{count:,}</b><em>{count / total:.0%}</em></li>"
        for label, count in list(zip(labels, counts, strict=True))[:MOST_LABELS]
    )
    rows += f"<li>and {len(labels) - MOST_LABELS} labels more</li>" if len(labels) > MOST_LABELS else ""
    always = f"Always answering {escape(_cut(labels[counts.index(most)]))} would be right in {most / total:.0%}."
    warned = " zo-warning" if most > 3 * total / (2 * len(counts)) and most > 0.6 * total else " zo-quiet"
    return f'<ul class="zo-balance">{rows}</ul><p class="{warned.strip()}">{always}</p>'


def _cut(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
