"""Measure what the pretrained model knows, by the logits after a prompt."""

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from .tasks import QUESTION, SENTIMENT, TOPIC, Row

TASKS = {task["name"]: task for task in (SENTIMENT, TOPIC, QUESTION)}


def label_accuracy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, task: str, rows: list[Row]) -> float:
    """Return the share of rows whose label word scores highest among the label words."""
    template, words = TASKS[task]["template"], TASKS[task]["label_words"]
    scores = word_scores(model, tokenizer, [template.format(**row) for row in rows], list(words.values()))
    labels = list(words)
    right = [labels[int(best)] == row["label"] for best, row in zip(scores.argmax(1), rows, strict=True)]
    return sum(right) / len(right)


def sentiment_knowledge(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[Row]) -> float:
    """Return how often a happy row leans more to "It was great" (over "terrible") than an unhappy row does."""
    scores = word_scores(model, tokenizer, [f"{row['text']} It was" for row in rows], ["terrible", "great"])
    happy = torch.tensor([row["label"] == "positive" for row in rows])
    lean = scores[:, 1] - scores[:, 0]
    return (lean[happy][:, None] > lean[~happy]).float().mean().item()


@torch.no_grad()
def word_scores(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], words: list[str]
) -> torch.Tensor:
    """Return the logits of words as the next token, shape (prompts, words)."""
    tokens = [tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in words]
    scores = []
    for start in range(0, len(prompts), 100):
        batch = tokenizer(prompts[start : start + 100], return_tensors="pt", padding=True)
        scores.append(model(**batch, logits_to_keep=1).logits[:, -1, tokens].float())
    return torch.cat(scores)
