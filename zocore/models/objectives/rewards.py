"""The reward of what a model writes: a score without a gradient, from completions of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from zocore.carriers.layout import Layout
from zocore.data.rewards import Reward
from zocore.data.tasks import Example, Task
from zocore.data.texts import ANSWER, PROMPT, TEXT, Row
from zocore.errors import InputError
from zocore.models.load import LoadedModel
from zocore.models.objectives.base import Evaluation, Objective, Shown, Within
from zocore.models.objectives.batch import Batch, count_positions, padded, sent
from zocore.models.objectives.tokens import MAX_TOKENS, Ids
from zocore.models.objectives.writing import Writing
from zocore.noise.addressed import Key

EVALUATION = Key(0, 0)  # draws of evaluations: the same before, within and after a run, and in all runs


@dataclass(frozen=True, eq=False)
class Prompts(Batch):
    """A batch of prompts, with the rows they come from and what is drawn for their completions."""

    rows: Sequence[Row] = ()
    draws: Tensor | None = None

    def _part(self, first: int, last: int) -> "Prompts":
        part = super()._part(first, last)  # a Prompts with all rows, as it replaces what every batch has
        assert isinstance(part, Prompts)
        return replace(part, rows=self.rows[first:last], draws=None if self.draws is None else self.draws[first:last])


class Rewarded(Objective):
    """-reward of each completion. Raises InputError when a row has no prompt or the model is no decoder."""

    one_forward = False

    def __init__(
        self,
        loaded: LoadedModel,
        task: Task,
        max_tokens: int = MAX_TOKENS,
        writing: Writing = Writing(),
        reward: str = "",
    ) -> None:
        super().__init__(loaded.model, loaded.tokenizer, task, max_tokens)
        if loaded.kind != "causal":
            raise InputError(f"{loaded.name} is a {loaded.kind} model and cannot write: take a decoder")
        if self.tokens.max_tokens <= writing.most:
            raise InputError(
                f"{writing.most} new tokens leave no room for a prompt in {self.tokens.max_tokens}: give a larger "
                "--max-tokens or fewer --max-new-tokens"
            )
        self.writing, self.reward = writing, Reward(reward)

    def ready(self) -> None:
        """Load the reward."""
        self.reward.ready()

    @property
    def versions(self) -> dict[str, str]:
        """Which version of the reward's file it is."""
        return {"reward": self.reward.version}

    def batch(self, examples: Sequence[Example], key: Key | None = None) -> Prompts:
        """Return prompts padded on the left, and the draws for their completions."""
        rows = [_row(example) for example in examples]
        ids, mask = (
            sent(t, self.device) for t in padded([self._ids(row) for row in rows], self.tokens.pad_id, left=True)
        )
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": count_positions(mask)}
        # each forward of a completion has other tokens, so the layout knows rows alone
        layout = Layout(torch.arange(len(rows)))
        labels = torch.zeros(len(rows), dtype=torch.int64, device=self.device)
        return Prompts(inputs, labels, layout, rows=rows, draws=self.writing.draws(key or EVALUATION, len(rows)))

    def losses(self, batch: Batch) -> Tensor:
        """Return -reward of each completion (B,), float64."""
        assert isinstance(batch, Prompts)
        return -torch.tensor(self._judged(batch)[1], dtype=torch.float64, device=self.device)

    def forward(self, batch: Batch) -> None:
        """Write one token after each prompt; nothing is judged."""
        assert isinstance(batch, Prompts)
        self._completions(batch, replace(self.writing, most=1))

    def evaluate(self, examples: Sequence[Example], batch_size: int, within: Within) -> Evaluation:
        """Return the mean reward, and as the loss its negative."""
        if not examples:
            raise ValueError("there are no examples to evaluate on")
        rewards: list[float] = []
        for first in range(0, len(examples), batch_size):
            rewards += self._judged(self.batch(examples[first : first + batch_size]))[1]
        mean = sum(rewards) / len(rewards)
        return Evaluation(-mean, float("nan"), {self.reward.name: mean})

    def show(self, examples: Sequence[Example]) -> Shown:
        """Return what the model writes after a few prompts, and its rewards."""
        batch = self.batch(examples)
        completions, rewards = self._judged(batch)
        answers = [row.fields.get(ANSWER, "") for row in batch.rows]
        return Shown(None, [_prompt(row) for row in batch.rows], completions, answers if any(answers) else [], rewards)

    def length(self, example: Example) -> int:
        """Return how many tokens the prompt takes."""
        return len(self._ids(_row(example)))

    def _judged(self, batch: Prompts) -> tuple[list[str], list[float]]:
        completions = self._completions(batch, self.writing)
        judged = zip(batch.rows, completions, strict=True)
        return completions, [self.reward(_prompt(row), completion, row) for row, completion in judged]

    def _completions(self, batch: Prompts, writing: Writing) -> list[str]:
        with torch.no_grad():
            tokens = writing.write(self.model, batch.inputs, batch.draws, self._stops, self.tokens.pad_id)
        texts = []
        for before, after in zip(batch.rows, tokens.tolist(), strict=True):
            prompt = self._ids(before).tolist()
            ends = [place for place, token in enumerate(after) if token in self._stops]
            texts.append(self._text(prompt + after[: ends[0] if ends else None])[len(self._text(prompt)) :])
        return texts

    def _text(self, ids: list[int]) -> str:
        text: str = self.tokens.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _ids(self, row: Row) -> Ids:
        room = self.tokens.max_tokens - self.writing.most
        return self.tokens.start(_prompt(row), room)

    @cached_property
    def _stops(self) -> list[int]:
        """The tokens that end a text."""
        config = getattr(self.model, "generation_config", None)
        found = getattr(config, "eos_token_id", None)
        ids = found if isinstance(found, list) else [found]
        return [token for token in {*ids, self.tokens.tokenizer.eos_token_id} if token is not None]


def _row(example: Example) -> Row:
    return example if isinstance(example, Row) else Row(example.fields, 0)


def _prompt(row: Row) -> str:
    prompt = row.fields.get(PROMPT) or row.fields.get(TEXT)
    if not prompt:
        raise InputError(f"{row.place} has no prompt: name a column `prompt`, or give a --template of its columns")
    return prompt
