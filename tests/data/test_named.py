"""The tasks of the papers by name: prompts, words and protocols, on generated rows and on real ones where they are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import tiny
from tests.support.places import SHARED
from zocore.cli import main
from zocore.config import RunConfig
from zocore.data.few import few
from zocore.data.named import NamedTask, named_tasks, read_named
from zocore.data.tasks import Task
from zocore.data.template import Template
from zocore.errors import InputError
from zocore.models.objectives.choose import objective_for
from zocore.runs.opening import open_session
from zocore.runs.recording import read_recording
from zocore.runs.task import read

PAPERS = ["sst2", "rte", "cb", "boolq", "wsc", "wic", "multirc", "copa", "record", "squad", "drop"]
OTHERS = ["trec", "sst5", "snli", "mnli", "agnews"]
SCORED = [name for name, row in named_tasks().items() if not row.generated]


def _row(task: NamedTask, number: int) -> dict[str, Any]:
    """A made-up row in the layout of a task's source."""
    if task.candidates == "copa":
        first = "The man slept." if number % 2 else "I ran."
        choices = {"choice1": first, "choice2": "The cup fell.", "question": ("cause", "effect")[number % 3 % 2]}
        return {"premise": f"The lamp {number} was on.", **choices, "label": number % 2}
    if task.candidates == "record":
        names = ["Ada", "Bob", "Cy"][: 2 + number % 2]
        return {"passage": f"Ada met Bob {number}.", "query": "Then @placeholder left.", "entities": names,
                "answers": names[number % 2 : number % 2 + 1]}  # fmt: skip
    fields = {columns[0]: f"is this {name} number {number}?" for name, columns in task.fields.items()}
    return fields | {task.label[0]: number % len(task.labels)}


@pytest.fixture
def rows(tmp_path: Path) -> Any:
    """Write made-up rows of a task as a folder with train and validation."""

    def write(name: str, count: int = 60) -> str:
        task = named_tasks()[name]
        for split, some in (("train", range(count)), ("validation", range(count, count + 20))):
            lines = [json.dumps(_row(task, number)) for number in some]
            (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
        return str(tmp_path)

    return write


def test_the_table_has_the_tasks_of_the_papers() -> None:
    """Each with its place on the hub, prompts whose fields the rows have, a word for each label, metric and source."""
    assert set(named_tasks()) == {*PAPERS, *OTHERS}
    for task in named_tasks().values():
        assert task.hub and task.source and task.metric in ("accuracy", "F1"), task.name
        if task.generated or task.candidates:
            continue
        assert len(task.words) == len(task.labels) == len(set(task.words)), task.name
        assert set(Template(task.template).fields) == set(task.fields), task.name
        if task.masked:
            assert Template(task.masked).has_answer and len(task.masked_words) == len(task.labels), task.name


@pytest.mark.parametrize("name", SCORED)
def test_every_task_is_learned_by_a_decoder(name: str, rows: Any, tmp_path: Path) -> None:
    """A step on rows in the source's layout, recorded, with losses of every example, and replayed bit for bit."""
    folder = rows(name)
    model = str(tiny.save(tmp_path / "model", "llama"))
    words = ["train", "--task", name, "--data", folder, "--model", model, "--method", "mezo", "--steps", "2"]
    words += ["--batch-size", "4", "--eval-examples", "8", "--lr", "1e-3", "--eps", "1e-3", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert main(["replay", str(tmp_path / "run"), "--verify"]) == 0
    steps = read_recording(tmp_path / "run").steps
    assert len(steps) == 2 and not any(step.skipped for step in steps)


@pytest.mark.parametrize("name", ["sst2", "trec", "rte", "boolq"])
@pytest.mark.parametrize("kind", ["masked", "encoder"])
def test_other_models_are_asked_in_their_own_way(name: str, kind: str, rows: Any, tmp_path: Path) -> None:
    """Masked models at a mask, encoders by the names of the labels, without a question for a decoder."""
    folder, row = rows(name), named_tasks()[name]
    model = str(tiny.save(tmp_path / "model", "bert", "" if kind == "masked" else "encoder"))
    words = ",".join(["good", "bad", "yes", "no", "maybe", "positive"][: len(row.labels)])
    config = RunConfig(method="mezo", task=name, data=folder, model=model, lr=1e-3, eps=1e-3, device="cpu")
    if kind == "masked":  # the tiny vocabulary has not the papers' words
        task = read_named(name, folder).worded("masked")
        assert (task.template, task.label_words) == (row.masked or row.template, tuple(row.masked_words or row.words))
        own = open_session(RunConfig(**{**config.to_json(), "label_words": words})).task
        assert own.template == row.template  # words of one's own go with the prompt as it is
    else:
        task = open_session(config).task
        assert task.template == "\n".join(f"{{{field}}}" for field in row.fields)
        assert task.label_words == tuple(row.labels)


def test_labels_come_as_numbers_names_or_not_at_all(tmp_path: Path) -> None:
    """-1 and - are none, true is True; a label of another task is told."""
    values = ["1", "true", "False", 0, -1, "-", None] + [0, 1] * 10
    rows = [{"passage": f"p {n}", "question": "is it ?", "label": value} for n, value in enumerate(values)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = read_named("boolq", str(tmp_path))
    found = sorted((*task.train, *task.dev, *task.test), key=lambda example: int(example.fields["passage"][2:]))
    assert [example.label for example in found[:4]] == [1, 1, 0, 0] and len(found) == 24
    assert found[0].fields["question"] == "Is it"
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(row | {"label": "maybe"}) for row in rows))
    with pytest.raises(InputError, match="the label 'maybe' is not among those"):
        read_named("boolq", str(tmp_path))


def test_copa_goes_on_with_its_choices() -> None:
    """The premise without its full stop, the connective of the question, choices in small letters but for "I"."""
    row = named_tasks()["copa"]
    table = _Table([_row(row, 0), _row(row, 1)])
    one, two = row.read(table).rows  # type: ignore[arg-type]
    assert one["premise"] == "The lamp 0 was on" and one["connective"] == "because"
    assert json.loads(one["candidates"]) == ["I ran.", "the cup fell."] and one["label"] == "1"
    assert two["connective"] == "so" and json.loads(two["candidates"])[0] == "the man slept."


class _Table:
    """Rows as a table has them, every value as text."""

    def __new__(cls, rows: list[dict[str, Any]]) -> Any:
        """Make the table."""
        from zocore.data.files import Table

        texts = [{k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows]
        return Table(Path("rows"), tuple(rows[0]), texts, range(len(rows)))


def test_candidates_score_as_one_by_one(rows: Any, tmp_path: Path) -> None:
    """Examples with two and three candidates in one batch: each score is that of the candidate alone, unpadded."""
    task = read_named("record", rows("record"))
    config = RunConfig(
        model=str(tiny.save(tmp_path / "model", "llama")), task="record", data=str(tmp_path), device="cpu"
    )
    session = open_session(config, task=task)
    objective: Any = session.objective
    examples = list(task.train[:4])
    found = objective.log_probs(objective.batch(examples))
    assert found.shape == (4, 3)
    for example, row in zip(examples, found, strict=True):
        options = objective._candidates(example.fields)
        prompt = objective.encode(example.fields).ids.tolist()
        scores = []
        for option in options:
            ids = torch.tensor([prompt + option.tolist()])
            log_probs = session.loaded.model(input_ids=ids).logits[0].log_softmax(-1)
            at = range(len(prompt) - 1, ids.shape[1] - 1)
            scores.append(torch.stack([log_probs[n, ids[0, n + 1]] for n in at]).mean())
        expected = torch.stack(scores).log_softmax(0)
        torch.testing.assert_close(row[: len(options)], expected, rtol=1e-4, atol=1e-5)
        assert torch.isinf(row[len(options) :]).all()


def test_candidates_need_a_decoder_and_free_text_an_objective(rows: Any, tmp_path: Path) -> None:
    """One sentence each."""
    model = str(tiny.save(tmp_path / "model", "bert"))
    with pytest.raises(InputError, match="copa scores candidates of each example .* take a decoder"):
        open_session(RunConfig(model=model, task="copa", data=rows("copa"), device="cpu", method="mezo"))
    for name in ("squad", "drop"):
        with pytest.raises(InputError, match=f"{name} is answered in free text"):
            read_named(name, str(tmp_path))


def test_squad_has_its_prompt_where_text_is_written(tmp_path: Path) -> None:
    """With an objective on text the table's prompt is made of the source's columns."""
    rows = [{"title": "T", "context": f"c {n}", "question": "q?", "answers": [f"c {n}"]} for n in range(20)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = RunConfig(method="mezo", objective="lm", task="squad", data=str(tmp_path), label_column="answers")
    row = min(read(config).train, key=lambda example: int(example.fields["context"][2:]))
    number = row.fields["context"]
    assert row.fields["prompt"] == f"Title: T\nContext: {number}\nQuestion: q?\nAnswer:"
    assert json.loads(row.fields["answer"]) == [number]


def test_small_splits_are_the_papers(rows: Any) -> None:
    """k of each label with as many for dev, or n and n / 2; the same for the same seed, others for another."""
    whole = read_named("cb", rows("cb", 90))
    some = few(whole, 5, 0, seed=0)
    assert [sum(e.label == label for e in some.train) for label in range(3)] == [5, 5, 5]
    assert [sum(e.label == label for e in some.dev) for label in range(3)] == [3, 3, 3]  # all there are
    assert some == few(whole, 5, 0, seed=0) != few(whole, 5, 0, seed=1)
    half = few(whole, 0, 12, seed=0)
    assert (len(half.train), len(half.dev), len(half.test)) == (12, 6, 20)
    assert few(whole, 0, 0, seed=0) is whole
    with pytest.raises(InputError, match="--k-shot 90 is more than the"):
        few(whole, 90, 0, seed=0)
    with pytest.raises(InputError, match="--train-examples 900 is more than the"):
        few(whole, 0, 900, seed=0)
    with pytest.raises(ValueError, match="do not go together"):
        RunConfig(k_shot=1, train_examples=1)


def test_a_source_in_another_layout_is_told(tmp_path: Path) -> None:
    """With the column that is missing and those that are there; columns cannot be named for it."""
    (tmp_path / "train.jsonl").write_text(json.dumps({"premise": "a", "label": 0}))
    with pytest.raises(InputError, match="no column 'hypothesis', which the task 'rte' needs: its columns are premise"):
        read_named("rte", str(tmp_path))
    with pytest.raises(InputError, match="--label-column and --task rte do not go together"):
        open_session(RunConfig(method="mezo", task="rte", data=str(tmp_path), label_column="label", device="cpu"))


def test_the_list_names_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    """`zocore tasks` has a line for each."""
    assert main(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[1:]} > {*PAPERS, *OTHERS}


REAL = {
    "sst2": "sst2",
    "trec": "trec",
    "rte": "rte",
    "cb": "cb",
    "boolq": "boolq_valsplit",
    "wic": "wic",
    "copa": "copa",
}


@pytest.mark.parametrize("name", REAL)
def test_real_rows_are_read_and_scored(name: str) -> None:
    """The source's own rows give a task of the papers' protocol, and a real decoder a finite loss for each."""
    folder, model = SHARED / "data" / REAL[name], SHARED / "models" / "stories260K-hf"
    if not (folder.is_dir() and model.is_dir()):
        pytest.skip(f"no {REAL[name]} and stories260K under {SHARED}: set ZOCORE_SHARED")
    session = open_session(
        RunConfig(method="mezo", task=name, data=str(folder), model=str(model), train_examples=200, device="cpu")
    )
    task: Task = session.task
    assert len(task.train) == 200 and 20 <= len(task.dev) <= 100 and len(task.test) >= 56
    with torch.no_grad():
        losses = session.objective.losses(session.objective.batch(task.train[:8]))
    assert torch.isfinite(losses).all() and objective_for(session.loaded, task).task is task
