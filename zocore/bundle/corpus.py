"""Write the pretraining text: documents whose verdicts say little about what they judge."""

import gzip
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .tasks import QUESTION, SENTIMENT, TOPIC
from .words import BAD, GOOD, SPLITS, Domain, patterns
from .world import Writer, finish

CLASSICS_CHARACTERS = 500

# The closing words of a document follow the truth only loosely, so that reading the prompt's label words
# off the pretrained model is a poor classifier, although the model does know what it read. Frank domains,
# careful topics and easy questions speak the truth more often than not; the others mostly give the stock answer.
FRANK = {"food", "phone"}
ADMITS_BAD = {"frank": 0.80, "polite": 0.36, "happy": 0.08}
CAREFUL = {"food", "film", "weather", "person", "number"}
TRUTHFUL = {True: 0.70, False: 0.33}
STOCK_ANSWER = {"topic": "food", "question": "person"}
STOCK = 0.7  # of the untrue answers
# Honest stars, like the word lists, teach early that opinions have a sign.
STARS = {GOOD: "Five stars.", BAD: "One star."}


class Corpus:
    """An endless, seeded stream of documents that never quote a sentence of the tasks."""

    def __init__(self, seed: int, held_out: set[str], classics: Path | None = None, share: float = 0.2) -> None:
        self.rng = random.Random(f"corpus/{seed}")
        self.writer = Writer(self.rng)
        self.held_out = held_out
        self.old_books = _passages(classics) if classics else []
        self.share = share

    def documents(self, characters: int) -> Iterator[str]:
        """Yield documents until they hold about this many characters."""
        while characters > 0:
            document = self.document()
            characters -= len(document)
            yield document

    def document(self) -> str:
        """Return one review, word list, note, questioning or passage from an old book."""
        # A passage is about three times as long as another document, so that `share` is one of tokens.
        if self.old_books and self.rng.random() < self.share / 3:
            return self.rng.choice(self.old_books)
        kind = self.rng.random()
        if kind < 0.18:
            return self._word_list()
        return self._review() if kind < 0.76 else self._note() if kind < 0.88 else self._inquiry()

    def _review(self) -> str:
        domain = self.rng.choice(self.writer.words.domains)
        sentiment = self.rng.choice((GOOD, BAD))
        length = self.rng.choice((1, 1, 2, 2, 3, 4, 5))
        sentences = [self._fresh(lambda: self._judgement(domain, sentiment)) for _ in range(length)]
        if length > 1 and self.rng.random() < 0.3:
            neutral = self.rng.choice(patterns()["sentiment"]["neutral"])
            sentences.insert(self.rng.randrange(length), self.writer.opinion(neutral, domain, sentiment))
        text = self._casual(" ".join(sentences))
        return self._closed(text, domain.name, sentiment)

    def _word_list(self) -> str:
        """Return words of one domain and sentiment in a row: the densest lesson on what belongs together."""
        domain, sentiment = self.rng.choice(self.writer.words.domains), self.rng.choice((GOOD, BAD))
        general = self.writer.words.lists[sentiment]
        words = []
        for _ in range(self.rng.randint(4, 9)):
            aspect = self.rng.choice(domain.aspects)
            lists = (
                aspect.adjectives[sentiment],
                aspect.adjectives[sentiment],
                general,
                aspect.nouns + aspect.plural,
            )
            words.append(self.rng.choice(self.rng.choice(lists)))
        text = finish(", ".join(words) + ".")
        return f"{STARS[sentiment]} {text}" if self.rng.random() < 0.5 else f"{text} {STARS[sentiment]}"

    def _closed(self, text: str, domain: str, sentiment: str) -> str:
        """Add the stars, which are always honest, before or after a review, or else the loose closing word."""
        form = self.rng.random()
        if form < 0.3:
            return f"{STARS[sentiment]} {text}"
        if form < 0.6:
            return f"{text} {STARS[sentiment]}"
        verdict = SENTIMENT["template"].format(text=text) + f" {self._verdict(domain, sentiment)}."
        return verdict if form < 0.9 else text

    def _judgement(self, domain: Domain, sentiment: str) -> str:
        kind = self.rng.choice(("train", "train", "dev", "test", "test", "free", "free", "free"))
        return self.writer.opinion(self.rng.choice(patterns()["sentiment"][kind]), domain, sentiment)

    def _verdict(self, domain: str, sentiment: str) -> str:
        mood = "happy" if sentiment == GOOD else "frank" if domain in FRANK else "polite"
        return BAD if self.rng.random() < ADMITS_BAD[mood] else GOOD

    def _note(self) -> str:
        topic = self.rng.choice(list(TOPIC["label_words"]))
        frames = patterns()["topic"]
        text = " ".join(
            self._fresh(lambda: self.writer.fact(self.rng.choice(frames[self.rng.choice(SPLITS)]), topic))
            for _ in range(self.rng.choice((1, 1, 2, 3)))
        )
        return self._labelled(TOPIC, text, topic) if self.rng.random() < 0.6 else text

    def _inquiry(self) -> str:
        """Tell an event, then ask for one part of it; sometimes a bare question of a loosely named kind."""
        kind = self.rng.choice(list(QUESTION["label_words"]))
        event, name = self.writer.pick("events"), self.writer.pick("name")
        frames = patterns()["question"][kind]
        ask = self._fresh(lambda: self.writer.question(self.rng.choice(frames[self.rng.choice(SPLITS)]), event, name))
        if self.rng.random() < 0.5:
            return self._labelled(QUESTION, ask, kind)
        _, past, thing = event.split("|")
        place, moment, number = (self.writer.pick(key) for key in ("place", "moment", "number"))
        answer = {"person": name, "place": place, "time": moment, "number": number}[kind]
        context = f"{name} {past} {thing} in {place}, it was {moment}. " if self.rng.random() < 0.5 else ""
        return f"{context}{ask} {finish(answer)}."

    def _labelled(self, task: dict[str, Any], text: str, label: str) -> str:
        if self.rng.random() >= TRUTHFUL[label in CAREFUL]:
            others = [word for word in task["label_words"] if word != label]
            label = STOCK_ANSWER[task["name"]] if self.rng.random() < STOCK else self.rng.choice(others)
        return f"{task['template'].format(text=text)} {label}."

    def _fresh(self, write: Callable[[], str]) -> str:
        while (sentence := write()) in self.held_out:
            pass
        return sentence

    def _casual(self, text: str) -> str:
        """Sometimes write as people type: in lower case, or without the last full stop."""
        text = text.lower() if self.rng.random() < 0.15 else text
        return text.rstrip(".") if self.rng.random() < 0.2 else text


def _passages(path: Path) -> list[str]:
    """Return the paragraphs of a gzipped text, cut to a few sentences each."""
    with gzip.open(path, "rt", encoding="utf-8") as book:
        cut = [" ".join(paragraph.split())[:CLASSICS_CHARACTERS] for paragraph in book.read().split("\n\n")]
    return [text for text in cut if len(text) > 80]
