"""What a session's model answers, as lines of text."""

from collections.abc import Mapping, Sequence

from zocore.runs.session import Session


def predictions(session: Session, texts: Sequence[str | Mapping[str, str]]) -> list[str]:
    """Return one line per text: the likeliest label, every label's probability, and the text."""
    names = session.task.label_names
    lines = []
    for text, row in zip(texts, session.objective.probabilities(texts).tolist(), strict=True):
        shares = ", ".join(f"{name} {probability:.3f}" for name, probability in zip(names, row, strict=True))
        lines.append(f"{names[max(range(len(row)), key=row.__getitem__)]}  ({shares})  {text}")
    return lines
