"""The task that the settings name: bundled, of a paper, or the user's own rows or texts."""

import hashlib
from typing import Any

from zocore.config import RunConfig, flag
from zocore.data.few import few
from zocore.data.named import named_tasks, read_named
from zocore.data.tasks import Task, load_task, read_task
from zocore.data.texts import as_prompts, read_texts
from zocore.errors import InputError
from zocore.objectives import OBJECTIVES

OF_DATA = ("text_columns", "label_column", "template", "label_words")


def data_fingerprint(task: Task) -> str:
    """Return the SHA-256 of the task's prompt, label words and training examples, in order."""
    digest = hashlib.sha256(repr((task.template, task.label_names, task.label_words)).encode())
    for example in task.train:
        digest.update(repr((sorted(example.fields.items()), example.label)).encode())
    return digest.hexdigest()


def read(config: RunConfig) -> Task:
    """Return the task the settings name. Raises InputError when the data is not usable."""
    unlabelled = OBJECTIVES[config.objective].criterion is None
    if unlabelled and config.k_shot:
        raise InputError(f"--k-shot and --objective {config.objective} do not go together: it has no labels")
    task = _read_texts(config) if unlabelled else _read(config)
    return few(task, config.k_shot, config.train_examples, config.split_seed)


def _read(config: RunConfig) -> Task:
    words: dict[str, Any] = {"template": config.template, "label_words": config.label_words, "seed": config.split_seed}
    if config.task in named_tasks():
        for name in ("text_columns", "label_column"):
            if getattr(config, name) is not None:
                raise InputError(f"{flag(name)} and --task {config.task} do not go together: the task has its columns")
        return read_named(config.task, config.data, **words)
    if config.data is None:
        for name in OF_DATA:
            if getattr(config, name) is not None:
                raise InputError(f"{flag(name)} needs --data: a bundled task has its own")
        return load_task(config.task)
    columns = config.text_columns.split(",") if config.text_columns else None
    return read_task(config.data, text_columns=columns, label_column=config.label_column, **words)


def _read_texts(config: RunConfig) -> Task:
    for name in ("text_columns", "label_words"):
        if getattr(config, name) is not None:
            raise InputError(f"{flag(name)} and --objective {config.objective} do not go together: it has no labels")
    if config.data is None:
        return _as_prompts(config)
    named = named_tasks().get(config.task)  # SQuAD and DROP have their prompts in the table
    template = config.template or (named.template if named and named.generated else None)
    return read_texts(config.data, template=template, answer_column=config.label_column, seed=config.split_seed)


def _as_prompts(config: RunConfig) -> Task:
    """A task with labels, as prompts whose right answers are the label words."""
    task = _read(config)
    if task.candidates:
        raise InputError(
            f"--task {config.task} and --objective {config.objective} do not go together: its answers are candidates "
            "of each example; give a file of prompts, texts or chats with --data"
        )
    return as_prompts(task)
