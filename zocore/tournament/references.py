"""The rows that take no rate: the untrained model, and a linear probe on it."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zocore.data.tasks import Example
from zocore.models.objectives.evaluation import evaluate
from zocore.runs.session import Session
from zocore.tournament.entries import PROBE
from zocore.tournament.features import features
from zocore.tournament.ledger import Cell
from zocore.tournament.parts import commonest, part
from zocore.tournament.probe import fit


def reference(session: Session, cell: Cell, method: str) -> dict[str, Any]:
    """Return the figures of a reference on the session's test split."""
    test = session.task.test
    start = evaluate(session.objective, test, 4 * session.config.batch_size)
    outcome = {
        "status": "finished",
        "loss": start.loss,
        "accuracy": start.accuracy,
        "loss_before": start.loss,
        "accuracy_before": start.accuracy,
        "examples": len(test),
        "commonest": commonest(test),
        "fingerprint": session.loaded.fingerprint,
    }
    return outcome | _probed(session, cell) if method == PROBE else outcome


def _probed(session: Session, cell: Cell) -> dict[str, Any]:
    """A probe fitted to as many training examples as the budget reads once."""
    started, size = time.perf_counter(), session.config.batch_size
    seen = part(session.task.train, max(1, int(cell.cost * size)), cell.seed)
    train, dev, test = (_read(session, rows) for rows in (seen, session.task.dev, session.task.test))
    loss, accuracy = fit(train, dev, len(session.task.label_names)).judge(*test)
    return {
        "loss": loss,
        "accuracy": accuracy,
        "forward_cost": round(len(seen) / size, 2),
        "forward_passes": -(-len(seen) // size),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _read(session: Session, rows: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Features and labels."""
    labels = torch.tensor([row.label for row in rows])
    return features(session.objective, rows, 4 * session.config.batch_size).cpu(), labels
