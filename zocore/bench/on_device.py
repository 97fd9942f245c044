"""Does a device give the CPU's bits, how fast does it make noise, and does a run on it learn as on a CPU?"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from statistics import fmean, median

import torch
from torch import Tensor

from zocore.bench.bench import clocked
from zocore.bench.findings import Finding, Place, at_most, yes
from zocore.config import RunConfig
from zocore.noise import addressed, device_pass
from zocore.noise.addressed import Key, Purpose, address
from zocore.noise.shift import Shift
from zocore.runs.events import Event, RunEnded, StepDone
from zocore.runs.loop import run
from zocore.runs.opening import open_session
from zocore.runs.rebuilding import replay
from zocore.weights.displaced import displace
from zocore.weights.rounding import store

KEY = Key(2**63 + 17, 2**32 - 1, 5)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ROUNDING = address(KEY, 3, Purpose.ROUNDING)


def exactness(place: Place) -> Iterator[Finding]:
    """Displaced and updated weights against plain torch on the CPU, and a recording's steps done again here."""
    compiled = device_pass.compiled(place.device.type) or place.device.type == "cpu"
    yield Finding("noise is compiled for this device", "yes" if compiled else "no: plain torch")
    height, width = (5, 133) if place.small else (513, 8197)
    rows = torch.tensor([4, 0, 2, 2])
    left, right = torch.rand(height, 16) - 0.5, torch.rand(16, width) - 0.5
    kinds = {"normals": Shift(address(KEY, 7, Purpose.NORMAL)), "signs": Shift(address(KEY, 8, Purpose.SIGN), True)}
    kinds |= {"thin product": Shift(left=left, right=right)}
    kinds |= {
        f"{name} times thin product": replace(kinds[name], left=left, right=right) for name in ("normals", "signs")
    }
    for name, dtype in DTYPES.items():
        base = (torch.rand(height, width) * 0.04 - 0.02).to(dtype)
        for kind, shift in kinds.items():
            here = _there(shift, place.device)
            whole, picked, updated = (t.to(place.device) for t in (base.clone(), base[rows], base.clone()))
            displace(whole, whole, here, 1e-3)
            displace(picked, picked, here, 1e-3, rows.to(place.device))
            equal = torch.equal(whole.cpu(), plain(base, shift, 1e-3)) and torch.equal(picked.cpu(), whole.cpu()[rows])
            if dtype != torch.float32:
                displace(updated, updated, here, -1e-6, 0, 0.999, ROUNDING)
                equal = equal and torch.equal(updated.cpu(), plain(base, shift, -1e-6, 0.999, rounded=True))
            yield yes(f"{kind} in {name}, bit for bit", equal)
    for method in ("mezo", "grzo"):
        yield yes(f"a CPU's recording of {method} replays to its fingerprint", _replays(method, place.device))


def plain(base: Tensor, shift: Shift, c: float, shrink: float = 1.0, rounded: bool = False) -> Tensor:
    """The definition in plain torch on the CPU, each operation rounded by itself."""
    z = torch.ones(base.shape)
    if shift.where is not None:
        draw = addressed.signs if shift.signs else addressed.normals
        z = draw(shift.where, 0, base.numel()).view(base.shape)
    z = z * torch.tensor(c)
    if shift.left is not None and shift.right is not None:
        total = torch.zeros(base.shape)
        for k in range(shift.left.shape[1]):
            total = total + shift.left[:, k : k + 1] * shift.right[k]
        z = z * total
    exact, out = base.float() * torch.tensor(shrink) + z, torch.empty_like(base)
    if rounded:
        store(out, exact, ROUNDING, 0)
    else:
        out.copy_(exact)
    return out


def noise_speed(place: Place) -> Iterator[Finding]:
    """One pass over a large tensor, beside a copy and torch's own normals."""
    count = 2**16 if place.small else 2**28
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        base = torch.zeros(1, count, dtype=dtype, device=place.device)
        out = torch.empty_like(base)
        passes: dict[str, Callable[[], object]] = {
            "a copy": partial(out.copy_, base),
            "torch.normal_": out.normal_,
            "normals": _pass(out, base, Shift(address(KEY, 7, Purpose.NORMAL))),
            "signs": _pass(out, base, Shift(address(KEY, 8, Purpose.SIGN), True)),
            "normals, rounded": _pass(out, base, Shift(address(KEY, 7, Purpose.NORMAL)), ROUNDING),
            "signs, rounded": _pass(out, base, Shift(address(KEY, 8, Purpose.SIGN), True), ROUNDING),
        }
        for title, function in passes.items():
            if dtype == torch.float32 and "rounded" in title:
                continue
            function()
            seconds = median(clocked(function, place.device) for _ in range(5)) or 1e-9
            moved = (1 if title == "torch.normal_" else 2) * base.nbytes
            yield Finding(
                f"{title}, {name}", f"{count / seconds / 1e9:.3g} G elements/s, {moved / seconds / 1e9:.0f} GB/s"
            )


def real_run(place: Place) -> Iterator[Finding]:
    """The bundled model on the device and on a CPU; and a model of one's own, as the app's GPU preset runs it."""
    steps = 4 if place.small else 100
    config = RunConfig(method="mezo", steps=steps, eval_examples=20 if place.small else 400)
    ends = {name: list(run(replace(config, device=name))) for name in dict.fromkeys(("cpu", str(place.device)))}
    last = {name: _mean_loss(events, 20) for name, events in ends.items()}
    for name, loss in last.items():
        yield Finding(f"bundled model on {name}, loss of the last steps", f"{loss:.4f}")
    yield at_most("apart", abs(last["cpu"] - last[str(place.device)]), 0.02)
    if place.model is None:
        yield Finding("a model of one's own", "none given: --model FOLDER")
        return
    own = RunConfig(model=place.model, steps=steps, device=str(place.device), dtype="bf16", eval_examples=100)
    events = list(run(own))
    end = events[-1]
    assert isinstance(end, RunEnded)
    yield Finding(f"{place.model}, bf16, {steps} steps", f"{end.status}, {end.steps_per_second:.1f} steps/s")


def _pass(out: Tensor, base: Tensor, shift: Shift, rounding: addressed.Address | None = None) -> Callable[[], object]:
    return lambda: displace(out, base, shift, 1e-3, rounding=rounding)


def _there(shift: Shift, device: torch.device) -> Shift:
    left, right = (None if t is None else t.to(device) for t in (shift.left, shift.right))
    return replace(shift, left=left, right=right)


def _replays(method: str, device: torch.device) -> bool:
    config = RunConfig(method=method, steps=3, eval_examples=20, device="cpu")
    events = list(run(config))
    end = events[-1]
    assert isinstance(end, RunEnded)
    session = open_session(replace(config, device=str(device), dtype="fp32"))
    replay(session, [event for event in events if isinstance(event, StepDone)])
    return session.fingerprint() == end.weights_fingerprint


def _mean_loss(events: list[Event], count: int) -> float:
    return fmean(event.loss for event in [e for e in events if isinstance(e, StepDone)][-count:])
