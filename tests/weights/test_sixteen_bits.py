"""16-bit weights: small updates add up on average, int8 layers keep their activations, and drowned slopes are told."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from zocore.config import RunConfig
from zocore.directions.laws import Direction, Rademacher
from zocore.noise.addressed import Key
from zocore.runs.events import Warned
from zocore.runs.loop import run
from zocore.runs.opening import open_session
from zocore.runs.rounding_share import DROWNED, rounding_share
from zocore.step.step import Method
from zocore.step.update import Sgd, estimate
from zocore.subspaces import quantised
from zocore.weights.leaf import Leaf


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_updates_of_a_hundredth_of_a_spacing_move_the_mean(dtype: torch.dtype) -> None:
    """200 steps of 1/100 spacing along one direction move the weights by 2 spacings on average, within 5 errors.

    Rounded to nearest they would not move at all.
    """
    start, steps, count = 1.0, 200, 20_000
    spacing = float(torch.nextafter(torch.tensor(start, dtype=dtype), torch.tensor(2.0, dtype=dtype)).double()) - start
    leaf = Leaf("w", 0, torch.full((count // 100, 100), start, dtype=dtype), ())
    direction = Direction(Key(0, 0), Rademacher())
    z, lr = direction.tensor(leaf), spacing / 100
    for number in range(steps):
        Sgd()(leaf, estimate([direction], [-1.0]), lr, Key(0, number), {})
    moved = (leaf.tensor.double() - start) * z / spacing
    up = moved[z > 0]  # below a power of two the spacing is half as wide
    error = float(up.std()) / len(up) ** 0.5
    assert abs(float(up.mean()) - steps / 100) < 5 * error < 0.2
    nearest = torch.full((1,), start, dtype=dtype)
    for _ in range(steps):
        nearest = (nearest.float() + lr).to(dtype)
    assert float(nearest) == start


class Int8(nn.Linear):
    """What bitsandbytes leaves of a layer on a device: codes and the scale of each row."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height)
        self.weight.data = torch.randn(height, width)
        largest = self.weight.data.abs().amax(1)
        codes = (self.weight.data * (127 / largest).unsqueeze(1)).round().to(torch.int8)
        self.weight.CB = None  # type: ignore[attr-defined]
        self.state = SimpleNamespace(CB=codes, SCB=largest, has_fp16_weights=False)


def test_int8_layers_quantise_no_activations_off_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off the CPU a layer's forward is its codes times its scales, exactly, also after `eval` and as scales move."""
    layer = Int8(16, 8)
    codes = layer.state.CB

    class Elsewhere:
        """The codes, which say that they are on a GPU; everything else of them is true."""

        device = torch.device("cuda", 0)

        def to(self, dtype: torch.dtype) -> torch.Tensor:
            return codes.to(dtype)

    layer.state.CB = Elsewhere()
    quantised.prepare(nn.Sequential(layer))
    layer.state.CB = codes
    layer.eval()
    x = torch.randn(3, 16)
    for scale in (1.0, 1.001):
        layer.state.SCB.mul_(scale)
        weight = codes.float() * (layer.state.SCB.unsqueeze(1) * (1.0 / 127.0))
        assert torch.equal(layer(x), nn.functional.linear(x, weight, layer.bias))
    assert getattr(layer.forward, "func", None) is quantised.exact_int8


@pytest.mark.slow
def test_slopes_that_drown_in_rounding_are_told_before_the_first_step() -> None:
    """On the bundled model bfloat16 drowns GRZO's slopes, not MeZO's; float16 and float32 neither; a run says so."""
    shares: dict[tuple[str, str], float] = {}
    for method, dtype in (("grzo", "bf16"), ("grzo", "fp16"), ("grzo", "fp32"), ("mezo", "bf16")):
        s = open_session(RunConfig(method=method, task="sentiment", dtype=dtype, device="cpu"))
        assert s.config.eps is not None
        assert isinstance(s.method, Method)
        shares[method, dtype] = rounding_share(s.method, s.losses(1), s.key(1), s.config.eps) or 0.0
    assert shares["grzo", "bf16"] > DROWNED > shares["mezo", "bf16"] > shares["grzo", "fp16"] > shares["grzo", "fp32"]
    config = RunConfig(method="grzo", task="sentiment", dtype="bf16", steps=1, eval_examples=8, device="cpu")
    said = [event.message for event in run(config) if isinstance(event, Warned)]
    assert any("is rounding in bf16" in message and "--dtype fp32" in message for message in said)
    assert not [e for e in run(replace(config, dtype="fp16")) if isinstance(e, Warned) and "rounding" in e.message]
