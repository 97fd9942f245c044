"""`zocore.ZeroOrder`: a torch optimizer that takes the engine's steps, for any model and any loss."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support import tiny
from zocore import RunConfig, StepDone, ZeroOrder, open_session
from zocore.directions.laws import law
from zocore.methods import METHODS, build
from zocore.runs.loop import run_session

ON_A_LOSS = ["mezo", "n-spsa", "mezo-gv", "mezo-greedy", "fzoo", "openai-es"]
UPDATED = [*((method, "auto") for method in ON_A_LOSS), ("mezo", "adam"), ("fzoo", "momentum")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama."""
    return tiny.save(tmp_path_factory.mktemp("model"), "llama")


def _config(folder: Path, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {"steps": 3, "batch_size": 4, "eval_examples": 4, "lr": 1e-3, "eps": 1e-3, "seed": 3}
    return RunConfig(model=str(folder), subspace="all", schedule="constant", **settings | changes)


def _weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _network(dtype: torch.dtype = torch.float32) -> tuple[Any, Callable[[], Tensor]]:
    """A model that is no language model, with a weight that is read outside its module, and a loss to lower."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Tanh(), nn.Linear(12, 2)).to(dtype)
        inputs, targets = torch.randn(8, 2, 6).to(dtype), torch.randint(0, 2, (8,))
    return model, lambda: nn.functional.cross_entropy(model(inputs).float(), targets)


@pytest.mark.parametrize("whole", [True, False], ids=["model", "parameters"])
@pytest.mark.parametrize(("method", "update"), UPDATED)
def test_its_steps_are_the_engines(method: str, update: str, whole: bool, folder: Path) -> None:
    """On the same model, seed and batches, weights and losses are equal bit for bit, by either carrier."""
    live = open_session(_config(folder, method=method, update=update))
    events = [event for event in run_session(live) if isinstance(event, StepDone)]
    other = open_session(_config(folder, method=method, update=update))
    other.loaded.model.requires_grad_(True)
    params = other.loaded.model if whole else other.loaded.model.named_parameters()
    optimizer = ZeroOrder(params, lr=1e-3, eps=1e-3, method=method, update=update, seed=3)
    before = _weights(other.loaded.model)
    for number, event in enumerate(events, start=1):
        batch = other.objective.batch(other.examples(number))
        assert optimizer.step(lambda batch=batch: other.objective.losses(batch)) == event.loss
        assert optimizer.last.measured.projected_grad.tolist() == event.projected_grads
    assert other.fingerprint() == live.fingerprint()
    assert not _same(before, _weights(other.loaded.model))


@pytest.mark.parametrize("method", ON_A_LOSS)
def test_any_torch_model_learns(method: str) -> None:
    """A small convolution, which is no language model: each method lowers its loss."""
    model, loss = _network()
    optimizer = ZeroOrder(model.parameters(), lr=METHODS[method].trial_lrs[0], method=method)
    first = loss().item()
    for _ in range(60):
        optimizer.step(loss)
    assert loss().item() < 0.8 * first


def test_a_loss_may_be_a_plain_number_of_a_program() -> None:
    """What is lowered needs no tensor and no gradient: here a float that ordinary Python computes."""
    weights = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = ZeroOrder([weights], lr=0.05, method="n-spsa")
    for _ in range(200):
        optimizer.step(lambda: sum((value - 1) ** 2 for value in weights.tolist()))
    assert weights.tolist() == pytest.approx([1, 1], abs=0.1)


@pytest.mark.parametrize("update", ["sgd", "momentum", "adam"])
def test_a_saved_state_goes_on_bitwise(update: str) -> None:
    """Four steps in one go, and two, a save through a file that holds only plain values, and two more are equal."""
    ends = []
    for stops in (False, True):
        model, loss = _network(torch.bfloat16)
        optimizer = ZeroOrder(model, lr=1e-2, eps=1e-2, update=update, seed=5)
        for number in range(4):
            if stops and number == 2:
                file = io.BytesIO()
                torch.save([optimizer.state_dict(), model.state_dict()], file)
                file.seek(0)
                state, weights = torch.load(file, weights_only=True)
                model, loss = _network(torch.bfloat16)
                model.load_state_dict(weights)
                optimizer = ZeroOrder(model, lr=9.0, eps=9.0, update=update)
                optimizer.load_state_dict(state)
            optimizer.step(loss)
        ends.append(_weights(model))
    assert _same(*ends)


def test_plain_descent_saves_numbers_alone() -> None:
    """Without momentum the state is a few numbers, whatever the size of the model."""
    model, loss = _network()
    optimizer = ZeroOrder(model, lr=1e-2)
    optimizer.step(loss)
    state = optimizer.state_dict()["zeroth_order"]
    assert state == {"method": "mezo", "seed": 0, "eps": 1e-3, "steps": 1, "buffers": {}}


def test_groups_have_their_own_rate_and_decay() -> None:
    """A group at rate 0 stays, the other moves by its own rate; decay shrinks the group that has it alone."""
    model, loss = _network()
    first, last = model[0], model[3]
    groups = [{"params": first.parameters(), "lr": 0.0}, {"params": last.parameters(), "weight_decay": 0.5}]
    optimizer = ZeroOrder(groups, lr=1e-2)
    frozen, before = _weights(first), last.weight.detach().clone()
    optimizer.step(loss)
    slope = float(optimizer.last.measured.projected_grad[0])
    (leaf,) = [leaf for leaf in optimizer._gathered() if leaf.tensor.shape == before.shape]
    z = optimizer.last.directions[0].tensor(leaf)
    assert _same(frozen, _weights(first))
    torch.testing.assert_close(last.weight.detach(), (1 - 1e-2 * 0.5) * before - 1e-2 * slope * z)


def test_schedulers_of_torch_set_the_rate() -> None:
    """After a scheduler has halved the rate, a step is half as long."""
    lengths = []
    for halved in (False, True):
        model, loss = _network()
        optimizer = ZeroOrder(model, lr=1e-2)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        if halved:
            optimizer.step(lambda: float("nan"))  # skipped: the weights stay
            scheduler.step()
            assert optimizer.last.skipped and scheduler.get_last_lr() == [5e-3]
            optimizer._steps = 0  # the same direction as without the skipped step
        before = _weights(model)
        optimizer.step(loss)
        lengths.append(sum(float((a - b).square().sum()) for a, b in zip(before, _weights(model), strict=True)) ** 0.5)
    assert lengths[1] == pytest.approx(lengths[0] / 2, rel=1e-4)


@pytest.mark.parametrize("whole", [True, False], ids=["model", "parameters"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_closure_that_raises_leaves_everything(whole: bool, call: int) -> None:
    """Whichever call it is, the weights are bitwise those before, and the next step is as if nothing had happened."""
    model, loss = _network()
    optimizer = ZeroOrder(model if whole else model.parameters(), lr=1e-2, method="n-spsa", directions=2)
    before, calls = _weights(model), 0

    def failing() -> Tensor:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError("the scorer is gone")
        return loss()

    with pytest.raises(OSError, match="the scorer is gone"):
        optimizer.step(failing)
    assert _same(before, _weights(model))
    optimizer.step(loss)
    clean, clean_loss = _network()
    ZeroOrder(clean if whole else clean.parameters(), lr=1e-2, method="n-spsa", directions=2).step(clean_loss)
    assert _same(_weights(model), _weights(clean))


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ON_A_LOSS])
def test_methods_that_need_more_than_a_loss_are_refused(method: str) -> None:
    """In one sentence that names the method, the reason and what to take."""
    with pytest.raises(ValueError, match=f"^{method} [^.]+: take mezo, [^.]+$|^{method} [^.]+ take mezo, [^.]+$"):
        ZeroOrder(nn.Linear(2, 1), lr=1e-3, method=method)


def test_bad_input_is_one_sentence() -> None:
    """A closure that is missing, calls backward or gives a matrix; nothing to move; a sparse law; a foreign state."""
    model, loss = _network()
    optimizer = ZeroOrder(model, lr=1e-3)
    with pytest.raises(TypeError, match="needs a closure"):
        optimizer.step()
    with pytest.raises(RuntimeError, match="calls backward"):
        optimizer.step(lambda: (loss().backward(), loss())[1])
    with pytest.raises(TypeError, match=r"one number or one per example, not \(2, 2\)"):
        optimizer.step(lambda: torch.ones(2, 2))
    with pytest.raises(ValueError, match="no parameter can move"):
        ZeroOrder(nn.Linear(2, 1).requires_grad_(False), lr=1e-3).step(lambda: 1.0)
    with pytest.raises(ValueError, match="a sparse law"):
        ZeroOrder(model, lr=1e-3, law=law(keep=0.5))
    with pytest.raises(ValueError, match="of another optimizer"):
        optimizer.load_state_dict(torch.optim.SGD(model.parameters(), lr=1e-3).state_dict())
    with pytest.raises(ValueError, match="unknown update 'nesterov'"):
        ZeroOrder(model, lr=1e-3, update="nesterov")
    with pytest.raises(ValueError, match="belong into the method"):
        ZeroOrder(model, lr=1e-3, method=build("mezo"), directions=3)


def test_frozen_parameters_and_unread_modules_stay() -> None:
    """What has requires_grad=False does not move, and a module that the loss never runs is left out."""
    model, loss = _network()
    model[0].requires_grad_(False)
    model.add_module("unused", nn.Linear(2, 2))
    run_alone = nn.Sequential(*list(model.children())[:4])
    inputs = torch.ones(1, 2, 6)
    before = [*_weights(model[0]), *_weights(model.unused)]
    optimizer = ZeroOrder(model, lr=1e-2)
    for _ in range(2):
        optimizer.step(lambda: run_alone(inputs).square().sum())
    assert _same(before, [*_weights(model[0]), *_weights(model.unused)])
    assert loss() is not None and optimizer.last.measured.projected_grad.abs() > 0


def test_weights_that_move_to_other_storage_are_followed() -> None:
    """After `.double()` replaced every tensor, steps go on with the model's own weights."""
    model, _ = _network()
    optimizer = ZeroOrder(model.parameters(), lr=1e-2)
    optimizer.step(lambda: sum(float(p.square().sum()) for p in model.parameters()))
    model.double()
    before = _weights(model)
    optimizer.step(lambda: sum(float(p.square().sum()) for p in model.parameters()))
    assert not _same(before, _weights(model))
