"""Writing after prompts: kept keys and values change no token, and draws are common to all probes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import tiny
from zocore.models.objectives.batch import count_positions, padded
from zocore.models.objectives.writing import Writing
from zocore.noise.addressed import Key

PROMPTS = ["the film was", "a b and or not food", "It"]


def prompts() -> dict[str, Tensor]:
    """Three prompts of different lengths, padded on the left."""
    tokenizer: Any = tiny.tokenizer()
    ids, mask = padded([tokenizer(text, return_tensors="np")["input_ids"][0] for text in PROMPTS], 1, left=True)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": count_positions(mask)}


def plainly(model: Any, writing: Writing, draws: Tensor | None, stops: list[int]) -> list[list[int]]:
    """The same without a cache: each token from a whole forward of its row, alone and unpadded."""
    inputs, rows = prompts(), []
    for number in range(len(PROMPTS)):
        ids = inputs["input_ids"][number][inputs["attention_mask"][number].bool()]
        written: list[int] = []
        while len(written) < writing.most and not (written and written[-1] in stops):
            with torch.no_grad():
                logits = model(input_ids=ids[None], use_cache=False).logits[:, -1]
            at = None if draws is None else draws[number : number + 1, len(written)]
            written.append(int(writing.pick(logits, at)))
            ids = torch.cat([ids, torch.tensor(written[-1:])])
        rows.append(written)
    return rows


@pytest.mark.parametrize("family", tiny.CAUSAL)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_cache_changes_no_token(family: str, temperature: float) -> None:
    """Batched, padded and with kept keys and values, a text is that of whole forwards of its row alone."""
    model, writing = tiny.model(family), Writing(8, temperature)
    draws = writing.draws(Key(3, 1), len(PROMPTS))
    expected = plainly(model, writing, draws, stops=[])
    stop = expected[0][3]  # a token that ends some row early
    for stops in ([], [stop]):
        with torch.no_grad():
            found = writing.write(model, prompts(), draws, stops, pad=1).tolist()
        for row, wanted in zip(found, plainly(model, writing, draws, stops), strict=True):
            assert row[: len(wanted)] == wanted and set(row[len(wanted) :]) <= {1}


def test_draws_follow_seed_and_step_alone() -> None:
    """The same address gives the same numbers, another step others; greedy writing draws nothing."""
    one, again, other = (Writing(8, 1.0).draws(key, 4) for key in (Key(0, 1), Key(0, 1), Key(0, 2)))
    assert one is not None and again is not None and other is not None
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert Writing(8).draws(Key(0, 1), 4) is None


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    """4000 draws at temperature 2: each share within 4 standard errors of the softmax."""
    writing, count = Writing(1, 2.0), 4000
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    draws = writing.draws(Key(1, 1), count)
    assert draws is not None
    found = torch.bincount(writing.pick(logits.expand(count, -1), draws[:, 0]), minlength=4) / count
    expected = (logits / 2).softmax(0)
    assert ((found - expected).abs() < 4 * (expected * (1 - expected) / count).sqrt()).all()
