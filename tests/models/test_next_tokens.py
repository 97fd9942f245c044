"""Language modelling: the loss is the mean over the tokens to learn, of texts, answers and chats."""

import json
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.support import tiny
from zocore.data.tasks import Task
from zocore.data.texts import Row
from zocore.errors import InputError
from zocore.models.load import LoadedModel
from zocore.models.objectives.base import directly
from zocore.models.objectives.next_tokens import NextTokens
from zocore.models.objectives.writing import Writing

TEXTS = [
    Row({"text": text}, 0, f"t, line {n}") for n, text in enumerate(["the film was good", "a b", "It was not bad or"])
]
ANSWERS = [Row({"prompt": "the film was", "answer": "good"}, 0), Row({"prompt": "It", "answer": '["a b", "no"]'}, 0)]
CHAT = [("user", "the film?"), ("assistant", "good"), ("user", "food?"), ("assistant", "not bad")]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def chat(turns: list[tuple[str, str]] = CHAT) -> Row:
    """A chat as a row."""
    return Row({"messages": json.dumps([{"role": role, "content": text} for role, text in turns])}, 0, "c, line 1")


def objective(rows: list[Row], family: str = "llama", **more: Any) -> NextTokens:
    """An objective over a random model."""
    task = Task("t", "t", "", (), (), tuple(rows), (), tuple(rows))
    loaded = LoadedModel(tiny.model(family), tiny.tokenizer(), "causal", family, "", "")
    return NextTokens(loaded, task, 64, Writing(6), **more)


def plainly(found: NextTokens, row: Row) -> list[float]:
    """Each learned token's loss, from one whole forward of the row alone."""
    ids, counts = (torch.as_tensor(part) for part in found._once(row))
    with torch.no_grad():
        losses = functional.cross_entropy(found.model(ids[None]).logits[0, :-1], ids[1:], reduction="none")
    return losses[counts[1:] > 0].tolist()


@pytest.mark.parametrize("family", tiny.CAUSAL)
@pytest.mark.parametrize("rows", [TEXTS, ANSWERS, [chat(), chat(CHAT[:2])]])
def test_the_mean_over_examples_is_the_mean_over_tokens(family: str, rows: list[Row]) -> None:
    """Padded and together they give what each row gives alone, also in micro-batches; evaluations agree."""
    found = objective(rows, family)
    each = [plainly(found, row) for row in rows]
    mean = sum(map(sum, each)) / sum(map(len, each))
    batch = found.batch(rows)
    with torch.no_grad():
        values = found.losses(batch)
        parts = torch.cat([found.losses(part) for part in batch.split(1)])
    assert float(values.mean()) == pytest.approx(mean, rel=1e-5)
    torch.testing.assert_close(values, parts)
    told = found.evaluate(rows, 2, directly)
    assert told.loss == pytest.approx(mean, rel=1e-5) and 0 <= told.accuracy <= 1
    assert told.scores and told.scores["perplexity"] == pytest.approx(torch.tensor(mean).exp().item(), rel=1e-4)


def test_an_answer_is_learned_with_its_end() -> None:
    """Of a prompt nothing counts; of the first answer all tokens and the token that ends it."""
    found = objective(ANSWERS)
    ids, counts = found._once(ANSWERS[1])
    assert found.tokens.tokenizer.decode(ids[counts > 0]) == " a b</s>"


def test_of_a_chat_the_answers_count() -> None:
    """As lines without a template, and with one as the template writes them."""
    found = objective([chat()])
    ids, counts = found._once(chat())
    assert found.tokens.tokenizer.decode(ids[counts > 0]) == " good\n not bad\n"
    assert "no chat template" in found.notes[0]
    tokenizer: Any = tiny.tokenizer.__wrapped__()
    tokenizer.chat_template = TEMPLATE
    found.tokens.tokenizer = tokenizer
    found._learned.clear()
    ids, counts = found._once(chat())
    assert tokenizer.decode(ids[counts > 0]) == "good</s>not bad</s>" and found.notes == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row({"prompt": "the film"}, 0, "p, line 3"), "p, line 3 has no answer to learn"),
        (Row({"other": "the film"}, 0, "p, line 3"), "p, line 3 has no text"),
        (chat(CHAT[:1]), "c, line 1: the chat has no answer of the role assistant"),
        (Row({"messages": "[1]"}, 0, "c, line 2"), "c, line 2: messages must be a list"),
        (Row({"prompt": "a", "answer": "b " * 90}, 0, "p, line 4"), None),
    ],
)
def test_rows_with_nothing_to_learn(row: Row, said: str | None) -> None:
    """One sentence with the line; a long answer is cut from the left and still learned."""
    found = objective(TEXTS)
    if said is None:
        assert len(found._once(row).ids) == 64 and found._once(row).counts[1:].all()
    else:
        with pytest.raises(InputError, match=said):
            found._once(row)


def test_written_answers_are_scored() -> None:
    """The metric reads what the model writes after each prompt."""
    found = objective(ANSWERS, metric="f1")
    told = found.evaluate(ANSWERS, 2, directly)
    assert told.scores and 0 <= told.scores["f1"] <= 1
    shown = found.show(ANSWERS)
    assert shown.prompts == ["the film was", "It"] and shown.wanted[0] == "good" and len(shown.completions) == 2
    with pytest.raises(InputError, match="--metric em needs a prompt and an answer"):
        objective(TEXTS, metric="em")
