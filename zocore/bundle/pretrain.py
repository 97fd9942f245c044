"""Pretrain the small Llama on the text of the little world, on the CPU."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .helpers import Helpers
from .packing import separate
from .probe import label_accuracy, sentiment_knowledge
from .tasks import Row


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to pretrain; a step reads batch x length tokens."""

    tokens: int = 5_000_000
    batch: int = 20
    length: int = 96
    rate: float = 3e-3
    matrix_rate: float = 0.02
    warmup: int = 150
    probe_every: int = 150
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.tokens // (self.batch * self.length)


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Return an untrained model of 2.6 M parameters; all widths are multiples of 64, as 4-bit blocks need."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        intermediate_size=512,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",  # type: ignore[call-arg]  # on short rows and a CPU a third faster than the fused kernel
    )
    return LlamaForCausalLM(config)


def pretrain(
    model: LlamaForCausalLM,
    train: torch.Tensor,
    held_out: torch.Tensor,
    probe: Callable[[], dict[str, float]],
    recipe: Recipe,
    workers: int,
    tell: Callable[[dict[str, float]], None],
) -> list[dict[str, float]]:
    """Train for one pass over the rows and return the logged losses and probes."""
    optimizers = _optimizers(model, recipe)
    schedules = [LambdaLR(optimizer, lambda step: _rate(step, recipe)) for optimizer in optimizers]
    log: list[dict[str, float]] = []
    losses: list[float] = []
    started = time.perf_counter()
    batches = train[: recipe.steps * recipe.batch].view(recipe.steps, recipe.batch, recipe.length)
    model.train()
    with Helpers(model, language_loss, batches, workers) as helpers:
        for step in range(1, recipe.steps + 1):
            losses.append(helpers.backward(step - 1))
            for optimizer in optimizers:
                optimizer.step()
            for schedule in schedules:
                schedule.step()
            model.zero_grad()
            if step % recipe.probe_every == 0 or step == recipe.steps:
                progress = {"tokens": step * batches[0].numel(), "seconds": round(time.perf_counter() - started)}
                log.append(progress | _entry(model, held_out, sum(losses) / len(losses), probe))
                tell(log[-1])
                losses.clear()
    return log


def language_loss(model: LlamaForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    """Return the mean next-token loss in nats of rows of tokens, shape (batch, length)."""
    assert model.config.bos_token_id is not None, "new_model sets it"
    mask, positions = separate(rows, model.config.bos_token_id)
    # A quarter faster than float32 where the CPU has bfloat16 units.
    with torch.autocast("cpu", torch.bfloat16, enabled=model.training):
        logits = model(input_ids=rows, attention_mask=mask, position_ids=positions, use_cache=False).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten())


def save(model: LlamaForCausalLM, folder: Path) -> LlamaForCausalLM:
    """Save the weights as float16 and return the model as a reader of the folder gets it, in float32."""
    model.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    # Half the bytes on disk, but full precision in memory unless the reader asks otherwise.
    config["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    return LlamaForCausalLM.from_pretrained(folder).eval()


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, rows: torch.Tensor) -> float:
    """Return the mean next-token loss in nats over rows of tokens, in float32."""
    model.eval()
    return sum(language_loss(model, part.long()).item() * len(part) for part in rows.split(32)) / len(rows)


def describe(recipe: Recipe) -> dict[str, float]:
    """Return the recipe as plain data."""
    return asdict(recipe) | {"steps": recipe.steps}


def sentiment_probe(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[Row]) -> dict[str, float]:
    """Return how well the model knows the sentiment, and how well the task's prompt brings it out."""
    return {
        "knows_sentiment": sentiment_knowledge(model, tokenizer, rows),
        "zero_shot_sentiment": label_accuracy(model, tokenizer, "sentiment", rows),
    }


def _entry(
    model: LlamaForCausalLM, held_out: torch.Tensor, train_loss: float, probe: Callable[[], dict[str, float]]
) -> dict[str, float]:
    entry = {"train_loss": train_loss, "held_out_loss": held_out_loss(model, held_out)} | probe()
    model.train()
    return {key: round(value, 4) for key, value in entry.items()}


def _optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[Optimizer]:
    """Return Muon for the matrices inside the layers and AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    others = [p for name, p in model.named_parameters() if p.ndim == 1 or "layers" not in name]
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    ]


def _rate(step: int, recipe: Recipe) -> float:
    warm = min(1.0, (step + 1) / recipe.warmup)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))
