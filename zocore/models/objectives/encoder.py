"""Labels from an encoder: by a classification head, or by likeness to a description of each label."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zocore.data.tasks import Task
from zocore.models.objectives.base import widened
from zocore.models.objectives.batch import Batch, layout_of, padded, sent
from zocore.models.objectives.heads import CosineHead
from zocore.models.objectives.labels import Encoded, LabelObjective
from zocore.models.objectives.last_linear import LastLinear
from zocore.models.objectives.tokens import MAX_TOKENS

ANCHORS = "label_anchors.safetensors"
SCALE = 20.0  # what sentence-transformers trained such embeddings with: cosines lie close together


def model_inputs(model: Any, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> dict[str, Tensor]:
    """Return an encoder's arguments, each (rows, tokens).

    BERT's own position ids have one row for all; per-example hooks need one per row of the batch.
    RoBERTa counts its own from the padding id, row by row.
    """
    inputs = {"input_ids": ids, "attention_mask": mask}
    if model.config.model_type in ("bert", "electra"):
        inputs["position_ids"] = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    if types is not None and getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = types
    return inputs


class Sentences(LabelObjective):
    """How the two objectives below read an example: its fields as one or two sentences, padded on the right."""

    def encode(self, fields: Mapping[str, str]) -> Encoded:
        """Return the ids of the task's fields, two of them as the model's sentence pair."""
        texts = [fields[name] for name in self.template.fields]
        texts = texts if len(texts) <= 2 else ["\n".join(texts)]
        pair = len(texts) == 2
        coded = self.tokens.tokenizer(
            *texts, truncation=True, max_length=self.tokens.max_tokens, return_token_type_ids=pair
        )
        types = np.array(coded["token_type_ids"]) if pair else None
        return Encoded(np.array(coded["input_ids"]), types=types)

    def collate(self, rows: Sequence[Encoded], labels: Tensor) -> Batch:
        """Return one row per example."""
        ids, mask = (sent(t, self.device) for t in padded([row.ids for row in rows], self.tokens.pad_id, left=False))
        types = [row.types for row in rows if row.types is not None]
        sides = sent(padded(types, 0, left=False)[0], self.device) if types else None
        return Batch(model_inputs(self.model, ids, mask, sides), labels, layout_of(mask, 1))


@final
class Classification(Sentences, LastLinear):
    """Reads the labels off the model's classification head, whose outputs are matched to the labels by name."""

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, max_tokens: int = MAX_TOKENS) -> None:
        super().__init__(model, tokenizer, task, max_tokens)
        config: Any = model.config
        outputs = config.num_labels
        if outputs != len(task.label_names):
            raise ValueError(f"the head has {outputs} outputs for {len(task.label_names)} labels")
        self.outputs = torch.tensor(_matched(config.id2label, task.label_names))

    def logits(self, batch: Batch) -> Tensor:
        """Return the head's outputs (B, outputs)."""
        logits: Tensor = self.model(**batch.inputs).logits
        return logits

    def log_probs(self, batch: Batch) -> Tensor:
        """Return the log-probabilities of the labels (B, L): the softmax over the head's outputs."""
        logits = self.logits(batch)
        return widened(logits[:, self._there("outputs", logits.device)]).log_softmax(dim=1)


@final
class LabelSimilarity(Sentences):
    """Compares labels by the cosine between a text and a description of each label, times `SCALE`.

    Both are mean-pooled, normalised embeddings. The descriptions are embedded once, with the weights as they
    are when the objective is made, and stay put while training moves the texts; an exported model keeps them in
    its `folder`. By default they are the
    template without its fields around the label word ("It was great"), or the word alone.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        task: Task,
        max_tokens: int = MAX_TOKENS,
        descriptions: Sequence[str] | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(model, tokenizer, task, max_tokens)
        self.descriptions = tuple(descriptions or (self._description(word) for word in task.label_words))
        kept = None if folder is None else self._kept(folder / ANCHORS)
        self._anchors = self._embedded() if kept is None else kept

    @property
    def head(self) -> CosineHead:
        """The scaled cosines to the descriptions."""
        return CosineHead(self._anchors, SCALE)

    def features(self, batch: Batch) -> Tensor:
        """Return the mean of the last hidden states over real tokens: (rows, d)."""
        hidden = widened(self.model(**batch.inputs).last_hidden_state)
        weights = batch.attention_mask.unsqueeze(2).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)

    def embed(self, batch: Batch) -> Tensor:
        """Return the features at length 1: (rows, d)."""
        return nn.functional.normalize(self.features(batch), dim=1)

    def log_probs(self, batch: Batch) -> Tensor:
        """Return the log-probabilities of the labels (B, L): the softmax over scaled cosines."""
        return self.head.log_probs(self.features(batch))

    def save_anchors(self, folder: Path) -> None:
        """Write the embedded descriptions beside a tuned model: its own weights would embed them otherwise."""
        save_file({"anchors": self._anchors.cpu()}, folder / ANCHORS, {"descriptions": json.dumps(self.descriptions)})

    def _kept(self, path: Path) -> Tensor | None:
        """The anchors of an exported model, None where there are none or they are of other descriptions."""
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            same = json.loads((file.metadata() or {}).get("descriptions", "[]")) == list(self.descriptions)
            return file.get_tensor("anchors").to(self.device) if same else None

    def _embedded(self) -> Tensor:
        rows = [Encoded(np.array(self.tokens.tokenizer(text)["input_ids"])) for text in self.descriptions]
        with torch.no_grad():
            return self.embed(self.collate(rows, torch.zeros(len(rows), dtype=torch.int64)))

    def _description(self, word: str) -> str:
        nothing = dict.fromkeys(self.template.fields, "")
        filled = self.template.fill(nothing, word).text
        return " ".join((filled if self.template.has_answer else f"{filled} {word}").split())


def _matched(outputs: Mapping[int, str], names: Sequence[str]) -> list[int]:
    """The head's output number of each label: by name where all names agree, else in order."""
    numbers = {name.lower(): number for number, name in outputs.items()}
    wanted = [name.lower() for name in names]
    return [numbers[name] for name in wanted] if set(wanted) == set(numbers) else list(range(len(names)))
