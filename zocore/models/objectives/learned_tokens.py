"""Rows of text as tokens, and which of them are to be learned: all of a text, or the answers alone."""

from typing import NamedTuple

import numpy as np

from zocore.data.answers import right_answers
from zocore.data.chats import Message, read_chat
from zocore.data.texts import ANSWER, MESSAGES, PROMPT, TEXT, Row
from zocore.errors import InputError
from zocore.models.objectives.tokens import Ids, Tokens


class Learned(NamedTuple):
    """A row's tokens, and for each whether it is to be predicted."""

    ids: Ids  # (tokens,)
    counts: Ids  # (tokens,) 0 or 1; never the first, before which there is nothing


def learned(tokens: Tokens, row: Row) -> Learned:
    """Return a row's tokens, at most the limit. Raises InputError for a row with nothing to learn from."""
    if row.fields.get(MESSAGES):
        ids, counts = _chat(tokens, read_chat(row.fields[MESSAGES], row.place), row.place)
        return _cut(tokens, ids, counts, row)
    if row.fields.get(PROMPT):
        return _cut(tokens, *_answer(tokens, row), row)
    if not row.fields.get(TEXT):
        raise InputError(f"{row.place} has no text: name a column `text`, `messages`, or `prompt` and `answer`")
    ids = tokens.opening + tokens.plain(row.fields[TEXT])
    if len(ids) < 2:
        raise InputError(f"{row.place}: the text is one token long, so none of it can be predicted: drop the row")
    ids = ids[: tokens.max_tokens]  # of a text the beginning
    return Learned(np.array(ids), np.array([0] + [1] * (len(ids) - 1)))


def _answer(tokens: Tokens, row: Row) -> tuple[list[int], list[int]]:
    """A prompt and its answer, of several the first, with the token that ends it."""
    if not row.fields.get(ANSWER):
        raise InputError(f"{row.place} has no answer to learn: name its column --label-column")
    prompt = tokens.opening + tokens.plain(row.fields[PROMPT].rstrip(" "))
    answer = [*tokens.plain(" " + right_answers(row.fields[ANSWER])[0]), tokens.tokenizer.eos_token_id]
    return prompt + answer, [0] * len(prompt) + [1] * len(answer)


def _cut(tokens: Tokens, ids: list[int], counts: list[int], row: Row) -> Learned:
    """Of a prompt or a chat the end is kept: there the answer stands."""
    ids, counts = ids[-tokens.max_tokens :], counts[-tokens.max_tokens :]
    counts[0] = 0
    if not any(counts):
        raise InputError(
            f"{row.place}: no answer is left within {tokens.max_tokens} tokens: give a larger --max-tokens"
        )
    return Learned(np.array(ids), np.array(counts))


def _chat(tokens: Tokens, messages: list[Message], place: str) -> tuple[list[int], list[int]]:
    """A chat in the form of the tokenizer's own template, or as lines `role: text` where it has none."""
    if tokens.tokenizer.chat_template is None:
        ids, counts = list(tokens.opening), [0] * len(tokens.opening)
        for message in messages:
            head, body = tokens.plain(f"{message.role}:"), tokens.plain(f" {message.content}\n")
            ids, counts = ids + head + body, counts + [0] * len(head) + [int(message.learned)] * len(body)
        return ids, counts
    turns = [{"role": message.role, "content": message.content} for message in messages]
    whole = _templated(tokens, turns, False)
    counts = [0] * len(whole)
    for number, message in enumerate(messages):
        if message.learned:
            before, after = _templated(tokens, turns[:number], True), _templated(tokens, turns[: number + 1], False)
            if whole[: len(after)] != after or after[: len(before)] != before:
                raise InputError(
                    f"{place}: the model's chat template rewrites earlier turns, so which tokens are answers cannot "
                    "be told: give chats of one answer each"
                )
            counts[len(before) : len(after)] = [1] * (len(after) - len(before))
    return whole, counts


def _templated(tokens: Tokens, turns: list[dict[str, str]], asks: bool) -> list[int]:
    text = tokens.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asks)
    return tokens.plain(text)
