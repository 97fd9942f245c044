"""From settings to a job: who asks, whether this server takes it, and how much work it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import gradio as gr

from app.form import cost, guard, prompts
from app.form.work import work
from app.jobs.job import Job
from app.jobs.lent import lends
from app.jobs.store import JobStore
from zocore.config import RunConfig
from zocore.errors import InputError


@dataclass(frozen=True)
class Guest:
    """Who asks: a secret of this server, and where the request came from."""

    secret: str
    address: str

    @classmethod
    def of(cls, store: JobStore, secret: object, request: gr.Request | None) -> "Guest":
        """Return the guest of a request, under a new secret where theirs is not one of this server's."""
        client = request.client if request is not None else None
        return cls(store.visitors.welcome(secret), client.host if client else "")


def taken(store: JobStore, config: RunConfig) -> RunConfig:
    """Return the settings as this server runs them. Raises InputError for what it does not take."""
    return guard.checked(config, store.limits, store.root / "uploads")


def begin(store: JobStore, guest: Guest, configs: Sequence[RunConfig], kind: str = "run", sentence: str = "") -> Job:
    """Queue a job, which asks a sentence of the visitor's own too.

    Raises InputError or ValueError with one sentence when it cannot be queued.
    """
    limits, checked = store.limits, [taken(store, config) for config in configs]
    lent = store.lend is not None and kind == "run" and all(map(lends, checked))
    if store.lend is not None and not lent:  # nothing but a slice has the GPU
        checked = [replace(config, device="cpu") for config in checked]
    amount = expected = 0.0
    for config in checked:
        prompts.measure_texts(config, store.files)
        price = cost.cost(config, store.speeds)
        expected += price.seconds
        if limits.hosted:
            amount += 0.0 if lent else work(config)  # what is lent is bounded by the visitor's quota
            _check_memory(price, limits.memory)
    return store.start(guest.secret, checked, kind, guest.address, amount, expected, sentence, lent)


def _check_memory(price: cost.Cost, most: int) -> None:
    if price.blocker:
        raise InputError(f"this cannot run here: {price.blocker}")
    bytes_needed = cost.needed(price.bill) if price.bill is not None else 0
    if most and price.device == "cpu" and bytes_needed > most:
        raise InputError(
            f"a step needs about {bytes_needed / 1e9:.3g} GB, over this server's limit of {most / 1e9:.3g} GB: "
            "take a smaller model or batch"
        )
