"""Writing after prompts, token by token: greedy, or sampled with draws that are the same at every probe.

The draws of a batch are one uniform number for each row and place, from the run's seed and step. So the two sides
of a difference, and all directions of a step, are asked with common random numbers: what differs is the weights'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from zocore.data.tasks import Task
from zocore.errors import InputError
from zocore.models.load import LoadedModel
from zocore.models.objectives.base import Objective, widened
from zocore.models.objectives.batch import count_positions, padded, sent
from zocore.models.objectives.label_rows import only_rows
from zocore.models.objectives.tokens import Ids, Tokens
from zocore.noise.addressed import Key, Purpose, address, uniform_words

EVALUATION = Key(0, 0)  # draws of evaluations: the same before, within and after a run, and in all runs


@dataclass(frozen=True)
class Writing:
    """How completions are written."""

    most: int = 32  # tokens
    temperature: float = 0.0  # 0 for the likeliest token

    def draws(self, key: Key, rows: int) -> Tensor | None:
        """Return the uniform numbers (rows, most) of a batch, float64; None where nothing is drawn."""
        if not self.temperature:
            return None
        words = uniform_words(address(key, 0, Purpose.SAMPLE), 0, rows * self.most)
        return (words.double() + 0.5).view(rows, self.most) / 2**32

    def pick(self, logits: Tensor, draws: Tensor | None) -> Tensor:
        """Return the next token of each row (rows,) from logits (rows, vocabulary) and uniform numbers (rows,)."""
        if draws is None:
            return logits.argmax(dim=1)
        sums = (widened(logits).double() / self.temperature).softmax(dim=1).cumsum(dim=1)
        wanted = draws.to(sums.device).unsqueeze(1) * sums[:, -1:]
        return torch.searchsorted(sums, wanted).squeeze(1).clamp(max=logits.shape[1] - 1)

    def write(
        self, model: nn.Module, inputs: dict[str, Tensor], draws: Tensor | None, stops: Sequence[int], pad: int
    ) -> Tensor:
        """Return what follows the prompts (rows, at most `most`), padded after a stop token, which stays.

        `inputs` are rows padded on the left. Keys and values of earlier tokens are kept: the weights are the same
        for all tokens of a completion, so nothing of them is out of date.
        """
        mask, places = inputs["attention_mask"], count_positions(inputs["attention_mask"])[:, -1:]
        last = torch.full_like(places, mask.shape[1] - 1)
        over, ends = torch.zeros(len(mask), dtype=torch.bool, device=mask.device), torch.tensor(stops).to(mask.device)
        written: list[Tensor] = []
        with only_rows(model, last):
            output: Any = model(**inputs, use_cache=True)
        while True:
            at = None if draws is None else draws[:, len(written)]
            token = self.pick(output.logits[:, -1], at).to(mask.device).masked_fill(over, pad)
            written.append(token)
            over = over | torch.isin(token, ends)
            if len(written) == self.most or bool(over.all()):
                return torch.stack(written, dim=1)
            mask, places = torch.cat([mask, torch.ones_like(places)], dim=1), places + 1
            output = model(
                input_ids=token.unsqueeze(1),
                attention_mask=mask,
                position_ids=places,
                past_key_values=output.past_key_values,
                use_cache=True,
            )


def check_writing(name: str, kind: str, max_tokens: int, most: int) -> None:
    """Raise InputError when a model is no decoder, or completions leave no room for a prompt."""
    if kind != "causal":
        raise InputError(f"{name} is a {kind} model and cannot write: take a decoder")
    if max_tokens <= most:
        raise InputError(
            f"{most} new tokens leave no room for a prompt in {max_tokens}: give a larger --max-tokens or fewer "
            "--max-new-tokens"
        )


class Writer:
    """A model that writes: from prompts to texts."""

    def __init__(self, loaded: LoadedModel, tokens: Tokens, writing: Writing) -> None:
        """Raise InputError when the model is no decoder, or no room is left for a prompt."""
        check_writing(loaded.name, loaded.kind, tokens.max_tokens, writing.most)
        self.model, self.tokens, self.writing = loaded.model, tokens, writing

    def ids(self, prompt: str) -> Ids:
        """Return a prompt's tokens, cut from the left where they leave no room for a completion."""
        return self.tokens.start(prompt, self.tokens.max_tokens - self.writing.most)

    def inputs(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return prompts as what the model reads, padded on the left."""
        device = next(self.model.parameters()).device
        rows = [self.ids(prompt) for prompt in prompts]
        ids, mask = (sent(tensor, device) for tensor in padded(rows, self.tokens.pad_id, left=True))
        return {"input_ids": ids, "attention_mask": mask, "position_ids": count_positions(mask)}

    def texts(self, prompts: Sequence[str], inputs: dict[str, Tensor], draws: Tensor | None) -> list[str]:
        """Return what the model writes after each prompt."""
        with torch.no_grad():
            written = self.writing.write(self.model, inputs, draws, self._stops, self.tokens.pad_id).tolist()
        return [self._completion(self.ids(prompt).tolist(), row) for prompt, row in zip(prompts, written, strict=True)]

    def after(self, prompts: Sequence[str], key: Key) -> list[str]:
        """Return what the model writes after prompts, with the draws of an address."""
        return self.texts(prompts, self.inputs(prompts), self.writing.draws(key, len(prompts)))

    def _completion(self, prompt: list[int], written: list[int]) -> str:
        """The text that tokens add to the prompt's, up to the first that ends it."""
        ends = [place for place, token in enumerate(written) if token in self._stops]
        return self._text(prompt + written[: ends[0] if ends else None])[len(self._text(prompt)) :]

    def _text(self, ids: list[int]) -> str:
        text: str = self.tokens.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    @cached_property
    def _stops(self) -> list[int]:
        """The tokens that end a text."""
        found = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        ids = found if isinstance(found, list) else [found]
        return [token for token in {*ids, self.tokens.tokenizer.eos_token_id} if token is not None]


class Writes(Objective):
    """An objective of what a model writes. Raises InputError when the model is no decoder, or has no room to write."""

    def __init__(self, loaded: LoadedModel, task: Task, max_tokens: int, writing: Writing) -> None:
        super().__init__(loaded.model, loaded.tokenizer, task, max_tokens)
        self.writer = Writer(loaded, self.tokens, writing)

    def written(self, prompts: Sequence[str]) -> list[str]:
        """Return what the model writes after new prompts."""
        return self.writer.after(prompts, EVALUATION) if prompts else []
