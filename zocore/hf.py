"""The methods inside transformers' `Trainer`: arguments, callbacks, metrics, checkpoints, logging as people know them.

    trainer = ZOTrainer(model=model, args=args, train_dataset=rows, method="mezo", eps=1e-3)
    trainer.train(resume_from_checkpoint=True)

Only the step is another one: forward passes in eval mode in place of a forward, a backward and an optimizer's step.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from zocore.optimizer import Closure, ZeroOrder
from zocore.step.step import Stepper
from zocore.step.update import Update


class ZOTrainer(Trainer):
    """A `Trainer` that computes no gradient and keeps no optimizer state, for the methods of `ZeroOrder`.

    `method`, `eps`, `update` and `options` are those of `ZeroOrder`; all else is the `Trainer`'s. Learning rate, its
    schedule, weight decay and seed are those of the arguments; `optim` and `max_grad_norm` mean nothing here. Logs have
    `projected_grad` (root mean square) in the place of `grad_norm`. Raises ValueError with one sentence for what
    cannot work: an optimizer of one's own, gradient accumulation, float16 scaling, several processes or GPUs.
    """

    def __init__(
        self,
        *args: Any,
        method: str | Stepper = "mezo",
        eps: float = 1e-3,
        update: str | Update = "auto",
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._check()
        self._settings = {"method": method, "eps": eps, "update": update, **(options or {})}

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer of the parameters that have `requires_grad`, with decay where the `Trainer` has it."""
        if self.optimizer is None:
            whole: Any = self.model if model is None else model
            decaying = set(self.get_decay_parameter_names(whole))
            named = [pair for pair in whole.named_parameters() if pair[1].requires_grad]
            groups: list[dict[str, Any]] = [
                {"params": [pair for pair in named if pair[0] in decaying], "weight_decay": self.args.weight_decay},
                {"params": [pair for pair in named if pair[0] not in decaying]},
            ]
            groups = [group for group in groups if group["params"]]
            rate, seed = self.args.learning_rate, self.args.seed
            self.optimizer = _StepTaken(groups, rate, seed=seed, model=whole, **self._settings)
        return self.optimizer

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Take the step, the same inputs in each of its forwards; return the mean of their losses."""
        model.eval()  # dropout would give each forward another loss
        inputs = self._prepare_inputs(inputs)

        def closure() -> Tensor:
            with self.compute_loss_context_manager():
                loss: Any = self.compute_loss(model, dict(inputs), num_items_in_batch=num_items_in_batch)
            return loss

        optimizer: Any = self.optimizer
        optimizer.step(closure)
        return torch.tensor(_last(optimizer).loss, device=self.args.device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log what a step measured where a `Trainer` logs the norm of a gradient."""
        if logs.pop("grad_norm", None) is not None:
            measured = _last(self.optimizer).measured
            logs["projected_grad"] = float(measured.projected_grad.square().mean().sqrt())
        super().log(logs, start_time)

    def _check(self) -> None:
        args = self.args
        wrong = {
            "an optimizer of your own": self.optimizer is not None or self.optimizer_cls_and_kwargs is not None,
            "gradient_accumulation_steps (take a larger batch: without a backward it needs little memory)": (
                args.gradient_accumulation_steps > 1
            ),
            "fp16 (take bf16, or load the model in the dtype you want)": args.fp16,
            "several processes or GPUs (take one, or `torchrun -m zocore train`)": args.world_size > 1
            or args.n_gpu > 1,
        }
        for what, given in wrong.items():
            if given:
                raise ValueError(f"ZOTrainer and {what} do not go together")


class _StepTaken(ZeroOrder):
    """The optimizer as the `Trainer` calls it: once more after `training_step`, which has taken the step."""

    def step(self, closure: Closure | None = None) -> float:  # type: ignore[override]
        """Take the step of a closure; without one there is nothing left to do."""
        return super().step(closure) if closure is not None else 0.0


def _last(optimizer: Any) -> Any:
    """The last step of an optimizer, which accelerate has wrapped."""
    return getattr(optimizer, "optimizer", optimizer).last
