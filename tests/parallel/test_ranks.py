"""Several processes share a run: bitwise what one alone does, little on the wire, and no way to drift apart unseen."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from tests.support.places import ROOT
from tests.support.short_runs import ZEROTH_ORDER, settings
from zocore.errors import InputError
from zocore.parallel.ranks import Ranks, checksum, joined
from zocore.runs.events import Event, RunEnded, RunStarted, StepDone
from zocore.runs.loop import run
from zocore.runs.recording import read_recording

BATCH, STEPS = 8, 2
NAMES = ["mezo", "n-spsa", "grzo", "mezo-gv", "mezo-greedy", "fzoo", "openai-es", "qzo nf4", "grzo, opt"]
NAMES += ["grzo, low rank", "grzo, bf16"]
PUSHED = ["activity", "activity, a push a token", "activity, bf16", "feedback", "feedback onto scores"]
PUSHED += ["feedback, a push in two steps", "feedback, long label words", "feedback, bert"]


def told(events: list[Event]) -> dict[str, Any]:
    """What a run measured and did, and where it ended."""
    steps = [e for e in events if isinstance(e, StepDone)]
    end = events[-1]
    assert isinstance(end, RunEnded) and end.status == "finished", end
    measured = [(s.loss, s.loss_plus, s.loss_minus, s.coefficients, s.directions, s.touched) for s in steps]
    learned = [(s.responses, s.unexplained) for s in steps]
    costs = [(s.forward_passes, s.forward_cost) for s in steps]
    return {"measured": measured, "learned": learned, "costs": costs, "weights": end.weights_fingerprint}


def short(name: str, ranks: Ranks) -> list[Event]:
    """A run of two steps in micro-batches of two examples."""
    config = settings(**{**ZEROTH_ORDER[name], "batch_size": BATCH, "micro_batch": 2, "steps": STEPS})
    return list(run(config, ranks=ranks))


def together(count: int, work: Callable[[Ranks], Any], folder: Path) -> list[Any]:
    """What `work` returns in each of so many processes, forked from this one; what it raises comes back as text."""
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=_member, args=(rank, count, work, folder / f"meeting-{count}", pipes[rank][1]))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    found = [reader.recv() for reader, _ in pipes]
    for process in processes:
        process.join(20)
    return found


def _member(rank: int, count: int, work: Callable[[Ranks], Any], meeting: Path, pipe: Any) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    try:
        found = work(Ranks(rank, count))
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    pipe.send(found)
    distributed.destroy_process_group()


@pytest.mark.slow
def test_a_run_is_the_same_bit_for_bit_on_one_two_and_four_processes(tmp_path: Path) -> None:
    """Losses, coefficients, looked-up rows, counted passes and weights, for every method, on every process."""
    alone = {name: told(short(name, Ranks())) for name in NAMES}
    for count, names in ((2, NAMES), (4, ["mezo-gv", "grzo, opt", "fzoo"])):
        for each in together(count, lambda ranks: {name: told(short(name, ranks)) for name in names}, tmp_path):  # noqa: B023
            for name in names:
                assert each[name] == alone[name], (name, count)


def test_losses_come_back_in_the_order_of_the_examples_and_are_counted(tmp_path: Path) -> None:
    """Shares of unequal size, a stop that one process was asked for, and the bytes that crossed the wire."""

    def work(ranks: Ranks) -> Any:
        shares = ranks.shares([0.5, 1.5, 2.5])
        assert not ranks.stopping
        ranks.stop = lambda: ranks.rank == 1
        found = ranks.losses(torch.tensor(shares[ranks.rank]), [len(share) for share in shares])
        told = ranks.told({"from": ranks.rank, "many": [0] * ranks.rank})
        return found.tolist(), found.dtype, ranks.stopping, [each["from"] for each in told], ranks.wire_bytes

    for losses, dtype, stopping, ranks, received in together(2, work, tmp_path):
        assert losses == [0.5, 1.5, 2.5] and dtype == torch.float64 and stopping and ranks == [0, 1]
        assert received == (2 + 1) * 8 + 8 + len('{"from": 1, "many": [0]}')


def test_weights_that_come_apart_are_noticed(tmp_path: Path) -> None:
    """One flipped bit in one process ends the run in all of them, with the process and the step."""

    def work(ranks: Ranks) -> Any:
        weights = torch.ones(1000)
        ranks.agree(checksum([weights]), 1)
        if ranks.rank == 1:
            weights.view(torch.int32)[77] ^= 1
        ranks.agree(checksum([weights]), 101)

    for said in together(2, work, tmp_path):
        assert "process 1 are not those of process 0 before step 101" in said


def test_what_cannot_be_shared_is_refused() -> None:
    """Fewer micro-batches than processes, gradients, and a model that is itself spread."""
    with pytest.raises(InputError, match="2 micro-batches cannot be shared by 4"):
        Ranks(0, 4).shares([1, 2])
    with pytest.raises(ValueError, match="adamw and several processes do not go together"):
        next(run(settings(method="adamw", lr=1e-3), ranks=Ranks(0, 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(InputError, match="auto and several processes"), joined("auto"):
            pass


def test_alone_nothing_is_sent() -> None:
    """Without a launcher a run has one process and no bytes on the wire."""
    events = list(run(settings(steps=1)))
    assert isinstance(events[0], RunStarted) and events[0].processes == 1
    assert [e.wire_bytes for e in events if isinstance(e, StepDone)] == [0]


def torchrun(*arguments: str) -> subprocess.Popen:
    """Two processes of the command line, as torchrun starts them."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    command = [*launcher, "-m", "zocore", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.slow
def test_pushes_on_outputs_are_shared_bit_for_bit(tmp_path: Path) -> None:
    """What layers read, answers and what is learned of them, on two and four processes."""
    alone = {name: told(short(name, Ranks())) for name in PUSHED}
    for count, names in ((2, PUSHED), (4, ["activity", "feedback onto scores"])):
        for each in together(count, lambda ranks: {name: told(short(name, ranks)) for name in names}, tmp_path):  # noqa: B023
            for name in names:
                assert each[name] == alone[name], (name, count)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    """In the order of the ranks, in shares of unequal size, whatever their shape and type."""
    whole = [torch.randn(5, 3), torch.randn(5, 2, 2).bfloat16(), torch.arange(5), torch.randn(5, dtype=torch.float64)]
    counts = [2, 3]

    def work(ranks: Ranks) -> Any:
        mine = slice(0, 2) if ranks.rank == 0 else slice(2, 5)
        return [torch.equal(ranks.rows(one[mine], counts), one) for one in whole]

    assert together(2, work, tmp_path) == [[True] * 4] * 2


@pytest.mark.slow
def test_a_run_whose_process_was_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """The second process dies by SIGKILL; the launcher ends the other; resume with two gets where one alone gets."""
    steps, folder = 60, tmp_path / "run"
    config = settings(method="grzo", batch_size=BATCH, micro_batch=4, steps=steps)
    given = {"method": "grzo", "batch-size": BATCH, "micro-batch": 4, "steps": steps, "model": config.model}
    given |= {"data": config.data, "lr": config.lr, "eps": config.eps, "template": config.template}
    given |= {"label-words": config.label_words, "max-tokens": config.max_tokens}
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    running = torchrun("train", *options, f"--out={folder}")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and running.poll() is None:
        if (folder / "events.jsonl").exists() and (folder / "events.jsonl").read_text().count('"StepDone"') >= 3:
            break
        time.sleep(0.05)
    workers = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True, check=False).stdout
    os.kill(int(workers.split()[-1]), signal.SIGKILL)
    running.communicate(timeout=60)
    cut = read_recording(folder)
    assert 3 <= len(cut.steps) < steps and (cut.end is None or cut.end.status != "finished")
    resumed = torchrun("resume", str(folder))
    said, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, said
    whole = read_recording(folder)
    assert whole.end is not None and whole.end.status == "finished"
    assert whole.header.processes == 2 and whole.steps[-1].wire_bytes > 0
    alone = list(run(whole.config))
    assert isinstance(alone[-1], RunEnded)
    assert whole.end.weights_fingerprint == alone[-1].weights_fingerprint
    assert said.count("run folder:") == 1  # one process speaks
