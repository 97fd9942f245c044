"""The reward of what a model writes: a score without a gradient, from completions of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zocore.carriers.layout import Layout
from zocore.data.answers import shown_answer
from zocore.data.rewards import Reward
from zocore.data.tasks import Example, Task
from zocore.data.texts import ANSWER, Row, as_row, prompt_of
from zocore.models.load import LoadedModel
from zocore.models.objectives.base import Evaluation, Shown, Within
from zocore.models.objectives.batch import Batch
from zocore.models.objectives.tokens import MAX_TOKENS
from zocore.models.objectives.writing import EVALUATION, Writes, Writing
from zocore.noise.addressed import Key


@dataclass(frozen=True, eq=False)
class Prompts(Batch):
    """A batch of prompts, with the rows they come from and what is drawn for their completions."""

    rows: Sequence[Row] = ()
    draws: Tensor | None = None

    def _part(self, first: int, last: int) -> "Prompts":
        part = super()._part(first, last)  # a Prompts with all rows, as it replaces what every batch has
        assert isinstance(part, Prompts)
        return replace(part, rows=self.rows[first:last], draws=None if self.draws is None else self.draws[first:last])


class Rewarded(Writes):
    """-reward of each completion. Raises InputError when a row has no prompt or the model is no decoder."""

    one_forward = False

    def __init__(
        self,
        loaded: LoadedModel,
        task: Task,
        max_tokens: int = MAX_TOKENS,
        writing: Writing = Writing(),
        reward: str = "em",
    ) -> None:
        super().__init__(loaded, task, max_tokens, writing)
        self.reward = Reward(reward)

    def ready(self) -> None:
        """Load the reward."""
        self.reward.ready()

    @property
    def versions(self) -> dict[str, str]:
        """Which version of the reward's file it is."""
        return {"reward": self.reward.version}

    def batch(self, examples: Sequence[Example], key: Key | None = None) -> Prompts:
        """Return prompts padded on the left, and the draws for their completions."""
        rows = [as_row(example) for example in examples]
        inputs = self.writer.inputs([prompt_of(row) for row in rows])
        # each forward of a completion has other tokens, so the layout knows rows alone
        layout = Layout(torch.arange(len(rows)))
        labels = torch.zeros(len(rows), dtype=torch.int64, device=self.device)
        draws = self.writer.writing.draws(key or EVALUATION, len(rows))
        return Prompts(inputs, labels, layout, rows=rows, draws=draws)

    def losses(self, batch: Batch) -> Tensor:
        """Return -reward of each completion (B,), float64."""
        assert isinstance(batch, Prompts)
        return -torch.tensor(self._judged(batch)[1], dtype=torch.float64, device=self.device)

    def forward(self, batch: Batch) -> None:
        """Run the model on the prompts; nothing is written or judged."""
        self.model(**batch.inputs)

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
        answers = [shown_answer(row.fields.get(ANSWER, "")) for row in batch.rows]
        return Shown(
            None, [prompt_of(row) for row in batch.rows], completions, answers if any(answers) else [], rewards
        )

    def length(self, example: Example) -> int:
        """Return how many tokens the prompt takes."""
        return len(self.writer.ids(prompt_of(as_row(example))))

    def _judged(self, batch: Prompts) -> tuple[list[str], list[float]]:
        prompts = [prompt_of(row) for row in batch.rows]
        completions = self.writer.texts(prompts, batch.inputs, batch.draws)
        judged = zip(prompts, completions, batch.rows, strict=True)
        return completions, [self.reward(*each) for each in judged]
