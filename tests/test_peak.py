"""Bytes of tensors alive at once."""

import torch

from zocore.peak import TensorPeak

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
