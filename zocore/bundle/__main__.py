"""Rebuild the bundled tasks and model: python -m zocore.bundle --seed 0."""

import argparse
import json
from pathlib import Path

from . import MODEL, TASKS
from .card import write_card
from .corpus import Corpus
from .packing import pack
from .pretrain import Recipe, describe, held_out_loss, new_model, pretrain, save, sentiment_probe
from .probe import TASKS as DESCRIBED
from .probe import label_accuracy
from .tasks import read_rows, write_tasks
from .tokenizer import train_tokenizer
from .words import SPLITS

CHARACTERS_PER_TOKEN = 4.4  # a little more than measured, so that the text does not run out


def main() -> None:
    options = _options()
    if options.only != "model":
        write_tasks(options.tasks, options.seed)
        print(f"tasks written to {options.tasks}")
    if options.only != "tasks":
        build_model(options)
        print(f"model written to {options.model}")


def build_model(options: argparse.Namespace) -> None:
    """Write the pretraining text, train the tokenizer and the model, and save both."""
    recipe = Recipe(tokens=options.tokens, seed=options.seed)
    tasks = {
        (name, split): read_rows(options.tasks / name / f"{split}.jsonl") for name in DESCRIBED for split in SPLITS
    }
    corpus = Corpus(options.seed, {row["text"] for rows in tasks.values() for row in rows}, options.classics)
    label_words = [word for task in DESCRIBED.values() for word in task["label_words"].values()]
    tokenizer = train_tokenizer(corpus.documents(4_000_000), options.model, label_words)
    held_out = pack(tokenizer, corpus.documents(60_000), recipe.length)
    train = pack(tokenizer, corpus.documents(int(recipe.tokens * CHARACTERS_PER_TOKEN)), recipe.length)
    print(f"{train.numel():,} tokens of text")
    model = new_model(tokenizer, options.seed)
    dev = tasks["sentiment", "dev"]
    log = pretrain(
        model, train, held_out, lambda: sentiment_probe(model, tokenizer, dev), recipe, options.workers, _tell
    )
    loss_before = held_out_loss(model, held_out)
    stored = save(model, options.model)
    record = {
        "recipe": describe(recipe),
        "workers": options.workers,
        "classics": bool(options.classics),
        "parameters": stored.num_parameters(),
        "loss_before": loss_before,
        "loss_after": held_out_loss(stored, held_out),
        "zero_shot": {name: label_accuracy(stored, tokenizer, name, tasks[name, "test"]) for name in DESCRIBED},
        "log": log,
    }
    write_card(options.model, record)


def _tell(entry: dict[str, float]) -> None:
    print(json.dumps(entry), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m zocore.bundle", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of tasks, text and weights (default: 0)")
    parser.add_argument("--only", choices=["tasks", "model"], help="rebuild one half; the model needs the tasks")
    parser.add_argument(
        "--tokens", type=int, default=Recipe.tokens, help="tokens to pretrain on (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes that pretrain, each with one thread (default: 2)"
    )
    parser.add_argument(
        "--classics",
        type=Path,
        help="gzipped plain text to mix in, about a fifth of the tokens (default: none)",
    )
    parser.add_argument("--tasks", type=Path, default=TASKS, help="folder of the tasks (default: the bundled one)")
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the model (default: the bundled one)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
