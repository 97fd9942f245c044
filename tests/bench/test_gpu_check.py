"""The check of a GPU, in miniature on a CPU: its parts and goals, going on where it was stopped; and on a GPU."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from zocore.bench import gpu_check, on_device
from zocore.bench.bench import bench, on_batch, steps
from zocore.bench.findings import Finding, Place, at_least, at_most
from zocore.bench.gpu_check import Part, check, machine, render
from zocore.bench.shapes import in_four_bits, made
from zocore.bench.step_costs import peak
from zocore.cli import main
from zocore.errors import InputError
from zocore.noise import device_pass

CPU = Place(torch.device("cpu"), small=True)
cuda = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")]


def parts_of(*parts: Part):
    return lambda place: list(parts)


def two(place: Place) -> Iterator[Finding]:
    yield at_most("a ratio", 1.2, 1.1)
    yield at_least("a gain", 6.0, 5.0, " x")


@pytest.mark.slow
def test_the_whole_check_runs_in_miniature_and_every_bit_is_right(tmp_path: Path, capsys) -> None:
    """No part fails, everything that must be exact is, and both files say so."""
    assert main(["gpu-check", "--device", "cpu", "--out", str(tmp_path / "check")]) == 0
    held = json.loads((tmp_path / "check" / "check.json").read_text())
    assert all(part["done"] for part in held["parts"].values()), capsys.readouterr().out
    exact = held["parts"]["Exactness"]["findings"]
    assert len(exact) >= 17 and all(finding["met"] in (True, None) for finding in exact)
    table = (tmp_path / "check" / "check.md").read_text()
    assert "MeZO as published" in table and "QZO, NF4" in table and "torch:" in table


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done stays; what failed is tried again; what is late is left; the table tells missed goals."""
    broken = [True]

    def fragile(place: Place) -> Iterator[Finding]:
        yield Finding("half", "done")
        if broken:
            raise RuntimeError("out of luck")

    monkeypatch.setattr(gpu_check, "parts", parts_of(Part("First", two), Part("Second", fragile)))
    first = list(check("cpu", tmp_path))
    assert first[0] == "First: 2 figures, 1 goals missed" and "out of luck" in first[1]
    broken.clear()
    again = list(check("cpu", tmp_path))
    assert again[0] == "First: done before" and again[1] == "Second: 1 figures"
    monkeypatch.setattr(gpu_check, "parts", parts_of(Part("Third", two)))
    assert "left for the next call" in next(iter(check("cpu", tmp_path, minutes=-1)))
    table = (tmp_path / "check.md").read_text()
    assert "| a ratio | 1.2 | <= 1.1 | no |" in table and "| a gain | 6 x | >= 5 x | yes |" in table


def test_figures_of_two_machines_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of another driver, card or version is refused with what differs; a damaged one too."""
    monkeypatch.setattr(gpu_check, "parts", parts_of(Part("First", two)))
    list(check("cpu", tmp_path))
    here = machine(torch.device("cpu"))
    monkeypatch.setattr(gpu_check, "machine", lambda device: {**here, "torch": "9.9"})
    with pytest.raises(InputError, match=r"torch .*, here 9\.9"):
        list(check("cpu", tmp_path))
    (tmp_path / "check.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        list(check("cpu", tmp_path))


def test_what_is_absent_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a package or nvidia-smi still gives a table."""
    monkeypatch.setattr(gpu_check, "PACKAGES", ("torch", "no-such-package"))
    monkeypatch.setenv("PATH", "")
    assert machine(torch.device("cpu"))["no-such-package"] == "absent"
    assert gpu_check._driver() == "unknown (no nvidia-smi)"
    assert render({"machine": {"device": "x"}, "parts": {}}).startswith("# GPU check")


def test_exactness_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that is one rounding off is told as not equal."""
    true = on_device.displace  # type: ignore[attr-defined]

    def off(out, base, shift, c, rows=0, shrink=1.0, rounding=None) -> None:
        true(out, base, shift, c * (1 + 2**-20), rows, shrink, rounding)

    monkeypatch.setattr(on_device, "displace", off)
    monkeypatch.setattr(on_device, "_replays", lambda method, device: True)
    findings = {finding.what: finding.met for finding in on_device.exactness(CPU)}
    assert findings["normals in fp32, bit for bit"] is False


def test_shapes_are_made_where_they_are_timed_and_in_few_bits() -> None:
    """A random model in its dtype; the same in NF4, which still answers; unknown ones refused."""
    model = made("llama-tiny", torch.device("cpu"), torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16} and torch.get_default_dtype() == torch.float32
    b = on_batch(made("llama-tiny", torch.device("cpu"), torch.float32), 2, 4)
    plain = b.lean()
    b.model = in_four_bits(b.model)
    assert 0 < float((b.lean() - plain).abs().max()) < 0.5
    with pytest.raises(ValueError, match="sphere"):
        made("sphere", torch.device("cpu"), torch.float32)


def test_the_peak_counts_what_a_step_takes() -> None:
    """A step of MeZO takes a forward and a buffer for its largest layer, the published one far more."""
    b = on_batch(made("llama-tiny", torch.device("cpu"), torch.float32), 2, 8)
    variants, weights = steps(b), sum(p.nbytes for p in b.model.parameters())
    forward, mezo = peak(CPU, b, b.lean), peak(CPU, b, variants["MeZO, Gaussian"])
    largest = max(p.nbytes for p in b.model.parameters())
    assert weights < forward <= mezo <= forward + 1.02 * largest
    assert peak(CPU, b, variants["MeZO as published"]) > 1.5 * mezo


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=cuda)])
def test_a_gpu_gives_the_cpus_bits(device: str) -> None:
    """Noise, updates and replayed weights, compiled by Triton; nothing falls back."""
    assert device_pass.compiled(device)
    assert all(finding.met in (True, None) for finding in on_device.exactness(Place(torch.device(device), small=True)))


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=cuda)])
def test_the_bench_runs_on_a_gpu(device: str) -> None:
    """Every variant is timed on the card."""
    assert {t.name for t in bench("llama-tiny", 2, 8, 1, device)} >= {"MeZO, Gaussian", "GRZO, low rank 4"}
