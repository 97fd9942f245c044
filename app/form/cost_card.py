"""The cost card as HTML, and its numbers for programs."""

from html import escape
from typing import Any

from app.form.cost import Cost, needed
from app.jobs.lent import Plan
from app.words import clock, plain, size


def card(price: Cost) -> str:
    """Return the card as HTML."""
    kind = "measured on this machine" if price.measured else "estimated, until a run was timed"
    rows = [
        _forwards_row(price),
        ("Time", f"about {clock(price.seconds)}", kind),
        _memory_row(price),
        _download_row(price.download),
        *([_lent_row(price.lent)] if price.lent else []),
    ]
    body = "".join(
        f"<dt>{name}</dt><dd><b>{escape(value)}</b><span>{escape(note)}</span></dd>" for name, value, note in rows
    )
    return f"<h3>This run will cost</h3><dl>{body}</dl>"


def _forwards_row(price: Cost) -> tuple[str, str, str]:
    writes = f", each writing up to {price.written} tokens an example" if price.written else ""
    each = f"{price.steps:,} steps × {price.passes:.3g}{writes}"
    if not price.search:
        return "Forward passes", f"{price.forwards:,}", each
    return (
        "Forward passes",
        f"at most {price.forwards:,}",
        f"{each}, and {price.search} × {price.passes:.3g} for the rate",
    )


def _memory_row(price: Cost) -> tuple[str, str, str]:
    if price.bill is None:
        return "Memory", "unknown", "sizes are read once the model is here"
    verdict = "fits" if needed(price.bill) <= price.room else "does not fit"
    return (
        "Memory",
        size(needed(price.bill)),
        f"estimated, {price.dtype} on {price.device}: {verdict} in {size(price.room)} free",
    )


def _download_row(download: int | None) -> tuple[str, str, str]:
    if download == 0:
        return "Download", "nothing", "the model is here"
    return "Download", "unknown" if download is None else f"about {size(download)}", "once, from the model hub"


def _lent_row(plan: Plan) -> tuple[str, str, str]:
    many = f"{plan.slices} slices" if plan.slices > 1 else "one slice"
    each = " each" if plan.slices > 1 else ""
    return (
        "GPU quota",
        f"about {many} of {plan.seconds} s",
        f"lent by the call; {plan.counted} s of your daily quota have to be left for it{each}. A run is paused where "
        "the quota ends, and can go on later or on the CPU",
    )


def problem(message: str) -> str:
    """Return the card of settings that cannot work."""
    return f"<h3>This cannot run yet</h3><p>{escape(plain(message))}</p>"


def facts(price: Cost) -> dict[str, Any]:
    """Return the card's numbers for the API."""
    return {
        "steps": price.steps,
        "forward_passes": price.forwards,
        "tokens_a_forward": price.written,
        "search_steps": price.search,
        "seconds": price.seconds,
        "seconds_measured": price.measured,
        "memory_bytes": needed(price.bill) if price.bill else None,
        "download_bytes": price.download,
        "blocker": price.blocker,
        "quota_seconds": price.lent.slices * price.lent.counted if price.lent else 0,
    }
