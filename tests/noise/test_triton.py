"""The GPU's kernels without a GPU: interpreted bit for bit against plain torch, compiled and searched for fused sums.

Interpretation runs each kernel on NumPy and so proves what it computes; it cannot see how a compiler rounds.
The compiler's own assembly shows that, and needs no driver.
"""

import importlib.util
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tests.support.toys import mixed
from zocore.directions.laws import Combination, Direction, Gaussian
from zocore.noise import addressed, device_pass
from zocore.noise.addressed import Address, Key, Purpose, address
from zocore.noise.device_pass import Small
from zocore.noise.shift import Shift
from zocore.step.update import Sgd, small_ones
from zocore.weights import displaced
from zocore.weights.displaced import Job
from zocore.weights.rounding import store

if sys.platform != "linux":
    pytest.skip("Triton is for Linux", allow_module_level=True)

from zocore.noise import triton_kernels

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
NAMES = ["fp32", "bf16", "fp16"]
FAR = Key(2**63 + 2**40 + 17, 2**32 - 1, 2**31 + 5)  # every part has its highest bit set
NORMAL, SIGN = address(FAR, 77, Purpose.NORMAL), address(FAR, 2**24 - 1, Purpose.SIGN)


@pytest.fixture(scope="module")
def interpreted() -> Iterator[ModuleType]:
    """The kernels' module, imported a second time under Triton's interpreter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        spec = importlib.util.spec_from_file_location("interpreted_kernels", triton_kernels.__file__)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "interpreted_kernels", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture
def gpu(interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU tensors take the GPU's way, interpreted."""
    monkeypatch.setattr(device_pass, "_kernels", lambda: interpreted)
    monkeypatch.setattr(device_pass, "compiled", lambda device_type: True)
    device_pass._tables.clear()


def plain(out: Tensor, base: Tensor, shift: Shift, c: float, rows: int | Tensor = 0, shrink: float = 1.0) -> Tensor:
    """The definition in plain torch: each operation rounded by itself in float32, the sum stored with one rounding."""
    number, width = out.shape
    z = torch.ones(number, width)
    if shift.where is not None:
        draw = addressed.signs if shift.signs else addressed.normals
        at, count = (rows * width, number * width) if isinstance(rows, int) else (rows, width)
        z = draw(shift.where, at, count).view(number, width)
    z = z * torch.tensor(c)
    if shift.left is not None:
        left = shift.left[rows : rows + number] if isinstance(rows, int) else shift.left[rows]
        assert shift.right is not None
        total = torch.zeros(number, width)
        for k in range(left.shape[1]):
            total = total + left[:, k : k + 1] * shift.right[k]
        z = z * total
    return (base.float() * torch.tensor(shrink) + z).to(out.dtype)


def some(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Weights of all sizes: ordinary ones, zeros, subnormals of 16 bits and large ones."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator) * 0.02
    x.view(-1)[::7], x.view(-1)[1::11], x.view(-1)[2::13] = 0.0, 3e-8, -1e4
    return x.to(dtype)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("dtype", DTYPES, ids=NAMES)
@pytest.mark.parametrize("shift", [Shift(NORMAL), Shift(SIGN, signs=True)], ids=["normals", "signs"])
def test_noise_is_plain_torchs_bit_for_bit(dtype: torch.dtype, shift: Shift) -> None:
    """Any first row and any width, tails and starts inside a block included; in place too; one rounding at the end."""
    for first, number, width in ((3, 1, 7), (1, 5, 129), (7, 2, 1031), (2**31 - 3, 2, 4)):
        base = some(number, width, dtype=dtype)
        out = torch.full_like(base, torch.nan)
        wanted = plain(out, base, shift, 0.3, first, 0.9)
        displaced.displace(out, base, shift, 0.3, first, 0.9)
        assert torch.equal(out, wanted), (first, number, width)
        displaced.displace(base, base, shift, 0.3, first, 0.9)
        assert torch.equal(base, wanted)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("shift", [Shift(NORMAL), Shift(SIGN, signs=True)], ids=["normals", "signs"])
def test_rows_by_number_are_the_rows_of_the_whole(shift: Shift) -> None:
    """Rows in any order and repeated, as a table is looked up."""
    rows = torch.tensor([49, 0, 7, 7, 31])
    for width in (3, 130):
        base = some(len(rows), width, dtype=torch.bfloat16)
        out = torch.empty(len(rows), width)
        displaced.displace(out, base, shift, -0.7, rows)
        assert torch.equal(out, plain(out, base, shift, -0.7, rows))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("where", [None, NORMAL, SIGN], ids=["alone", "times normals", "times signs"])
def test_products_are_summed_in_one_order(where: Address | None) -> None:
    """Thin products alone and times noise, for rows that follow each other, numbered ones, and vectors."""
    for width, rows in ((37, 2), (37, torch.tensor([8, 1, 1])), (1, 2)):
        left, right = some(9, 5, seed=1), some(5, width, seed=2)
        shift = Shift(where, signs=where is SIGN, left=left, right=right, weight=2.0)
        base = some(3, width, dtype=torch.float16)
        out = torch.empty_like(base)
        displaced.displace(out, base, shift, 0.1, rows)
        assert torch.equal(out, plain(out, base, shift, 0.2, rows))
    nothing, alone = torch.zeros(9, right.shape[1]), Shift(left=left, right=right)
    assert torch.equal(displaced.thin_product(left, right), plain(nothing, nothing, alone, 1.0))


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=NAMES[1:])
@pytest.mark.parametrize("signs", [False, True], ids=["normals", "signs"])
def test_stochastic_updates_are_the_cpus_bit_for_bit(
    dtype: torch.dtype, signs: bool, interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one pass that shrinks, moves and rounds does what the CPU does in three, word for word."""
    shift, rounding = Shift(SIGN if signs else NORMAL, signs), address(Key(5, 6), 7, Purpose.ROUNDING)
    base = some(5, 333, dtype=dtype)
    wanted, found = base.clone(), base.clone()
    displaced.displace(wanted, wanted, shift, -1e-4, 2, 0.999, rounding)
    monkeypatch.setattr(device_pass, "_kernels", lambda: interpreted)
    monkeypatch.setattr(device_pass, "compiled", lambda device_type: True)
    displaced.displace(found, found, shift, -1e-4, 2, 0.999, rounding)
    assert torch.equal(found, wanted) and not torch.equal(found, base)
    exact, apart = some(4, 100), torch.empty(4, 100, dtype=dtype)
    store(apart, exact, rounding, 3)
    monkeypatch.undo()
    again = torch.empty_like(apart)
    store(again, exact, rounding, 3)
    assert torch.equal(apart, again)


class Counting:
    """A module of kernels that counts launches by name."""

    def __init__(self, kernels: ModuleType) -> None:
        self.kernels, self.launches = kernels, Counter[str]()

    def __getattr__(self, name: str):
        self.launches[name] += 1
        return getattr(self.kernels, name)


@pytest.fixture
def launches(interpreted: ModuleType, gpu: None, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kernel was launched."""
    counting = Counting(interpreted)
    monkeypatch.setattr(device_pass, "_kernels", lambda: counting)
    return counting.launches


@pytest.mark.parametrize("signs", [False, True], ids=["normals", "signs"])
def test_many_small_leaves_take_one_launch(signs: bool, launches: Counter[str]) -> None:
    """Tensors of any length beside each other are displaced as each alone is, in one launch of the kernel."""
    purpose = Purpose.SIGN if signs else Purpose.NORMAL
    bases = [some(1, n, dtype=torch.bfloat16, seed=n) for n in (1, 3, 1024, 1025, 130)]
    shifts = [Shift(address(FAR, 2**23 + n, purpose), signs, 2.0) for n in range(len(bases))]
    outs = [torch.empty_like(base) for base in bases]
    displaced.displace_all([Job(out, b, s, 0.5) for out, b, s in zip(outs, bases, shifts, strict=True)], 0.125)
    for out, base, shift in zip(outs, bases, shifts, strict=True):
        assert torch.equal(out, plain(out, base, replace(shift, weight=1.0), 0.25, 0, 0.5))
    assert launches == {"displace_many": 1}


def test_a_step_moves_all_its_small_leaves_in_one_launch(launches: Counter[str], monkeypatch) -> None:
    """The update of a bfloat16 model: one launch for all, decayed leaves apart, and the weights of the CPU."""
    toys = [mixed(dtype=torch.bfloat16) for _ in range(2)]
    g, key = Combination(((0.7, Direction(FAR, Gaussian())),)), FAR
    assert not small_ones(Sgd(), toys[0].leaves, g, 1e-3, key)
    assert launches == {"displace_many": 1}
    launches.clear()
    assert not small_ones(Sgd(decay=0.1), toys[0].leaves, g, 1e-3, key)
    assert launches == {"displace_many": 2}  # biases do not decay
    monkeypatch.undo()
    for decay in (0.0, 0.1):
        alone = small_ones(Sgd(decay), toys[1].leaves, g, 1e-3, key)
        assert alone == toys[1].leaves  # a CPU launches nothing
        for leaf in alone:
            Sgd(decay)(leaf, g, 1e-3, key, {})
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(toys[0].leaves, toys[1].leaves, strict=True))


TYPES = dict.fromkeys(("chunks", "rank", "word", "direction", "step", "low", "high"), "i32")
TYPES |= {f"round_{part}": "i32" for part in ("word", "direction", "step", "low", "high")}
TYPES |= {"origin": "i64", "width": "i64", "c": "fp32"}
TYPES |= {"shrink": "fp32", "numbers": "*i64", "left": "*fp32", "right": "*fp32", "table": "*i64"}
TYPES |= {"exact": "*fp32", "start": "i64", "count": "i64"}
# what rounds otherwise than IEEE 754's single operations: fused, approximate, flushing
FORBIDDEN = re.compile(r"\b(?:fma|mad)\.[\w.]*f(?:16|32|64)\w*|\bdiv\.full\S*|\S+\.approx\S*|\S+\.ftz\S*")


def assembly(kernel, capability: int, dtype: str, constants: dict[str, object], fusion: bool = False) -> str:
    """PTX of a kernel, as a launch compiles it."""
    import triton
    from triton.backends.compiler import GPUTarget

    pointers = dict.fromkeys(("out", "base", "like"), f"*{dtype}")
    signature = {name: "constexpr" if name in constants else (pointers | TYPES)[name] for name in kernel.arg_names}
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=places)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"enable_fp_fusion": fusion}).asm["ptx"]


def constants_of(
    law: int, product: bool = False, numbered: bool = False, stochastic: bool = False
) -> dict[str, object]:
    blocks = 8 if law == 2 else 256
    return {"LAW": law, "PRODUCT": product, "NUMBERED": numbered, "STOCHASTIC": stochastic, "BLOCKS": blocks}


@pytest.mark.slow
@pytest.mark.parametrize("capability", [90, 120], ids=["Hopper", "Blackwell"])
def test_no_kernel_fuses_approximates_or_flushes(capability: int) -> None:
    """The assembly for both cards has single, correctly rounded operations alone."""
    found = []
    for dtype in ("fp32", "bf16", "fp16"):
        for law in (0, 1, 2):
            constants = constants_of(law, product=True, numbered=dtype == "fp32", stochastic=dtype != "fp32")
            found.append(assembly(triton_kernels.displace, capability, dtype, constants))
        small: dict[str, object] = {"LAW": 1, "STOCHASTIC": dtype != "fp32", "BLOCKS": 256}
        found.append(assembly(triton_kernels.displace_many, capability, dtype, small))
        if dtype != "fp32":
            found.append(assembly(triton_kernels.round_stochastically, capability, dtype, {"GROUPS": 256}))
    for ptx in found:
        assert FORBIDDEN.findall(ptx) == []
    assert any("div.rn.f32" in ptx and "sqrt.rn.f32" in ptx for ptx in found)


@pytest.mark.parametrize("capability", [90, 120], ids=["Hopper", "Blackwell"])
def test_the_search_finds_a_fused_sum(capability: int) -> None:
    """The same kernel compiled as Triton used to by default holds fused multiply-adds, and is caught."""
    constants = constants_of(0, product=True)
    assert FORBIDDEN.findall(assembly(triton_kernels.displace, capability, "fp32", constants, fusion=True))
    assert not FORBIDDEN.findall(assembly(triton_kernels.displace, capability, "fp32", constants))


def test_every_launch_forbids_fused_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """No way into the kernels leaves fusion to the compiler's default."""
    seen = []

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]):
            return lambda *args, **options: seen.append(options["enable_fp_fusion"])

    monkeypatch.setattr(device_pass, "_kernels", lambda: type("K", (), dict.fromkeys(NAMES_OF_KERNELS, Kernel())))
    x = torch.zeros(2, 4, dtype=torch.bfloat16)
    device_pass.displace(x, x, Shift(NORMAL), 1.0)
    device_pass.displace_many([Small(x, x, NORMAL)], False, 1.0)
    device_pass.round_stochastically(x, x.float(), NORMAL, 0)
    assert seen == [False] * 3


NAMES_OF_KERNELS = ("displace", "displace_many", "round_stochastically")


def test_without_a_working_compiler_plain_torch_takes_over_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU whose Triton cannot build is told of once, with the remedy, and the run goes on."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    device_pass.compiled.cache_clear()
    monkeypatch.setattr(device_pass, "displace", broken)
    monkeypatch.setattr(torch, "zeros", lambda *size, **_: torch.empty(size))
    with pytest.warns(RuntimeWarning, match=r"C compiler.*much slower.*gcc") as told:
        assert not device_pass.compiled("cuda")
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not device_pass.compiled("cuda")
        assert not device_pass.compiled("cpu")
    device_pass.compiled.cache_clear()
