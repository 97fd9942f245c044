"""How well a text answers a question: exact match and F1 of words, as SQuAD defines them.

Before they are compared, texts are lowercased, ASCII punctuation and the articles a, an and the are taken out, and
white space is made one blank (Rajpurkar et al., SQuAD, arXiv 1606.05250). Of several right answers the best counts.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Return a text as it is compared."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(answer: str, right: str) -> float:
    """Return 1.0 where two texts are the same after normalisation, else 0.0."""
    return float(normalised(answer) == normalised(right))


def word_f1(answer: str, right: str) -> float:
    """Return the harmonic mean of the shares of words, with repetitions, that two texts have in common."""
    ours, theirs = normalised(answer).split(), normalised(right).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


Score = Callable[[str, str], float]
SCORES: Mapping[str, Score] = {"em": exact_match, "f1": word_f1}


def right_answers(text: str) -> Sequence[str]:
    """Return the right answers of a row: a JSON list of them, or the text itself."""
    try:
        answers = json.loads(text) if text.startswith("[") else None
    except ValueError:
        answers = None
    return [str(answer) for answer in answers] if isinstance(answers, list) and answers else [text]


def shown_answer(text: str) -> str:
    """Return the right answers of a row as people read them."""
    return " or ".join(right_answers(text))


def best(score: Score, answer: str, text: str) -> float:
    """Return the best score of an answer against the right ones of a row; the answer is its first line."""
    line = answer.strip().split("\n")[0]
    return max(score(line, right) for right in right_answers(text))
