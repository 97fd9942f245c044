"""`ZOTrainer`: transformers' Trainer with the engine's steps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import TrainerCallback, TrainingArguments

from tests.support import tiny
from zocore import RunConfig, StepDone, open_session
from zocore.hf import ZOTrainer
from zocore.runs.loop import run_session

STEPS, BATCH = 4, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT with a head for two labels."""
    return tiny.save(tmp_path_factory.mktemp("model"), "bert", "classifier")


def _session(folder: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {"method": "mezo", "lr": 1e-3, "eps": 1e-3, "seed": 7, "eval_examples": 4}
    settings |= {"steps": STEPS, "batch_size": BATCH, "subspace": "all", "schedule": "linear", "max_tokens": 24}
    return open_session(RunConfig(model=str(folder), **settings | changes))


def _arguments(to: Path, **changes: Any) -> TrainingArguments:
    settings: dict[str, Any] = {"learning_rate": 1e-3, "seed": 7, "max_steps": STEPS, "logging_steps": 1}
    settings |= {"per_device_train_batch_size": BATCH, "train_sampling_strategy": "sequential", "report_to": "none"}
    settings |= {"remove_unused_columns": False, "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
    return TrainingArguments(output_dir=str(to), **settings | changes)


def _cross_entropy(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """The engine's loss: of each example in float32, averaged in float64."""
    return -functional.log_softmax(outputs.logits.float(), 1).gather(1, labels[:, None]).squeeze(1).double().mean()


def _trainer(session: Any, to: Path, changes: dict[str, Any] | None = None, **more: Any) -> ZOTrainer:
    """A trainer of a session's model on the batches that the session would draw, in its order."""
    session.loaded.model.requires_grad_(True)
    rows = [session.task.train[number] for step in range(1, STEPS + 1) for number in session.numbers(step)]

    def collate(examples: list[Any]) -> dict[str, Tensor]:
        batch = session.objective.batch(examples)
        return {**batch.inputs, "labels": batch.labels}

    settings: dict[str, Any] = {"compute_loss_func": _cross_entropy, "data_collator": collate, "eps": 1e-3}
    arguments = _arguments(to, **changes or {})
    return ZOTrainer(session.loaded.model, arguments, train_dataset=rows, **settings | more)


@pytest.mark.parametrize("method", ["mezo", "fzoo", "mezo-gv"])
def test_its_steps_are_the_engines(method: str, folder: Path, tmp_path: Path) -> None:
    """Bit for bit the weights and losses of a run of the engine, with its linear schedule, on the same batches."""
    live = _session(folder, method=method)
    events = [event for event in run_session(live) if isinstance(event, StepDone)]
    other = _session(folder, method=method)
    trainer = _trainer(other, tmp_path, {"lr_scheduler_type": "linear"}, method=method)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses == pytest.approx([event.loss for event in events], rel=1e-6)  # the log is in float32
    assert other.fingerprint() == live.fingerprint()


def test_a_checkpoint_goes_on_bitwise(folder: Path, tmp_path: Path) -> None:
    """Stopped after two of four steps and resumed by a new trainer, momentum included."""
    whole, part = _session(folder), _session(folder)
    _trainer(whole, tmp_path / "whole", update="momentum").train()
    saving = {"save_strategy": "steps", "save_steps": 2}
    stopping = _trainer(part, tmp_path / "part", saving, update="momentum", callbacks=[_StopAfter(2)])
    stopping.train()
    assert part.fingerprint() != whole.fingerprint()
    again = _session(folder)
    _trainer(again, tmp_path / "part", saving, update="momentum").train(resume_from_checkpoint=True)
    assert again.fingerprint() == whole.fingerprint()


class _StopAfter(TrainerCallback):
    """A callback as users write them."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop there."""
        control.should_training_stop = state.global_step >= self.step


def test_metrics_checkpoints_and_logs_are_the_trainers(folder: Path, tmp_path: Path) -> None:
    """`compute_metrics`, evaluation while training, saving, and logs that have a projected gradient and no norm."""
    session = _session(folder)
    more = {"eval_dataset": list(session.task.dev[:8]), "compute_metrics": lambda p: {"answers": len(p.label_ids)}}
    trainer = _trainer(session, tmp_path, {"eval_strategy": "steps", "eval_steps": 2}, **more)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    history = trainer.state.log_history
    assert [entry["eval_answers"] for entry in history if "eval_answers" in entry] == [8, 8]
    steps = [entry for entry in history if "loss" in entry]
    assert len(steps) == STEPS and all(entry["projected_grad"] > 0 for entry in steps)
    assert not any("grad_norm" in entry for entry in history)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"] == "bert"
    assert all(parameter.grad is None for parameter in session.loaded.model.parameters())


def test_adapters_alone_move(folder: Path, tmp_path: Path) -> None:
    """With a PEFT model the base stays bitwise, and the adapters move."""
    from peft import LoraConfig, TaskType, get_peft_model

    session = _session(folder)
    rows = session.objective
    adapted = get_peft_model(
        session.loaded.model.requires_grad_(True), LoraConfig(task_type=TaskType.SEQ_CLS, target_modules=["query"])
    )
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    examples = list(session.task.train[:8])

    def collate(chosen: list[Any]) -> dict[str, Tensor]:
        batch = rows.batch(chosen)
        return {**batch.inputs, "labels": batch.labels}

    ZOTrainer(adapted, _arguments(tmp_path), train_dataset=examples, data_collator=collate).train()
    moved = {name for name, value in adapted.state_dict().items() if not torch.equal(before[name], value)}
    assert moved and all("lora_" in name or "modules_to_save" in name for name in moved)


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    """In one sentence, before anything runs."""
    model = tiny.model("bert", "classifier").requires_grad_(True)
    sgd, accumulating = torch.optim.SGD(model.parameters(), lr=1e-3), {"gradient_accumulation_steps": 2}
    with pytest.raises(ValueError, match="gradient_accumulation_steps .* do not go together"):
        ZOTrainer(model, _arguments(tmp_path, **accumulating), train_dataset=[])
    with pytest.raises(ValueError, match="an optimizer of your own"):
        ZOTrainer(model, _arguments(tmp_path), train_dataset=[], optimizers=(sgd, None))
    trainer = ZOTrainer(model, _arguments(tmp_path), train_dataset=[], method="feedback")
    with pytest.raises(ValueError, match="feedback needs label scores"):
        trainer.create_optimizer()
