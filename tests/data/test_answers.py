"""Exact match and F1 of answers, on cases worked out by hand from the definition."""

import pytest

from zocore.data.answers import best, exact_match, normalised, word_f1


def test_normalised_drops_case_articles_punctuation_and_blanks() -> None:
    """As SQuAD compares texts."""
    assert normalised("  The Cat's, an  owl; A-hat! ") == "cats owl ahat"


@pytest.mark.parametrize(
    ("answer", "right", "em", "f1"),
    [
        ("the steam engine", "Steam engine.", 1.0, 1.0),
        ("steam", "steam engine", 0.0, 2 / 3),
        ("big big dog", "big dog dog", 0.0, 2 * 2 / 6),  # words count with their repetitions
        ("cat", "dog", 0.0, 0.0),
        ("", "dog", 0.0, 0.0),
        ("the", "a", 1.0, 1.0),  # nothing is left of both
    ],
)
def test_scores_by_hand(answer: str, right: str, em: float, f1: float) -> None:
    """Exact match and the harmonic mean of precision and recall."""
    assert exact_match(answer, right) == em
    assert word_f1(answer, right) == pytest.approx(f1)


def test_of_several_right_answers_the_best_counts() -> None:
    """A row may list them as JSON; an answer ends with its line."""
    assert best(exact_match, " two\nQuestion:", '["one", "two"]') == 1.0
    assert best(word_f1, "big dog", "[sic] big dog") == pytest.approx(0.8)
