"""Prompt templates: a sentence with named gaps for the text columns and, at most once, for the answer.

`"{text} It was {label}"` has the field `text`; `{label}` and `{mask}` both mark the place of the answer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from zocore.errors import InputError

GAP = re.compile(r"\{([^{}]*)\}")
ANSWER = ("label", "mask")


@dataclass(frozen=True)
class Filled:
    """A template with its gaps filled, and where the fillings stand (character offsets, end exclusive)."""

    text: str
    fields: tuple[tuple[int, int], ...]
    answer: int | None = None  # where the answer begins; None when the template has no place for one


@dataclass(frozen=True)
class Template:
    """A prompt with gaps. Raises InputError when it has no field or more than one place for the answer."""

    text: str

    def __post_init__(self) -> None:
        names = GAP.findall(self.text)
        if not self.fields:
            raise InputError(f'the template "{self.text}" has no field: write a text column in braces, as in {{text}}')
        if sum(name in ANSWER for name in names) > 1:
            raise InputError(f'the template "{self.text}" has more than one {{label}} or {{mask}}: keep one')

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the text columns, in order of first use."""
        return tuple(dict.fromkeys(name for name in GAP.findall(self.text) if name not in ANSWER))

    @property
    def has_answer(self) -> bool:
        """Whether the template says where the answer goes."""
        return any(name in ANSWER for name in GAP.findall(self.text))

    def check(self, columns: tuple[str, ...]) -> None:
        """Raise InputError when a field is no column."""
        unknown = [name for name in self.fields if name not in columns]
        if unknown:
            raise InputError(
                f"the template names {{{unknown[0]}}}, but the text columns are {', '.join(columns)}: "
                "use one of these, or {label} for the answer"
            )

    def before_answer(self) -> "Template":
        """Return what comes before the answer. Raises InputError when a field comes after it."""
        for gap in GAP.finditer(self.text):
            if gap[1] in ANSWER:
                late = [name for name in GAP.findall(self.text[gap.end() :]) if name not in ANSWER]
                if late:
                    raise InputError(
                        f"a causal model reads only what stands before the answer: move {{{late[0]}}} before "
                        f"{gap[0]} in the template"
                    )
                return Template(self.text[: gap.start()].rstrip(" "))
        return Template(self.text.rstrip(" "))

    def fill(self, fields: Mapping[str, str], answer: str = "") -> Filled:
        """Put the fields and the answer into the gaps."""
        text, spans, place, last = "", [], None, 0
        for gap in GAP.finditer(self.text):
            text += self.text[last : gap.start()]
            last = gap.end()
            if gap[1] in ANSWER:
                place, text = len(text), text + answer
            else:
                spans.append((len(text), len(text) + len(fields[gap[1]])))
                text += fields[gap[1]]
        return Filled(text + self.text[last:], tuple(spans), place)
