"""Bytes of tensors alive at once."""

import torch

from zocore.runs.peak_memory import COUNTED, PeakMemory, storage_bytes
from zocore.runs.tensor_peak import TensorPeak

KILO = 1000 * 4  # bytes of a thousand float32 values


def test_counts_what_is_alive_at_once() -> None:
    """Two tensors that do not live together count once, views and in-place operations not at all."""
    with TensorPeak() as peak:
        first = torch.zeros(1000)
        first.add_(1)
        first.view(10, 100)
        assert peak.now == KILO
        del first
        assert peak.now == 0
        second, third = torch.zeros(1000), torch.zeros(1000)
        del second
    assert (peak.most, peak.now) == (2 * KILO, KILO)
    assert third.shape == (1000,)


def test_sees_what_only_the_graph_holds() -> None:
    """An activation without a Python name counts for as long as the backward pass needs it."""
    x = torch.ones(1000, requires_grad=True)
    with TensorPeak() as peak:
        loss = (x.exp().exp().exp()).sum()
        assert peak.now >= 3 * KILO
        loss.backward()
        assert peak.most >= 4 * KILO
    with torch.no_grad(), TensorPeak() as plain:
        x.exp().exp().exp().sum()
    assert plain.most <= 2 * KILO + 8


def test_peak_memory_counts_steps_and_nothing_apart() -> None:
    """What is held counts once, what the first steps make is added, and what happens between steps is not seen."""
    weight = torch.zeros(1000)
    memory = PeakMemory(torch.device("cpu"), lambda: [weight, weight.view(10, 100)])
    assert (memory.kind, memory.peak()) == ("tensors", 0)
    with memory.step(100):
        kept = torch.zeros(1000)  # a buffer that the next step uses again
        torch.zeros(2000)
    assert memory.peak() == 4 * KILO
    with memory.apart():
        torch.zeros(9000)
    with memory.step(90):
        torch.zeros(3000).add_(kept[0])
    assert memory.peak() == 5 * KILO
    for _ in range(COUNTED):
        with memory.step(100):
            pass
    with memory.step(100):  # no longer counted: a batch as large was counted before
        torch.zeros(90_000)
    assert memory.peak() == 5 * KILO
    with memory.step(101):
        torch.zeros(7000)
    assert memory.peak() == 9 * KILO


def test_storages_are_counted_once() -> None:
    """Views share their storage; a view of a part stands for the whole."""
    whole = torch.zeros(1000)
    assert storage_bytes([whole, whole[:10], whole.view(10, 100)]) == KILO
    assert storage_bytes([whole[:10], torch.zeros(1000)]) == 2 * KILO
