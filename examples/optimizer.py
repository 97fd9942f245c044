"""Train a small network on its accuracy alone, which has no gradient: `python examples/optimizer.py`."""

import torch
from torch import nn

from zocore import ZeroOrder

torch.manual_seed(0)
points = torch.randn(400, 2)
labels = (points.square().sum(1) < 1.2).long()  # inside a circle or outside it
model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).eval()


def mistakes() -> float:
    """The share of wrong answers: any number that falls will do, from any program."""
    return float((model(points).argmax(1) != labels).float().mean())


optimizer = ZeroOrder(model, lr=0.5, eps=0.1, method="openai-es", directions=16)
schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=200)
before = mistakes()
for _ in range(200):
    optimizer.step(mistakes)
    schedule.step()
print(f"mistakes: {before:.2f} -> {mistakes():.2f}")
