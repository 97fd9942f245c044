"""What the page asks of a model or a file outside a run: each answer is plain JSON, found in a child process."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from transformers import AutoTokenizer

from app.jobs import text_questions
from app.jobs.speeds import warm_up
from zocore.config import RunConfig
from zocore.data.columns import find_label, find_labels, find_names, find_texts
from zocore.data.files import read_table
from zocore.data.tasks import Example, Task, read_task
from zocore.data.template import Template
from zocore.data.texts import ANSWER, MESSAGES, PROMPT, TEXT, as_row
from zocore.diagnostics import alignment as measured
from zocore.diagnostics import loss_slices
from zocore.diagnostics.phase import Phase
from zocore.diagnostics.recorded_pushes import open_step
from zocore.diagnostics.step_trace import trace
from zocore.errors import InputError
from zocore.runs.opening import open_session
from zocore.runs.replay import export_run
from zocore.runs.session import Session
from zocore.runs.task import read
from zocore.runs.timeline import open_timeline

Json = dict[str, Any]
Thing = TypeVar("Thing")
IDLE = 600.0  # seconds after which an unused model is dropped
SHOWN = 5  # rows of a table
LONGEST = 20  # prompts, by their characters, whose tokens are counted


class Shelf:
    """Keeps the last few models made, by key. A key holds the visitor where the model can be moved."""

    def __init__(self, most: int = 3) -> None:
        self._most = most
        self._kept: OrderedDict[str, tuple[float, object]] = OrderedDict()

    def take(self, key: str, make: Callable[[], Thing]) -> Thing:
        """Return the thing of a key, made where it is not here."""
        self.drop_idle()
        while len(self._kept) >= self._most and key not in self._kept:
            self._kept.popitem(last=False)  # before the new one is made: both may not fit
        _, thing = self._kept.pop(key) if key in self._kept else (0.0, make())
        self._kept[key] = (time.monotonic(), thing)
        return thing  # type: ignore[return-value]

    def drop(self, start: str) -> None:
        """Forget the things whose key starts so."""
        for key in [key for key in self._kept if key.startswith(start)]:
            del self._kept[key]

    def drop_idle(self) -> None:
        """Forget what nobody used for a while."""
        old = time.monotonic() - IDLE
        for key in [key for key, (used, _) in self._kept.items() if used < old]:
            del self._kept[key]

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()


@dataclass
class Opened:
    """A session whose steps are done part by part."""

    session: Session
    number: int = 0
    parts: Iterator[Phase] | None = None
    shown: list[Phase] = field(default_factory=list)

    def forward(self) -> None:
        """Do the next part of a step, or the first of the next step."""
        phase = next(self.parts, None) if self.parts else None
        if phase is None:
            self.number, self.shown = self.number + 1, []
            self.parts = trace(self.session, self.number)
            phase = next(self.parts)
        self.shown.append(phase)


def _config(facts: Json) -> RunConfig:
    return RunConfig.from_json(facts["config"])


def step(shelf: Shelf, facts: Json) -> Json:
    """Do the next part of a step of the settings; "fresh" starts over."""
    if facts.get("fresh"):
        shelf.drop(f"step {facts['visitor']} ")
        return {}
    config = _config(facts)
    opened = shelf.take(f"step {facts['visitor']} {config}", lambda: Opened(open_session(config)))
    opened.forward()
    return {"number": opened.number, "parts": [asdict(part) for part in opened.shown]}


def answers(shelf: Shelf, facts: Json) -> Json:
    """Ask the first test examples, and a sentence of the visitor's, before the run and after a step of it.

    Without a sentence that can be read the labels' probabilities of the examples alone come back.
    """
    folder, own, upto = Path(facts["folder"]), facts["text"], int(facts["step"])
    # a run that goes on has more steps than its timeline knows, so the key holds how many it was made with
    timeline = shelf.take(f"replay {folder} {facts['steps'] if upto else 0}", lambda: open_timeline(folder))
    examples = [example.fields for example in timeline.session.task.test[: facts["count"]]]
    asked: list[str | Mapping[str, str]] = [*([own] if own else []), *examples]
    timeline.go(0)
    before = timeline.answers(asked)
    now = min(upto, timeline.last)
    timeline.go(now)
    return {"step": now, "before": before, "now": timeline.answers(asked)}


def completions(shelf: Shelf, facts: Json) -> Json:
    """Have the prompts of a run continued, and one of the visitor's, before the run and after a step of it."""
    folder, own, upto = Path(facts["folder"]), facts["text"], int(facts["step"])
    timeline = shelf.take(f"replay {folder} {facts['steps'] if upto else 0}", lambda: open_timeline(folder))
    written = []
    for step_ in (0, min(upto, timeline.last)):
        timeline.go(step_)
        # one's own apart: what is drawn for a prompt depends on its place
        written.append([*timeline.completions([own] if own else []), *timeline.completions(facts["prompts"])])
    return {"step": timeline.step, "before": written[0], "now": written[1]}


def pushes(shelf: Shelf, facts: Json) -> Json:
    """Open a recorded step of a method that pushes outputs, layer by layer."""
    folder, step_ = Path(facts["folder"]), int(facts["step"])
    timeline = shelf.take(f"replay {folder} {facts['steps']}", lambda: open_timeline(folder))
    return asdict(open_step(timeline, min(step_, timeline.last)))


def mistakes(shelf: Shelf, facts: Json) -> Json:
    """Ask the test examples of a run at its last step: how often each label is taken for each, and the worst errors.

    The worst are those where the right answer had the least probability.
    """
    folder = Path(facts["folder"])
    timeline = shelf.take(f"replay {folder} {facts['steps']}", lambda: open_timeline(folder))
    timeline.go(timeline.last)
    task, config = timeline.session.task, timeline.session.config
    if not task.label_names:
        raise InputError("this run writes text, of which none is taken for another: look at what it says")
    examples = task.test[: config.eval_examples]
    probabilities: list[list[float]] = []
    for first in range(0, len(examples), 4 * config.batch_size):
        probabilities += timeline.answers(
            [example.fields for example in examples[first : first + 4 * config.batch_size]]
        )
    best = [max(range(len(row)), key=row.__getitem__) for row in probabilities]
    matrix = [[0] * len(task.label_names) for _ in task.label_names]
    for example, answer in zip(examples, best, strict=True):
        matrix[example.label][answer] += 1
    wrong = [i for i, example in enumerate(examples) if best[i] != example.label]
    wrong.sort(key=lambda i: probabilities[i][examples[i].label])
    worst = [
        {
            "text": "\n".join(examples[i].fields.values())[: facts["characters"]],
            "truth": examples[i].label,
            "answer": best[i],
            "sure": probabilities[i][best[i]],
            "right": probabilities[i][examples[i].label],
        }
        for i in wrong[: facts["count"]]
    ]
    return {"step": timeline.last, "labels": list(task.label_names), "matrix": matrix, "worst": worst}


def _look_at(shelf: Shelf, facts: Json) -> Session:
    """The session the microscope looks at. Raises InputError for one that is too large."""
    config = _config(facts)
    session = shelf.take(f"look {config}", lambda: open_session(config))
    if session.trainable > facts["largest"]:
        raise InputError(
            f"{session.trainable:,} values move: the microscope takes at most {facts['largest']:,}; "
            "choose a smaller model or LoRA"
        )
    return session


def look(shelf: Shelf, facts: Json) -> Json:
    """Ask both sides at every eps along one direction."""
    return look_along(_look_at(shelf, facts), facts["number"], facts["eps"])


def look_along(session: Session, number: int, eps: list[float]) -> Json:
    """Return the loss and the slope at the weights, and both probes at every eps, along a direction."""
    along = loss_slices.probe(session, max(0, number))
    base = loss_slices.slice_along(session, along, [0.0])
    looks = [asdict(one) for one in loss_slices.secants(session, along, eps)]
    return {"base": base.losses[0], "slope": base.slope, "found": looks, "name": session.config.method}


def alignment(shelf: Shelf, facts: Json) -> Json:
    """Measure means of n estimates against the gradient."""
    return asdict(measured.alignment(_look_at(shelf, facts), facts["counts"]))


def batch_law(shelf: Shelf, facts: Json) -> Json:
    """Measure GRZO's estimate against the gradient for batches of several sizes."""
    return asdict(measured.batch_law(_look_at(shelf, facts), facts["sizes"], facts["repeats"]))


def seconds(shelf: Shelf, facts: Json) -> float:
    """Time a few steps, whose result is thrown away."""
    return warm_up(_config(facts))


def export(shelf: Shelf, facts: Json) -> str:
    """Write the tuned weights of a run, whole or as what changed."""
    return export_run(Path(facts["folder"]), Path(facts["to"]), None, facts["delta"])


def table(shelf: Shelf, facts: Json) -> Json:
    """Read a file: its columns, its first rows, and which columns look like text and label."""
    table = read_table(Path(facts["path"]), max_bytes=facts["most"])
    label = find_label(table, None)
    table = replace(table, rows=[row for row in table.rows if row.get(label)] or table.rows)
    texts = list(find_texts(table, None, label))
    rows = [dict(row) for row in table.rows[:SHOWN]]
    return {"columns": list(table.columns), "rows": rows, "count": len(table.rows), "texts": texts, "label": label}


def labels(shelf: Shelf, facts: Json) -> Json:
    """Read the labels of the rows that are kept: their names in order, and what another column calls them."""
    table = read_table(Path(facts["path"]), max_bytes=facts["most"])
    label = find_label(table, facts["label"])
    kept = table.labelled(label).filled(find_texts(table, facts["texts"], label))
    named = find_names(kept, label)
    return {"labels": list(find_labels(kept, label)), "names": named[1] if named else None}


def prompt(shelf: Shelf, facts: Json) -> Json:
    """Read a task as a run would: one prompt with its answer, the words of the labels, and the sizes of the splits."""
    texts = facts["text_columns"]
    task = read_task(
        facts["data"],
        text_columns=texts.split(",") if texts else None,
        label_column=facts["label_column"],
        template=facts["template"],
        label_words=facts["label_words"],
        max_bytes=facts["most"],
    )
    examples = [*task.train, *task.dev, *task.test]
    read_ = [tuple(example.fields.values()) for example in examples]
    labels_of: dict[tuple[str, ...], set[int]] = {}
    for text_, example in zip(read_, examples, strict=True):
        labels_of.setdefault(text_, set()).add(example.label)
    trained, tested = set(read_[: len(task.train)]), set(read_[len(task.train) + len(task.dev) :])
    first, template = task.train[0], Template(task.template)
    answer = task.label_words[first.label]
    text = template.fill(first.fields, answer).text
    return {
        "text": text if template.has_answer else f"{text} {answer}",
        "labels": list(task.label_names),
        "words": list(task.label_words),
        "counts": [len(task.train), len(task.dev), len(task.test)],
        "rows": task.rows,
        "balance": [sum(example.label == label for example in examples) for label in range(len(task.label_names))],
        "repeated": len(read_) - len(labels_of),
        "disagreeing": sum(len(labels) > 1 for labels in labels_of.values()),
        "leaked": len(trained & tested),
        "unlabelled": len(task.unlabelled),
        "lines": list(task.unlabelled[:SHOWN]),
        "textless": len(task.textless),
        "textless_lines": list(task.textless[:SHOWN]),
    }


def texts(shelf: Shelf, facts: Json) -> Json:
    """Measure a task: the longest prompt in characters and, where the model's tokenizer is here, in tokens.

    `rows` are the rows of one example in a batch, and `options` the tokens of the longest label word: when a label
    has several tokens, a language model reads every label after every prompt.
    """
    config, folder = _config(facts), facts["tokenizer"]
    task = read(config)
    prompts = sorted((_prompt(task, example) for example in task.train), key=len)[-LONGEST:]
    sizes: Json = {"characters": len(prompts[-1]), "tokens": None, "rows": 1, "options": 1}
    if folder:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        sizes["tokens"] = max(len(tokenizer(prompt)["input_ids"]) for prompt in prompts)
        bare = len(tokenizer("a", add_special_tokens=False)["input_ids"])
        words = [len(tokenizer(f"a {word}", add_special_tokens=False)["input_ids"]) - bare for word in task.label_words]
        if facts["causal"] and max(words, default=1) > 1:
            sizes |= {"rows": len(words), "options": max(words)}
    return sizes


def prompt_lengths(task: Task) -> list[int]:
    """Return the characters of each training prompt of a task."""
    return [len(_prompt(task, example)) for example in task.train]


def _prompt(task: Task, example: Example) -> str:
    """What a model reads of an example, its answer apart; of a row of text all there is to read."""
    if task.label_names:
        return Template(task.template).fill(example.fields, "").text
    row = as_row(example).fields
    return (row.get(PROMPT) or row.get(TEXT) or row.get(MESSAGES) or "") + row.get(ANSWER, "")


QUESTIONS: Mapping[str, Callable[[Shelf, Json], Any]] = {
    function.__name__: function
    for function in (
        *(step, answers, pushes, mistakes, look, alignment, batch_law, seconds, export),
        *(table, labels, prompt, texts, completions, text_questions.rows, text_questions.written),
    )
}
