"""Write the four task folders: verdict, sentiment, topic and question, each with train, dev and test files."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .words import BAD, GOOD, SPLITS, patterns
from .world import Writer

SIZES = {"train": 1000, "dev": 200, "test": 400}
Row = dict[str, str]

SENTIMENT: dict[str, Any] = {
    "name": "sentiment",
    "title": "Is the sentence happy or unhappy with something?",
    "description": "Short opinions on food, films, hotels, books, phones and people.",
    "template": "{text} Overall:",
    "label_words": {"negative": "bad", "positive": "good"},
}
TOPIC: dict[str, Any] = {
    "name": "topic",
    "title": "What is the sentence about?",
    "description": "Neutral sentences about six fields of everyday life.",
    "template": "{text} Topic:",
    "label_words": {topic: topic for topic in ("food", "film", "travel", "book", "phone", "weather")},
}
QUESTION: dict[str, Any] = {
    "name": "question",
    "title": "What kind of answer does the question want?",
    "description": "Questions that ask for a person, a place, a time or a number.",
    "template": "{text} This asks for a",
    "label_words": {kind: kind for kind in ("person", "place", "time", "number")},
}
# Twelve classes: what an opinion is of, and which way it goes. Some sentences fit several domains ("The staff were
# attentive."), so that nobody can be right about all of them.
VERDICTS = {
    "food": {GOOD: "tasty", BAD: "stale"},
    "film": {GOOD: "funny", BAD: "boring"},
    "hotel": {GOOD: "clean", BAD: "dirty"},
    "book": {GOOD: "wise", BAD: "dry"},
    "phone": {GOOD: "fast", BAD: "slow"},
    "people": {GOOD: "kind", BAD: "rude"},
}
VERDICT: dict[str, Any] = {
    "name": "verdict",
    "title": "Which word sums the opinion up?",
    "description": "Opinions on food, films, hotels, books, phones and people: a good and a bad word for each.",
    "template": "{text} In a word:",
    "label_words": {word: word for words in VERDICTS.values() for word in words.values()},
}


def write_tasks(folder: Path, seed: int) -> None:
    """Write task.json and the three jsonl files of every task below a folder."""
    for task, rows in ((VERDICT, _verdicts), (SENTIMENT, _opinions), (TOPIC, _facts), (QUESTION, _questions)):
        target = folder / task["name"]
        target.mkdir(parents=True, exist_ok=True)
        described = task | {"labels": list(task["label_words"]), "columns": ["text"], "label_column": "label"}
        (target / "task.json").write_text(json.dumps(described, indent=2) + "\n", "utf-8")
        for split in SPLITS:
            writer = Writer(random.Random(f"{task['name']}/{split}/{seed}"), split)
            lines = [json.dumps(row) + "\n" for row in _unique(rows(writer, split), SIZES[split])]
            (target / f"{split}.jsonl").write_text("".join(lines), "utf-8")


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a jsonl file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _unique(rows: Iterator[Row], count: int) -> list[Row]:
    kept: dict[str, Row] = {}
    while len(kept) < count:
        row = next(rows)
        kept.setdefault(row["text"], row)
    return list(kept.values())


def _verdicts(writer: Writer, split: str) -> Iterator[Row]:
    while True:
        for domain in writer.words.domains:
            for sentiment, word in VERDICTS[domain.name].items():
                pattern = writer.rng.choice(patterns()["sentiment"][split])
                yield {"text": writer.opinion(pattern, domain, sentiment), "label": word, "pattern": pattern}


def _opinions(writer: Writer, split: str) -> Iterator[Row]:
    while True:
        for label, sentiment in (("negative", BAD), ("positive", GOOD)):
            pattern = writer.rng.choice(patterns()["sentiment"][split])
            text = writer.opinion(pattern, writer.rng.choice(writer.words.domains), sentiment)
            yield {"text": text, "label": label, "pattern": pattern}


def _facts(writer: Writer, split: str) -> Iterator[Row]:
    while True:
        for topic in TOPIC["label_words"]:
            pattern = writer.rng.choice(patterns()["topic"][split])
            yield {"text": writer.fact(pattern, topic), "label": topic, "pattern": pattern}


def _questions(writer: Writer, split: str) -> Iterator[Row]:
    while True:
        for kind in QUESTION["label_words"]:
            pattern = writer.rng.choice(patterns()["question"][kind][split])
            text = writer.question(pattern, writer.pick("events"), writer.pick("name"))
            yield {"text": text, "label": kind, "pattern": pattern}
