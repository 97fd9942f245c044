"""Chats: lists of messages with a role and a text, of which the assistant's are to be learned."""

import json
from dataclasses import dataclass

from zocore.errors import InputError

ASSISTANT = "assistant"


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str

    @property
    def learned(self) -> bool:
        """Whether it is an answer to learn from."""
        return self.role == ASSISTANT


def read_chat(text: str, place: str) -> list[Message]:
    """Return the messages of a row's JSON. Raises InputError when they are none, or hold no answer."""
    try:
        turns = json.loads(text)
        messages = [Message(turn["role"], turn["content"]) for turn in turns]
        whole = all(isinstance(turn.role, str) and isinstance(turn.content, str) for turn in messages)
    except (ValueError, TypeError, KeyError):
        whole = False
    if not whole:
        raise InputError(f'{place}: messages must be a list of {{"role": ..., "content": ...}} with texts in them')
    if not any(message.learned and message.content for message in messages):
        raise InputError(f"{place}: the chat has no answer of the role assistant to learn from: drop the row")
    return messages
