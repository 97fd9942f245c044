"""Quantisation scales as leaves: exact probes, exact restore, codes that never change, the file of scales."""

import hashlib
import math
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bitsandbytes import functional as kernels
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from tests.support.allocations import peak
from zocore.carriers.flipout import Flipout, matmul_weights
from zocore.carriers.in_place import InPlace
from zocore.carriers.layout import Layout
from zocore.carriers.scratch import Scratch
from zocore.directions.laws import Direction, Gaussian, law
from zocore.directions.per_example import PerExample
from zocore.errors import InputError
from zocore.methods import build
from zocore.noise.addressed import Key
from zocore.runs.delta import codes_fingerprint, read_delta, save_delta
from zocore.step.difference import Central, Measured
from zocore.step.losses import Losses, Part
from zocore.step.shaping import Clip
from zocore.subspaces.by_name import all_weights
from zocore.subspaces.quantised import is_four_bit, prepare, quant_scales, quantised
from zocore.weights.leaf import Leaf

QUANTISERS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4-double": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "fp4-double": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True},
    "int8": {"load_in_8bit": True},
}
EVERY = pytest.mark.parametrize("quantiser", QUANTISERS)
SOME = pytest.mark.parametrize("quantiser", ["nf4", "fp4-double", "int8"])
MODELS = pytest.mark.parametrize("family", ["llama", "opt"])
METHODS: dict[str, dict[str, Any]] = {
    "qzo": {},
    "qzo-4": {"directions": 4},
    "grzo": {},
    "mezo-gv": {},
}
FOLDER = TemporaryDirectory(prefix="zocore-quant-")
VOCABULARY, EXAMPLES, TOKENS = 97, 5, 7
KEY = Key(seed=3, step=1)


@dataclass
class Case:
    """A tiny quantised model, its scales and the losses of one batch."""

    model: Any
    leaves: list[Leaf]
    ids: Tensor
    targets: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        logits = self.model(input_ids=self.ids[rows]).logits[:, -1].float()
        return functional.cross_entropy(logits, self.targets[rows], reduction="none")

    def losses(self, rows: Tensor | None = None) -> Losses:
        rows = torch.arange(len(self.ids)) if rows is None else rows
        mask = torch.ones(len(rows), TOKENS, dtype=torch.bool)
        part = Part(Layout(torch.arange(len(rows)), mask), lambda: self.forward(rows))
        straddling = any(leaf.name.endswith("absmax") and leaf.tensor.ndim == 1 for leaf in self.leaves)
        per_example = None if straddling else Flipout(self.leaves, matmul_weights(self.model))
        return Losses([part], self.leaves, Scratch(self.leaves), per_example)

    def step(self, method: str, lr: float = 1e-4, eps: float = 1e-3, step: int = 1) -> Any:
        knobs = METHODS[method]
        return build(method.removesuffix("-4"), **knobs).step(self.leaves, self.losses(), Key(3, step), lr, eps, {})

    def masters(self) -> list[Tensor]:
        return [leaf.tensor.clone() for leaf in self.leaves]


@cache
def base(family: str, hidden: int = 64) -> str:
    """Folder of a random model in float32, its weights large enough for the losses to feel them."""
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "use_cache": False,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(0)
    if family == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=128, initializer_range=0.1))
    else:
        extra: dict[str, Any] = {
            "ffn_dim": 128,
            "word_embed_proj_dim": hidden,
            "init_std": 0.1,
            "dropout": 0.0,
        }
        model = OPTForCausalLM(OPTConfig(**sizes, **extra))
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero at first, which would hide a mistake
                parameter.data.normal_(std=0.1)
    folder = f"{FOLDER.name}/{family}-{hidden}"
    model.save_pretrained(folder)
    return folder


def raw(family: str, quantiser: str, hidden: int = 64) -> Any:
    """A quantised model as transformers loads it, before anything prepared it."""
    settings = BitsAndBytesConfig(**QUANTISERS[quantiser])
    return AutoModelForCausalLM.from_pretrained(base(family, hidden), quantization_config=settings)


def load(family: str, quantiser: str, pattern: str = "", hidden: int = 64) -> Case:
    model = raw(family, quantiser, hidden)
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (EXAMPLES, TOKENS), generator=g)
    targets = torch.randint(3, VOCABULARY, (EXAMPLES,), generator=g)
    case = Case(model, quant_scales(model, pattern), ids, targets)
    model.eval()  # as any code may do afterwards
    return case


def live(leaf: Leaf) -> Tensor:
    """The scales the layer reads."""
    module: Any = leaf.sites[0].module
    return module.weight.quant_state.absmax if is_four_bit(module) else module.state.SCB


def unit_codes(module: Any) -> Tensor:
    """The weight (N, K) with every scale 1, by the library's own kernels."""
    if not is_four_bit(module):
        return module.weight.data.float() / 127
    state = copy(module.weight.quant_state)
    state.absmax = torch.ones_like(state.absmax)
    return kernels.dequantize_4bit(module.weight.data, state)


def expand(scales: Tensor, codes: Tensor) -> Tensor:
    """Scales (N, G) or (N,) as a weight-shaped tensor (N, K)."""
    matrix = scales.reshape(codes.shape[0], -1)
    return matrix.repeat_interleave(codes.shape[1] // matrix.shape[1], dim=1)


def digest(model: nn.Module) -> str:
    """Hash of everything the model holds except its scales."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor) and not name.endswith(("absmax", "SCB")):
            found.update(name.encode() + tensor.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


# What the scales are


@EVERY
@MODELS
def test_leaves_hold_every_scale_once(family: str, quantiser: str) -> None:
    case = load(family, quantiser)
    layers = dict(quantised(case.model))
    assert len(case.leaves) == len(layers) == {"llama": 14, "opt": 12}[family]
    assert not any("lm_head" in leaf.name or "embed" in leaf.name for leaf in case.leaves)
    for leaf, module in zip(case.leaves, layers.values(), strict=True):
        rows, width = module.out_features, module.in_features
        four = quantiser != "int8"
        assert leaf.tensor.shape == ((rows, width // 64) if four else (rows,))
        assert leaf.products == (rows * width if four else 0)
        assert leaf.tensor.dtype == torch.float32 and leaf.floor == 1e-7 and not leaf.decay
        assert torch.equal(live(leaf).view(-1), leaf.tensor.view(-1))
        assert live(leaf).data_ptr() != leaf.tensor.data_ptr()


def test_ids_never_meet_those_of_parameters_and_do_not_depend_on_the_pattern() -> None:
    case = load("opt", "nf4")
    numbers = [leaf.id for leaf in all_weights(case.model) + case.leaves]
    assert len(set(numbers)) == len(numbers)
    chosen = quant_scales(case.model, "fc1")
    assert {leaf.name: leaf.id for leaf in chosen}.items() <= {leaf.name: leaf.id for leaf in case.leaves}.items()
    assert len(chosen) == 2


def test_layers_that_share_a_weight_share_a_leaf() -> None:
    first, second = (Linear4bit(64, 64, quant_type="nf4").to("cpu") for _ in range(2))
    second.weight = first.weight
    (leaf,) = quant_scales(nn.Sequential(first, second))
    assert [site.module for site in leaf.sites] == [first, second]


# Traps


@pytest.mark.parametrize("quantiser", ["nf4-double", "fp4-double"])
def test_un_nesting_changes_nothing(quantiser: str) -> None:
    case = load("llama", quantiser)
    model = raw("llama", quantiser)
    for _, module in quantised(model):
        assert module.weight.quant_state.nested
        module.support_avx512bf16_for_cpu = False
    with torch.no_grad():
        assert torch.equal(model(case.ids).logits, case.model(case.ids).logits)
    assert all(live(leaf).dtype == torch.float32 for leaf in case.leaves)


def test_no_forward_packs_the_scales() -> None:
    case = load("llama", "nf4")
    pointers = [live(leaf).data_ptr() for leaf in case.leaves]
    with torch.no_grad():
        case.model.eval()(case.ids)
    assert [live(leaf).data_ptr() for leaf in case.leaves] == pointers
    assert not any(hasattr(m.weight.quant_state, "packing_format_for_cpu") for _, m in quantised(case.model))


def test_packed_models_are_refused_by_prepare_and_by_a_step() -> None:
    case = load("llama", "nf4")
    module: Any = case.leaves[3].sites[0].module
    module.weight.quant_state.packing_format_for_cpu = True  # as on a CPU with AVX512-BF16
    for attempt in (
        lambda: prepare(case.model),
        lambda: codes_fingerprint(case.model),
        lambda: case.step("qzo"),
    ):
        with pytest.raises(RuntimeError, match="load the model again"):
            attempt()


def test_eval_does_not_bring_back_rounded_activations() -> None:
    case = load("llama", "int8")
    plain = case.losses()()
    case.model.train()
    assert torch.equal(case.losses()(), plain)
    case.model.eval()
    assert torch.equal(case.losses()(), plain)
    weights = deepcopy(case.model)
    assert [m for m in weights.modules() if m.training] == [m for _, m in quantised(weights)]
    prepare(case.model)
    assert all(len(m._forward_pre_hooks) == 1 for _, m in quantised(case.model))


# Probes


@EVERY
@MODELS
def test_directional_derivative_is_that_of_backprop_through_the_weights(family: str, quantiser: str) -> None:
    case = load(family, quantiser)
    dense = deepcopy(case.model)
    linears: dict[str, nn.Linear] = {}
    for name, module in list(quantised(dense)):
        codes = unit_codes(module)
        scales = case.leaves[len(linears)].tensor
        linears[name] = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        linears[name].weight.data = codes * expand(scales, codes)
        linears[name].bias = module.bias
        dense.set_submodule(name, linears[name])
    exact = replace(case, model=dense).forward(torch.arange(EXAMPLES)).mean()
    assert abs(exact.item() - case.losses()().mean().item()) < 2e-6
    exact.backward()

    direction, slope, length = Direction(KEY, Gaussian()), 0.0, 0.0
    for leaf, linear in zip(case.leaves, linears.values(), strict=True):
        assert linear.weight.grad is not None
        codes = unit_codes(leaf.sites[0].module)
        gradient = codes * linear.weight.grad  # dL/d scale = sum over its weights of code * dL/dw
        slope += float((gradient * expand(direction.tensor(leaf), codes)).double().sum())
        grouped = gradient.view(*leaf.matrix.shape, -1)
        length += float(grouped.double().sum(-1).square().sum())
    measured = Central()(case.losses(), [direction], 3e-4).projected_grad
    # OPT's ReLUs have kinks within the probe's reach
    assert abs(float(measured) - slope) < {"llama": 0.003, "opt": 0.03}[family] * math.sqrt(length)
    assert abs(slope) > 0.05 * math.sqrt(length)


@EVERY
@MODELS
def test_probes_leave_the_scales_bitwise_where_they_were(family: str, quantiser: str) -> None:
    case = load(family, quantiser)
    before, plain = case.masters(), case.losses()()
    with case.losses().along(Direction(KEY, Gaussian())) as at:
        for cycle in range(5):
            assert not torch.equal(at(1e-3 * (cycle + 1)), at(-1e-3 * (cycle + 1)))
    assert torch.equal(case.losses()(), plain)
    for leaf in case.leaves[:3]:
        noise = torch.randn_like(leaf.tensor)
        for _ in range(1000):
            leaf.sites[0].show(leaf.tensor + 1e-3 * noise)
            leaf.sites[0].show(leaf.tensor - 1e-3 * noise)
            leaf.commit()
    assert all(torch.equal(old, leaf.tensor) for old, leaf in zip(before, case.leaves, strict=True))
    assert all(torch.equal(old.view(-1), live(leaf).view(-1)) for old, leaf in zip(before, case.leaves, strict=True))


@EVERY
def test_a_failing_forward_leaves_the_scales_where_they_were(quantiser: str) -> None:
    case = load("llama", quantiser)
    before = [live(leaf).clone() for leaf in case.leaves]
    middle: Any = case.leaves[5].sites[0].module
    handle = middle.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        case.step("qzo")
    handle.remove()
    assert all(torch.equal(old, live(leaf)) for old, leaf in zip(before, case.leaves, strict=True))


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_outputs_answer_scales_linearly(kind: str) -> None:
    torch.manual_seed(0)
    layer: Any = Linear8bitLt(128, 48, bias=False, has_fp16_weights=False)
    if kind != "int8":
        layer = Linear4bit(128, 48, bias=False, quant_type=kind, compute_dtype=torch.float32)
    layer = layer.to("cpu").eval()
    (leaf,) = quant_scales(nn.Sequential(layer))
    x, shift = torch.randn(9, 128), 0.1 * torch.randn_like(leaf.tensor)
    codes = unit_codes(layer)
    with torch.no_grad():
        plain = layer(x)
        leaf.sites[0].show(leaf.tensor * 1.25)
        scaled = layer(x)
        leaf.sites[0].show(leaf.tensor + shift)
        shifted = layer(x)
    torch.testing.assert_close(scaled, 1.25 * plain, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(shifted - plain, x @ (codes * expand(shift, codes)).T, rtol=1e-4, atol=1e-5)


# Steps


@pytest.mark.parametrize("method", METHODS)
@SOME
def test_only_scales_move(quantiser: str, method: str) -> None:
    case = load("opt", quantiser)
    before, rest, codes = case.masters(), digest(case.model), codes_fingerprint(case.model)
    pointers = [live(leaf).data_ptr() for leaf in case.leaves]
    for step in range(1, 4):
        assert not case.step(method, step=step).skipped
    assert digest(case.model) == rest and codes_fingerprint(case.model) == codes
    assert [live(leaf).data_ptr() for leaf in case.leaves] == pointers  # others may hold the tensor
    for old, leaf in zip(before, case.leaves, strict=True):
        assert not torch.equal(old, leaf.tensor)
        assert torch.equal(live(leaf).view(-1), leaf.tensor.view(-1))


@pytest.mark.parametrize("method", METHODS)
@SOME
def test_a_recording_rebuilds_the_scales_bitwise(quantiser: str, method: str) -> None:
    case, again = load("llama", quantiser), load("llama", quantiser)
    stepper: Any = build(method.removesuffix("-4"), **METHODS[method])
    for number in (1, 2, 3):
        key = Key(3, number)
        step = stepper.step(case.leaves, case.losses(), key, 1e-3, 1e-3, {})
        stepper.apply(again.leaves, step.directions, step.coefficients, None, key, 1e-3, {})
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(case.leaves, again.leaves, strict=True))
    assert torch.equal(case.losses()(), again.losses()())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_moves_nothing(method: str, bad: float) -> None:
    case = load("llama", "nf4")
    before, plain = case.masters(), case.losses()()
    forward = case.forward
    spoil = torch.tensor([1.0, 1.0, bad, 1.0, 1.0])  # one example is enough
    case.forward = lambda rows: forward(rows) * spoil  # type: ignore[method-assign]
    step = case.step(method, lr=1.0)
    case.forward = forward  # type: ignore[method-assign]
    assert step.skipped and not step.coefficients
    assert all(torch.equal(old, leaf.tensor) for old, leaf in zip(before, case.leaves, strict=True))
    assert torch.equal(case.losses()(), plain)


def test_updates_respect_the_floor_and_probes_do_not() -> None:
    case = load("llama", "nf4")
    direction, shown = Direction(KEY, Gaussian()), []
    module: Any = case.leaves[0].sites[0].module
    with case.losses().along(direction) as at:
        handle = module.register_forward_pre_hook(lambda m, _: shown.append(live(case.leaves[0]).clone()))
        at(1.0)
        handle.remove()
    torch.testing.assert_close(shown[0].view(-1, 1), case.leaves[0].tensor + direction.tensor(case.leaves[0]))
    assert shown[0].min() < -1
    case.step("qzo", lr=10.0)
    assert min(float(leaf.tensor.min()) for leaf in case.leaves) == pytest.approx(1e-7)


# One direction per example


@EVERY
@MODELS
def test_per_example_forward_is_each_example_alone(family: str, quantiser: str) -> None:
    case = load(family, quantiser)
    direction, eps = PerExample(KEY, law(), EXAMPLES), 0.02
    losses = case.losses()
    plain = losses()
    with losses.along(direction) as at:
        fused = at(eps)
    for i in range(EXAMPLES):
        for leaf in case.leaves:
            leaf.sites[0].show(leaf.tensor + eps * direction.of(leaf, i))
        alone = case.losses(torch.tensor([i]))()
        assert abs(float(alone - plain[i])) > 1e-3
        assert abs(float(alone - fused[i])) < 1e-5
        for leaf in case.leaves:
            leaf.commit()


def test_biases_beside_row_scales_stay_exact() -> None:
    case = load("opt", "int8")
    case.leaves = [leaf for leaf in all_weights(case.model) if leaf.name.endswith("fc1.bias")] + case.leaves
    direction, eps = PerExample(KEY, law(), EXAMPLES), 0.02
    with case.losses().along(direction) as at:
        fused = at(eps)
    for leaf in case.leaves:
        leaf.sites[0].show((leaf.tensor + eps * direction.of(leaf, 2)).clone())
    assert abs(float(case.losses(torch.tensor([2]))() - fused[2])) < 1e-5


@pytest.mark.parametrize("quantiser", ["nf4", "int8"])
def test_per_example_update_is_the_weighted_mean_of_directions(quantiser: str) -> None:
    case = load("llama", quantiser)
    before = case.masters()
    step = case.step("grzo", lr=1e-3)
    direction = step.directions[0]
    for old, leaf in zip(before, case.leaves, strict=True):
        wanted = sum(c * direction.of(leaf, i) for i, c in enumerate(step.coefficients))
        torch.testing.assert_close((old - leaf.tensor) / 1e-3, wanted, rtol=1e-3, atol=2e-4)


def test_row_scales_cost_no_second_product() -> None:
    direction = PerExample(KEY, law(), EXAMPLES)
    costs = {}
    for quantiser in ("nf4", "int8"):
        case = load("llama", quantiser)
        carrier = Flipout(case.leaves, sum(leaf.products or 0 for leaf in load("llama", "nf4").leaves))
        costs[quantiser] = carrier.cost(direction)
    assert costs == {"nf4": 2.0, "int8": 1.0}


def test_blocks_across_rows_take_shared_directions_only() -> None:
    case = load("llama", "nf4", "q_proj", hidden=96)
    assert [leaf.tensor.shape for leaf in case.leaves] == [(144,), (144,)]
    assert not case.step("qzo").skipped
    with pytest.raises(ValueError, match="blocks straddle rows"):
        Flipout(case.leaves, 1)


# Laws of QZO


def test_clipping_keeps_the_direction_and_shortens_by_erf() -> None:
    g = torch.Generator().manual_seed(0)
    gradient = torch.randn(12, generator=g, dtype=torch.float64)
    z = torch.randn(1_000_000, 12, generator=g, dtype=torch.float64)
    d = z @ gradient
    for ratio, known in ((0.5, 0.3829), (1.0, 0.6827), (2.0, 0.9545)):
        coefficients = Clip(ratio * float(gradient.norm()))(Measured(d, d, d))
        estimate = coefficients @ z
        assert math.erf(ratio / math.sqrt(2)) == pytest.approx(known, abs=1e-4)
        torch.testing.assert_close(estimate, known * gradient, rtol=0, atol=5e-3 * float(gradient.norm()))


class Grouped(nn.Module):
    """A float64 weight of one scale per four codes, in two layers."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(5)
        self.codes = [torch.randint(-7, 8, (8, 8), generator=g).double() / unit for _ in range(2)]
        scales = [0.05 + 0.02 * torch.rand(8, 2, generator=g, dtype=torch.float64) for _ in range(2)]
        self.scales = nn.ParameterList(nn.Parameter(unit * s, requires_grad=False) for s in scales)
        self.x = torch.randn(6, 8, generator=g, dtype=torch.float64)

    def weights(self) -> list[Tensor]:
        return [c * s.repeat_interleave(4, dim=1) for c, s in zip(self.codes, self.scales, strict=True)]

    def forward(self) -> Tensor:
        first, second = self.weights()
        return (torch.tanh(self.x @ first.T) @ second.T).square().sum(-1)


def toy_run(toy: Grouped, lr: float, eps: float, clip: float, floor: float) -> list[Tensor]:
    """Twenty steps of QZO on the toy's scales; returns its weights."""
    leaves = [replace(leaf, floor=floor) for leaf in all_weights(toy)]
    part = Part(Layout(torch.arange(6)), toy)
    for step in range(1, 21):
        method = build("qzo", clip=clip)
        method.step(leaves, Losses([part], leaves, InPlace(leaves)), Key(1, step), lr, eps, {})
    return toy.weights()


def test_rescaled_scales_follow_the_same_trajectory() -> None:
    start, k = Grouped(1.0).weights(), 6.9
    plain = toy_run(Grouped(1.0), lr=2e-5, eps=1e-4, clip=2.0, floor=1e-7)
    scaled = toy_run(Grouped(k), lr=k * k * 2e-5, eps=k * 1e-4, clip=2.0 / k, floor=k * 1e-7)
    for old, a, b in zip(start, plain, scaled, strict=True):
        assert (a - old).abs().max() > 1e-4
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_without_clip_and_floor_qzo_on_one_scale_per_weight_is_mezo() -> None:
    results = []
    for method in (build("qzo", clip=1e30), build("mezo")):
        layer = nn.Linear(6, 4, bias=False)
        layer.weight.data = torch.linspace(-1, 1, 24).view(4, 6)
        x, leaves = torch.linspace(-1, 2, 18).view(3, 6), all_weights(layer)
        part = Part(Layout(torch.arange(3)), lambda layer=layer, x=x: layer(x).square().sum(-1))  # type: ignore[misc]
        for step in range(1, 6):
            method.step(leaves, Losses([part], leaves, Scratch(leaves)), Key(1, step), 1e-2, 1e-3, {})
        results.append(layer.weight.data)
    assert torch.equal(*results)


# Refusals


def test_models_without_usable_scales_are_refused_in_one_sentence() -> None:
    plain: Any = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="load it in few bits"):
        quant_scales(plain)
    plain.config = SimpleNamespace(quantization_config=SimpleNamespace(quant_method="gptq"))
    with pytest.raises(ValueError, match="quantised by gptq are not supported: bitsandbytes NF4"):
        quant_scales(plain)
    with pytest.raises(ValueError, match="not quantised yet"):
        quant_scales(nn.Sequential(Linear4bit(64, 64)))
    with pytest.raises(ValueError, match="not quantised yet"):
        quant_scales(nn.Sequential(Linear8bitLt(64, 64)))
    model = raw("llama", "nf4")
    with pytest.raises(ValueError, match="no quantised layer matches 'nothing'"):
        quant_scales(model, "nothing")
    with pytest.raises(ValueError, match="not a regular expression"):
        quant_scales(model, "(")


def test_backprop_over_scales_is_refused() -> None:
    case = load("llama", "nf4")
    with pytest.raises(ValueError, match="not an ordinary parameter"):
        build("sgd").step(case.leaves, case.losses(), KEY, 1e-3, 1e-3, {})


# The file


def save(path: Path, leaves: list[Leaf], model: Any, name: str) -> None:
    save_delta(path, leaves, model, {"base_model": name, "base_fingerprint": ""})


def lay_over(path: Path, model: Any) -> list[Leaf]:
    """Give a fresh model a file's scales and return those."""
    delta, leaves = read_delta(path), quant_scales(model)
    delta.lay_over(leaves, model, "")
    return [leaf for leaf in leaves if leaf.name in delta.tensors]


@EVERY
def test_tuned_scales_come_back_bitwise(quantiser: str, tmp_path: Path) -> None:
    case = load("opt", quantiser)
    plain = case.losses()()
    case.step("qzo", lr=1e-3)
    tuned = case.losses()()
    assert not torch.equal(plain, tuned)
    save(tmp_path / "scales.safetensors", case.leaves, case.model, "tiny-opt")
    fresh = replace(case, model=raw("opt", quantiser))
    fresh.leaves = lay_over(tmp_path / "scales.safetensors", fresh.model)
    assert torch.equal(fresh.losses()(), tuned)
    assert (tmp_path / "scales.safetensors").stat().st_size < 4 * sum(x.numel() for x in case.masters()) + 4000


@EVERY
def test_a_whole_saved_model_comes_back_bitwise(quantiser: str, tmp_path: Path) -> None:
    case = load("llama", quantiser)
    case.step("qzo", lr=1e-3)
    tuned = case.losses()()
    case.model.save_pretrained(tmp_path)
    fresh = replace(case, model=AutoModelForCausalLM.from_pretrained(tmp_path))
    fresh.leaves = quant_scales(fresh.model)
    assert torch.equal(fresh.losses()(), tuned)


def saved(case: Case, path: Path) -> Path:
    save(path / "s.safetensors", case.leaves, case.model, "tiny")
    return path / "s.safetensors"


def test_files_of_another_model_are_refused(tmp_path: Path) -> None:
    path = saved(load("llama", "nf4"), tmp_path)
    refusals: dict[str, Callable[[], Any]] = {
        "other quantised weights": lambda: lay_over(path, raw("llama", "fp4")),
        "this model has no model.layers": lambda: lay_over(path, raw("opt", "nf4")),
        "has shape": lambda: lay_over(path, raw("llama", "nf4", 128)),
        "there is no file": lambda: lay_over(tmp_path / "absent", raw("llama", "nf4")),
    }
    for message, attempt in refusals.items():
        with pytest.raises(InputError, match=message):
            attempt()
    changed = raw("llama", "nf4")
    next(quantised(changed))[1].weight.data[0] ^= 1
    with pytest.raises(InputError, match="belong to tiny in nf4: this model has other quantised weights"):
        lay_over(path, changed)


def test_files_that_are_no_scales_are_refused(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"no safetensors")
    with pytest.raises(InputError, match="'garbage' is not a safetensors file"):
        lay_over(garbage, raw("llama", "nf4"))
    with pytest.raises(InputError, match="does not hold what a run changed"):
        lay_over(Path(base("llama")) / "model.safetensors", raw("llama", "nf4"))
    case = load("llama", "nf4")
    with pytest.raises(ValueError, match="is no quantisation scale"):
        save(tmp_path / "s", [*case.leaves, *all_weights(case.model)], case.model, "tiny")


def test_a_file_of_some_layers_wants_the_other_scales_as_they_were(tmp_path: Path) -> None:
    case = load("llama", "nf4", "q_proj")
    case.step("qzo", lr=1e-3)
    path = saved(case, tmp_path)
    fresh = replace(case, model=raw("llama", "nf4"))
    fresh.leaves = lay_over(path, fresh.model)
    assert torch.equal(fresh.losses()(), case.losses()()) and len(fresh.leaves) == 2
    with pytest.raises(InputError, match="double quantisation: False.*other scales differ"):
        lay_over(path, raw("llama", "nf4-double"))  # the same codes, other scales


# Cost and use


@pytest.mark.parametrize("quantiser", ["nf4", "int8"])
def test_a_step_holds_one_layers_scales_more_than_a_forward(quantiser: str) -> None:
    case = load("llama", quantiser)
    case.step("qzo")  # buffers kept between steps of one carrier are new in each `losses`
    plain = peak(case.losses())
    largest = max(leaf.tensor.numel() for leaf in case.leaves) * 4
    assert 0 < peak(lambda: case.step("qzo")) - plain <= largest + 4096


def chain(table: Tensor, g: torch.Generator, count: int = 16, tokens: int = 16) -> Tensor:
    """Sequences (count, tokens) of a Markov chain."""
    columns = [torch.randint(0, len(table), (count,), generator=g)]
    for _ in range(tokens - 1):
        columns.append(torch.multinomial(table[columns[-1]], 1, generator=g).squeeze(1))
    return torch.stack(columns, dim=1)


def next_token_losses(model: Any, ids: Tensor) -> Tensor:
    logits = model(input_ids=ids).logits[:, :-1].float()
    return functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").mean(1)


@cache
def chain_model() -> tuple[str, Tensor]:
    """Folder of a model trained on one Markov chain, and a mixture of that chain with another to adapt to."""
    g = torch.Generator().manual_seed(0)
    known, other = (torch.softmax(3 * torch.randn(24, 24, generator=g), dim=-1) for _ in range(2))
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=24, use_cache=False, **sizes))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        optimiser.zero_grad()
        next_token_losses(model, chain(known, g)).mean().backward()
        optimiser.step()
    folder = f"{FOLDER.name}/chain"
    model.save_pretrained(folder)
    return folder, (known + other) / 2


@pytest.mark.parametrize("quantiser", ["nf4-double", "int8"])
def test_qzo_adapts_a_quantised_model(quantiser: str) -> None:
    """Seen: 3.32 -> 2.75 (nf4), 2.74 (int8) in 200 steps."""
    folder, mixture = chain_model()
    settings = BitsAndBytesConfig(**QUANTISERS[quantiser])
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings)
    leaves, g = quant_scales(model), torch.Generator().manual_seed(7)
    held_out = chain(mixture, torch.Generator().manual_seed(99), 64)
    with torch.no_grad():
        before = float(next_token_losses(model, held_out).mean())
    carrier = Scratch(leaves)
    for step in range(200):
        ids = chain(mixture, g)
        part = Part(Layout(torch.arange(16)), lambda ids=ids: next_token_losses(model, ids))  # type: ignore[misc]
        build("qzo").step(leaves, Losses([part], leaves, carrier), Key(0, step), 1e-2, 1e-3, {})
    with torch.no_grad():
        after = float(next_token_losses(model, held_out).mean())
    assert before > 3.2 and after < 2.95
