"""The papers' small splits: k examples of each label, or a number of examples in all, chosen by the split's seed."""

from collections.abc import Sequence
from dataclasses import replace

from zocore.data.columns import shown
from zocore.data.tasks import SPLIT_EPOCH, Example, Task
from zocore.errors import InputError
from zocore.noise.addressed import permutation

TEST = 1000  # most test examples of a small split (arXiv 2305.17333)


def few(task: Task, k_shot: int, train_examples: int, seed: int) -> Task:
    """Return the task with k training examples of each label and as many for dev, or so many of all and half for dev.

    Either leaves at most 1000 test examples; neither leaves the task as it is. Raises InputError when there are not
    enough.
    """
    if k_shot:
        train, dev = (_of_each(task, split, k_shot, seed) for split in ("train", "dev"))
    elif train_examples:
        if len(task.train) < train_examples:
            raise InputError(f"--train-examples {train_examples} is more than the {len(task.train)} that there are")
        train, dev = _some(task.train, train_examples, seed), _some(task.dev, max(1, train_examples // 2), seed + 1)
    else:
        return task
    return replace(task, train=train, dev=dev, test=_some(task.test, TEST, seed + 2))


def _some(examples: Sequence[Example], count: int, seed: int) -> tuple[Example, ...]:
    """At most `count` examples, in the order they had."""
    return tuple(examples[number] for number in sorted(permutation(len(examples), seed, SPLIT_EPOCH)[:count]))


def _of_each(task: Task, split: str, count: int, seed: int) -> tuple[Example, ...]:
    """`count` examples of each label; of dev as many as there are."""
    examples: Sequence[Example] = getattr(task, split)
    chosen: set[int] = set()
    for label, name in enumerate(task.label_names):
        numbers = [number for number, example in enumerate(examples) if example.label == label]
        if split == "train" and len(numbers) < count and not task.candidates:
            raise InputError(f"--k-shot {count} is more than the {len(numbers)} training examples of {shown(name)}")
        order = permutation(len(numbers), seed, SPLIT_EPOCH + label) if numbers else []
        chosen.update(numbers[place] for place in order[:count])
    return tuple(examples[number] for number in sorted(chosen))
