"""Rewards that come with the project: plain comparisons of what was written, nothing that runs code or patterns.

`em` and `f1` compare with the row's right answer; the others read the completion alone.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from zocore.data.answers import SCORES, best
from zocore.data.texts import ANSWER
from zocore.errors import InputError

Function = Callable[[str, str, Mapping[str, str]], float]
WORD = re.compile(r"\w+")
LONG = 20  # words, from which a completion is not short at all
MOST_WORD = 100  # characters of the word of `says`


@dataclass(frozen=True)
class BuiltIn:
    """A reward by name; one that takes a word is written NAME=WORD."""

    title: str
    summary: str
    make: Callable[[str], Function]  # from the word, empty where none is taken
    takes_word: bool = False


def _of_answer(name: str) -> Callable[[str], Function]:
    def score(_: str, completion: str, row: Mapping[str, str]) -> float:
        if not row.get(ANSWER):
            raise InputError(f"--reward {name} needs the right answer of each row: name its column --label-column")
        return best(SCORES[name], completion, row[ANSWER])

    return lambda _: score


def _says(word: str) -> Function:
    """1.0 where the word, or words in a row, are in the completion, whole and in any case."""
    wanted = _spaced(word)
    return lambda prompt, completion, row: float(wanted in _spaced(completion))


def _spaced(text: str) -> str:
    return f" {' '.join(WORD.findall(text.casefold()))} "


def _full_stop(_: str) -> Function:
    return lambda prompt, completion, row: float(completion.rstrip().endswith("."))


def _short(_: str) -> Function:
    return lambda prompt, completion, row: max(0.0, 1 - len(completion.split()) / LONG)


BUILT_IN: Mapping[str, BuiltIn] = {
    "says": BuiltIn("Says a word", "1 where the word is in the completion, in any case", _says, takes_word=True),
    "full-stop": BuiltIn("Ends with a full stop", "1 where the completion ends with a full stop", _full_stop),
    "short": BuiltIn("Is short", f"1 for no word at all, falling to 0 for {LONG} words or more", _short),
    "em": BuiltIn("Is the right answer", "1 where the answer is the row's, as SQuAD compares them", _of_answer("em")),
    "f1": BuiltIn("Shares words with the right answer", "F1 of the words, as SQuAD counts them", _of_answer("f1")),
}
NAMES = ", ".join(f"{name}=WORD" if row.takes_word else name for name, row in BUILT_IN.items())


def built_in(source: str) -> Function | None:
    """Return the reward of a name or NAME=WORD, None where there is none. Raises InputError without a usable word."""
    name, equal, word = source.partition("=")
    row = BUILT_IN.get(name)
    if row is None or (equal and not row.takes_word):
        return None
    if row.takes_word and not (WORD.search(word) and len(word) <= MOST_WORD):
        raise InputError(f"--reward {name} needs a word of at most {MOST_WORD} characters, as in {name}=happy")
    return row.make(word)
