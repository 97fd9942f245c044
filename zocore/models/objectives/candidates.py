"""Candidates that each example brings itself, for decoders: "The man turned on the faucet because" and its choices.

As label words of several tokens, a candidate counts by the mean log-probability of its tokens (MeZO's choice). An
example with fewer candidates than another of its batch has rows of its last one again, which count for nothing.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from zocore.data.named import CANDIDATES
from zocore.data.tasks import Example, Task
from zocore.errors import InputError
from zocore.models.objectives.batch import Batch, count_positions, layout_of, padded, sent
from zocore.models.objectives.causal import mean_log_probs
from zocore.models.objectives.label_rows import only_rows
from zocore.models.objectives.labels import Encoded, LabelObjective
from zocore.models.objectives.tokens import MAX_TOKENS, Ids
from zocore.noise.addressed import Key

LEAST = 8  # tokens that are left to the prompt, however long a candidate is


@final
class CandidateChoice(LabelObjective):
    """Scores each example's own candidates after its prompt."""

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, max_tokens: int = MAX_TOKENS) -> None:
        super().__init__(model, tokenizer, task, max_tokens)
        self.prompt = self.template.before_answer()
        self.rows = len(task.label_names)
        self._options: dict[tuple[str, str], list[Ids]] = {}

    def encode(self, fields: Mapping[str, str]) -> Encoded:
        """Return the prompt's ids, with room left for the longest candidate."""
        room = self.tokens.max_tokens - max(map(len, self._candidates(fields))) + 1
        return Encoded(self.tokens.prompt(self.prompt.fill(fields), room))

    def batch(self, examples: Sequence[Example], key: Key | None = None) -> Batch:
        """Return one row for each candidate, as many for each example as the one with the most has."""
        options = [self._candidates(example.fields) for example in examples]
        prompts = [self._once(example.fields).ids for example in examples]
        most, longest = max(map(len, options)), max(len(ids) for own in options for ids in own)
        filled = [own + own[-1:] * (most - len(own)) for own in options]
        texts = [np.concatenate((ids, o[:-1])) for ids, own in zip(prompts, filled, strict=True) for o in own]
        ids, mask = (sent(tensor, self.device) for tensor in padded(texts, self.tokens.pad_id, left=True))
        targets = np.full((len(texts), longest), -100)
        for row, option in enumerate(option for own in filled for option in own):
            targets[row, longest - len(option) :] = option
        targets[[n * most + k for n, own in enumerate(options) for k in range(len(own), most)]] = -100
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": count_positions(mask)}
        read = torch.arange(ids.shape[1] - longest, ids.shape[1], device=self.device).expand(len(ids), -1)
        labels = sent(torch.tensor([example.label for example in examples]), self.device)
        layout = layout_of(mask, most, read)
        return Batch(inputs, labels, layout, read, sent(torch.from_numpy(targets), self.device))

    def collate(self, rows: Sequence[Encoded], labels: Tensor) -> Batch:
        """Raise NotImplementedError: candidates belong to examples, of which `batch` is made."""
        raise NotImplementedError("a batch of candidates is made of examples")

    def log_probs(self, batch: Batch) -> Tensor:
        """Return the log-probabilities of the candidates (B, L), minus infinity where an example has fewer."""
        assert batch.positions is not None and batch.targets is not None
        with only_rows(self.model, batch.positions):
            logits: Tensor = self.model(**batch.inputs, use_cache=False).logits
        missing = (batch.targets < 0).all(dim=1)
        scores = mean_log_probs(logits, batch.targets.where(~missing.unsqueeze(1), 0)).masked_fill(missing, -torch.inf)
        log_probs = scores.view(len(batch), -1).log_softmax(dim=1)
        return torch.nn.functional.pad(log_probs, (0, self.rows - log_probs.shape[1]), value=-torch.inf)

    def size(self, example: Example) -> int:
        """Return how many tokens all rows of the example take, padding apart."""
        options = self._candidates(example.fields)
        return sum(self.length(example) + len(option) - 1 for option in options)

    def _candidates(self, fields: Mapping[str, str]) -> list[Ids]:
        """The candidates' ids as they come after the example's prompt."""
        key = (self.prompt.text, fields[CANDIDATES])
        if key not in self._options:
            self._options[key] = [self._ids(text) for text in json.loads(fields[CANDIDATES])]
        return self._options[key]

    def _ids(self, candidate: str) -> Ids:
        """What tokenising a stand-in prompt and the candidate together adds to the prompt's tokens."""
        stand_in = "a" + self.prompt.text[self.prompt.text.rfind("}") + 1 :]
        space = "" if stand_in[-1].isspace() else " "
        before = len(self.tokens.plain(stand_in))
        ids = self.tokens.plain(stand_in + space + candidate)[before:][: self.tokens.max_tokens - LEAST]
        if not ids:
            raise InputError(f"the model's vocabulary cannot write the candidate {candidate[:60]!r}")
        return np.array(ids, dtype=np.int64)
