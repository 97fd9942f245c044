"""The methods as a `torch.optim.Optimizer`: any torch model, any loss, no backward.

    optimizer = ZeroOrder(model, lr=1e-3, method="mezo")
    loss = optimizer.step(lambda: loss_function(model(inputs), targets))

A step is that of the engine, made of the same sampler, difference, shaping and update. What it asks of the closure is
the loss of the whole batch, so methods that need a direction for each example, or label scores, are refused.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from zocore.carriers.carrier import Carrier
from zocore.carriers.copies import Copies
from zocore.carriers.layout import Layout
from zocore.carriers.scratch import Scratch, unreached
from zocore.directions.laws import SharedDirection
from zocore.methods import METHODS, build
from zocore.noise.addressed import Key
from zocore.step.losses import Losses, Part
from zocore.step.step import Method, Step, Stepper
from zocore.step.update import UPDATES, State, Update
from zocore.subspaces.by_name import all_weights, without
from zocore.weights.leaf import Leaf, ParameterSite

Loss = Tensor | float
Closure = Callable[[], Loss]
ON_A_LOSS = "mezo, n-spsa, mezo-gv, mezo-greedy, fzoo or openai-es"


class ZeroOrder(torch.optim.Optimizer):
    """Zeroth-order descent on what a closure returns, from forward passes alone.

    `params` is a model, or what torch's optimizers take: parameters, named parameters or groups, each group with an
    `lr` and a `weight_decay` of its own. Parameters with `requires_grad=False` stay. `eps` is the distance of the
    probes; `update` is sgd, momentum, adam or an update rule; further options are the method's own, such as
    `directions=4`. With a model, or with `model=`, probes take one more buffer of its largest layer, and each weight
    has to be read by its own module's forward; without, one more copy of all that moves, and any forward will do.
    Noise depends on `seed`, the step and a parameter's place, so steps are the same in any dtype and on any device.

    Put the model into eval mode: dropout would give each forward of a step another loss. Raises ValueError with one
    sentence when the method needs more than a loss of the whole batch, or nothing can move.
    """

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        lr: float,
        eps: float = 1e-3,
        method: str | Stepper = "mezo",
        *,
        seed: int = 0,
        update: str | Update = "auto",
        weight_decay: float = 0.0,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        if not (lr >= 0 and eps > 0):
            raise ValueError(f"lr must be 0 or more and eps above 0, not {lr} and {eps}")
        self._method = _on_a_loss(method, update, options)
        self._eps, self._seed, self._steps = eps, seed, 0
        self._buffers: State = {}
        self._model = params if isinstance(params, nn.Module) else model
        self._leaves: list[Leaf] = []
        self._carrier: Carrier[SharedDirection] | None = None
        self.last: Step | None = None  # what the last step measured and did
        given = params.named_parameters() if isinstance(params, nn.Module) else params
        super().__init__(given, {"lr": lr, "weight_decay": weight_decay})

    def step(self, closure: Closure | None = None) -> float:  # type: ignore[override]
        """Do one step and return the mean of the losses it saw.

        `closure` returns the loss of the batch, a scalar or one number per example (B,), the same batch each time it
        is called. A loss that is not finite skips the step; whatever the closure raises leaves the weights as they
        were. Raises TypeError without a closure and for any other answer of it.
        """
        if closure is None:
            raise TypeError("ZeroOrder.step needs a closure that returns the loss: it asks for it several times")
        leaves = self._gathered(closure)
        assert self._carrier is not None
        key, (rows, forward) = Key(self._seed, self._steps + 1), (torch.zeros(1, dtype=torch.int64), _asked(closure))
        losses = Losses([Part(Layout(rows), forward)], leaves, self._carrier)
        done, trace = self._method.ask(losses, key, self._eps)
        if not done.skipped:
            for group in self.param_groups:
                update = replace(self._method.update, decay=group["weight_decay"])  # type: ignore[type-var]
                rule = replace(self._method, update=update)
                some, coefficients, lr = self._of(group), done.coefficients, float(group["lr"])
                rule.apply(some, done.directions, coefficients, trace, key, lr, self._buffers)
        self._steps, self.last = self._steps + 1, done
        return done.loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Let more parameters move from the next step on."""
        super().add_param_group(param_group)
        self._leaves = []

    def state_dict(self) -> dict[str, Any]:
        """Return what a later `load_state_dict` needs to go on bit for bit: a few numbers, and an update's buffers."""
        buffers: dict[str, dict[int, Tensor]] = {}
        for (name, leaf), tensor in self._buffers.items():
            buffers.setdefault(name, {})[leaf] = tensor
        facts = {"method": self._method.name, "seed": self._seed, "eps": self._eps, "steps": self._steps}
        return super().state_dict() | {"zeroth_order": facts | {"buffers": buffers}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken. Raises ValueError when it is not of this method."""
        state = state_dict.get("zeroth_order")
        if state is None or state["method"] != self._method.name:
            name = "another optimizer" if state is None else state["method"]
            raise ValueError(f"this state is of {name}, not of {self._method.name}: take the method it was saved with")
        super().load_state_dict(state_dict)
        self._seed, self._eps, self._steps = state["seed"], state["eps"], state["steps"]
        devices = {leaf.id: leaf.tensor.device for leaf in self._gathered()}
        self._buffers = {
            (name, leaf): tensor.to(devices[leaf] if tensor.ndim else tensor.device, copy=True)
            for name, tensors in state["buffers"].items()
            for leaf, tensor in tensors.items()
        }

    def _gathered(self, closure: Closure | None = None) -> list[Leaf]:
        """The leaves, made anew when parameters were added or given other storage; ids stay."""
        moved = any(leaf.tensor.data_ptr() != _parameter(leaf).data_ptr() for leaf in self._leaves)
        if moved or not self._leaves:
            leaves = self._found()
            if not leaves:
                raise ValueError("no parameter can move: set requires_grad_(True) on floating-point ones")
            self._leaves, self._carrier = leaves, None
        if self._carrier is None and closure is not None:
            self._carry(closure)
        return self._leaves

    def _carry(self, closure: Closure) -> None:
        """Choose the carrier; with a model, one forward finds the weights that the loss does not depend on."""
        if self._model is None:
            self._carrier = Copies(self._leaves)
            return
        with torch.no_grad():
            unread = unreached(self._leaves, _asked(closure))
        self._leaves = without(self._leaves, unread)
        self._carrier = Scratch(self._leaves)

    def _found(self) -> list[Leaf]:
        """Every parameter of the groups that may move, as a leaf."""
        given = [parameter for group in self.param_groups for parameter in group["params"]]
        if self._model is None:
            names = [name for group in self.param_groups for name in group.get("param_names", ())]
            leaves = all_weights(_Holder(given))
            leaves = [replace(leaf, name=names[int(leaf.name)]) for leaf in leaves] if names else leaves
        else:
            chosen = {id(parameter) for parameter in given}
            leaves = [leaf for leaf in all_weights(self._model) if id(_parameter(leaf)) in chosen]
        return [replace(leaf, decay=True) for leaf in leaves if _parameter(leaf).requires_grad]

    def _of(self, group: dict[str, Any]) -> list[Leaf]:
        members = {id(parameter) for parameter in group["params"]}
        return [leaf for leaf in self._leaves if id(_parameter(leaf)) in members]


class _Holder(nn.Module):
    """Parameters without their modules, named by their numbers."""

    def __init__(self, parameters: Sequence[Any]) -> None:
        super().__init__()
        for number, parameter in enumerate(parameters):
            self._parameters[str(number)] = parameter


def _parameter(leaf: Leaf) -> nn.Parameter:
    site = leaf.sites[0]
    assert isinstance(site, ParameterSite)
    return site.parameter


def _on_a_loss(method: str | Stepper, update: str | Update, options: dict[str, Any]) -> Method:
    """The method with its options and rule. Raises ValueError when a closure's loss is not all that it needs."""
    if not isinstance(method, str):
        chosen: Any = method
        if options or update != "auto":
            raise ValueError("options and update belong into the method when it is given as a value")
    else:
        if isinstance(update, str) and update != "auto" and update not in UPDATES:
            raise ValueError(f"unknown update {update!r}: choose one of {', '.join(UPDATES)}, or give a rule")
        rule = update if not isinstance(update, str) else UPDATES[update]() if update != "auto" else None
        chosen = build(method, **options, **({} if rule is None else {"update": rule}))
        if METHODS[method].home == "scales":
            raise ValueError(f"{method} moves quantisation scales, which are no parameters: take {ON_A_LOSS}")
    if not isinstance(chosen, Method) or chosen.pushes or chosen.per_example:
        reason = "takes gradients" if not chosen.zeroth_order else "needs label scores and the outputs of layers"
        if getattr(chosen, "per_example", False):
            reason = "needs a loss of each example, with a direction of its own inside the layers"
        raise ValueError(f"{chosen.name} {reason}, and a closure gives the loss of the whole batch: take {ON_A_LOSS}")
    if chosen.law.reads_weights:
        raise ValueError("a sparse law fixes its thresholds at the start of a recorded run: take another law here")
    return chosen


def _asked(closure: Closure) -> Callable[[], Tensor]:
    """The closure's loss (1,) in float64, which the engine averages in too."""

    def forward() -> Tensor:
        try:
            loss = torch.as_tensor(closure())
        except RuntimeError as error:
            if "does not require grad" in str(error):
                raise RuntimeError("the closure calls backward(): it has only to return the loss") from error
            raise
        if loss.ndim > 1 or not loss.numel():
            raise TypeError(f"the closure must return the loss, one number or one per example, not {tuple(loss.shape)}")
        return loss.double().mean().reshape(1)

    return forward
