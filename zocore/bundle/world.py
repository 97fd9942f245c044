"""Write sentences of the little world: opinions of one sentiment, neutral facts, questions."""

import random
import re

from .words import BAD, GOOD, OPPOSITE, Aspect, Domain, words

SLOT = re.compile(r"\{(\w+?)([2-3]?)\}")
PRONOUNS = {"he": "him", "she": "her", "they": "them"}
FEELINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "felt": {GOOD: ("loved", "love"), BAD: ("hated", "hate")},
    "felt_past": {GOOD: ("loved",), BAD: ("hated",)},
    "moved": {GOOD: ("moved",), BAD: ("bored",)},
    "doubt": {GOOD: ("hope",), BAD: ("fear",)},
    "top": {GOOD: ("best",), BAD: ("worst",)},
    "advice": {GOOD: ("advise",), BAD: ("warn",)},
    "mood": {GOOD: ("glad",), BAD: ("sorry",)},
    "general": {GOOD: (GOOD,), BAD: (BAD,)},
    "opposite": {GOOD: (BAD,), BAD: (GOOD,)},
}


class Writer:
    """Fills the slots of patterns with the words of one split, drawing from one random stream."""

    def __init__(self, rng: random.Random, split: str = "all") -> None:
        self.rng = rng
        self.words = words(split)

    def opinion(self, pattern: str, domain: Domain, sentiment: str) -> str:
        """Return one sentence that judges something of a domain."""
        return finish(_Opinion(self, domain, sentiment).fill(pattern))

    def fact(self, pattern: str, topic: str) -> str:
        """Return one neutral sentence about a topic."""
        lists = self.words.topics[topic]
        return self._plain(pattern, {"agent": lists["agents"], "act": lists["acts"]})

    def question(self, pattern: str, event: str, name: str) -> str:
        """Return one question about an event, written "base|past|object", and a named person."""
        base, past, thing = event.split("|")
        of_event = {"do": [f"{base} {thing}"], "did": [f"{past} {thing}"], "object": [thing], "name": [name]}
        return self._plain(pattern, of_event)

    def pick(self, name: str) -> str:
        """Return one word of a general list."""
        return self.rng.choice(self.words.lists[name])

    def _plain(self, pattern: str, own: dict[str, list[str]]) -> str:
        lists = self.words.lists | own
        return finish(SLOT.sub(lambda slot: self.rng.choice(lists[slot[1]]), pattern))


class _Opinion:
    """Fills one pattern; parts that carry the same number agree in noun, verb and adjective."""

    def __init__(self, writer: Writer, domain: Domain, sentiment: str) -> None:
        self.rng, self.writer = writer.rng, writer
        self.domain, self.sentiment = domain, sentiment
        self.present = self.rng.random() < 0.25
        self.chosen: dict[str, tuple[Aspect, str]] = {}

    def fill(self, pattern: str) -> str:
        return SLOT.sub(lambda slot: self._slot(slot[1], slot[2]), pattern)

    def _slot(self, name: str, number: str) -> str:
        if name in FEELINGS:
            return self.writer.pick(self.rng.choice(FEELINGS[name][self.sentiment]))
        method = getattr(self, f"_{name}", None)
        return method(number) if method else self.writer.pick(name)

    def _aspect(self, number: str, pronouns: bool = True) -> tuple[Aspect, str]:
        if number not in self.chosen:
            usable = [a for a in self.domain.aspects if pronouns or not PRONOUNS.keys() & set(a.nouns)]
            aspect = self.rng.choice(usable)
            self.chosen[number] = (aspect, self.rng.choice(aspect.nouns + aspect.plural))
        return self.chosen[number]

    def _part(self, number: str) -> str:
        noun = self._aspect(number)[1]
        if noun in PRONOUNS:
            return noun if noun == "they" or self.rng.random() < 0.5 else self._thing(number)
        return f"{self.rng.choice(('the', 'the', 'the', 'the', 'their', 'my'))} {noun}"

    def _noun(self, number: str) -> str:
        return self._aspect(number, pronouns=False)[1]

    def _was(self, number: str) -> str:
        aspect, noun = self._aspect(number)
        plural = noun in aspect.plural
        return ("are" if plural else "is") if self.present else ("were" if plural else "was")

    def _wasnt(self, number: str) -> str:
        return self._was(number) + self.rng.choice((" not", "n't"))

    def _adj(self, number: str, sentiment: str = "") -> str:
        """Sometimes a general word or an adverb, so that the verdict hangs on no single list."""
        aspect = self._aspect(number)[0]
        general = self.rng.random() < 0.3
        lists = self.writer.words.lists if general else aspect.adjectives
        word = self.rng.choice(lists[sentiment or self.sentiment])
        stressed = " " not in word and self.rng.random() < 0.25
        return f"{self.writer.pick('adverb')} {word}" if stressed else word

    def _opp(self, number: str) -> str:
        return self._adj(number, OPPOSITE[self.sentiment])

    def _plain(self, number: str) -> str:
        aspect = self._aspect(number, pronouns=False)[0]
        lists = aspect.adjectives[self.sentiment] + self.writer.words.lists[self.sentiment]
        return self.rng.choice([word for word in lists if " " not in word])

    def _plain_here(self, number: str) -> str:
        adjectives = self._aspect(number)[0].adjectives[self.sentiment]
        return self.rng.choice([word for word in adjectives if " " not in word])

    def _kind(self, number: str) -> str:
        return self.rng.choice(self.domain.kinds)

    def _thing(self, number: str) -> str:
        own = ("my", "our") if self.domain.name == "people" else ("this", "the")
        return f"{self.rng.choice((*own, 'that', 'the'))} {self._kind(number)}"

    def _clause(self, number: str) -> str:
        general = self.writer.words.lists["praise" if self.sentiment == GOOD else "blame"]
        own = self.domain.clauses[self.sentiment]
        return self.fill(self.rng.choice(own if self.rng.random() < 0.7 else general))

    def _felt_all(self, number: str) -> str:
        return self._slot("felt_past", number).replace("was ", "were ")


def finish(text: str) -> str:
    """Put "an" before vowels, bend pronouns that are objects and start sentences with a capital."""
    text = re.sub(r"\b(find|found|saw|about) (he|she|they)\b", lambda match: f"{match[1]} {PRONOUNS[match[2]]}", text)
    text = re.sub(r"\b(a) (?=[aeiou](?!ne\b|se|ni))", "an ", text)
    return re.sub(r"(^|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)
