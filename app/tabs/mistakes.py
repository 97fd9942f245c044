"""What the tuned model gets wrong: which label is taken for which, and the errors it is surest of."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.form import data_form
from app.form.starting import Guest
from app.jobs.store import JobStore
from app.tabs.stage import RECORDED, recorded
from app.tabs.tab import Site
from zocore.errors import InputError

if TYPE_CHECKING:
    from app.tabs.play import Play

ABOUT = (
    "The test examples, asked at the last step: each row is a true label, each column an answer. Below, the errors "
    "where the right answer had least of a chance."
)
WORST, CHARACTERS = 8, 300  # errors shown, and characters of each
MOST_LABELS = 12  # of the table; beyond them the commonest confusions are listed


def build(play: "Play", site: Site) -> None:
    """Lay out and connect the panel."""
    store = site.store
    with gr.Column(elem_classes="zo-panel", min_width=280):
        gr.HTML(f"<h2>What it gets wrong</h2><p class='zo-quiet'>{ABOUT}</p>")
        look = gr.Button("Show the errors", elem_id="zo-mistakes-look", size="sm")
        report = gr.HTML("", elem_id="zo-mistakes", min_height=20)

    def looked(secret: str, job: str, request: gr.Request) -> str:
        try:
            return mistakes(store, Guest.of(store, secret, request), job)
        except ValueError as error:
            return data_form.error(str(error))

    look.click(
        looked,
        [site.visitor, play.job],
        report,
        api_visibility="private",
        concurrency_id="lab",
        concurrency_limit=1,
        show_progress_on=report,
    )
    play.job.change(lambda: "", None, report, api_visibility="private", queue=False, show_progress="hidden")


def mistakes(store: JobStore, guest: Guest, job_id: str) -> str:
    """Return the confusions and the worst errors of a run, asked in the child that holds models, as HTML."""
    job = store.get(job_id) if job_id else None
    if job is not None and not job.over:
        raise InputError("the run is still under way: look at its errors when it is over")
    view = job.lane.view if job else recorded()
    if not view.steps:
        raise InputError("the run has done no step, so there is nothing to look at")
    folder = job.lane.folder if job else RECORDED
    store.may_ask(guest.secret, guest.address)
    asked = {"folder": str(folder.resolve()), "steps": view.steps, "count": WORST, "characters": CHARACTERS}
    return shown(store.models.ask("mistakes", **asked))


def shown(answer: Mapping[str, Any]) -> str:
    """Return what the question "mistakes" found, as HTML."""
    labels, matrix = answer["labels"], answer["matrix"]
    right, total = sum(row[i] for i, row in enumerate(matrix)), sum(map(sum, matrix))
    head = f"<p>Step {answer['step']}: <b>{right}</b> of {total} right.</p>"
    table = _matrix(labels, matrix) if len(labels) <= MOST_LABELS else _commonest(labels, matrix)
    return head + table + _worst(labels, answer["worst"])


def _matrix(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    head = "".join(f'<th scope="col">{escape(_cut(label))}</th>' for label in labels)
    rows = "".join(
        f'<tr><th scope="row">{escape(_cut(labels[i]))}</th>'
        + "".join(_cell(count, sum(row), i == j) for j, count in enumerate(row))
        + "</tr>"
        for i, row in enumerate(matrix)
    )
    corner = "<td class='zo-quiet'>true ↓ · said →</td>"
    return (
        '<div class="zo-table" tabindex="0" role="region" aria-label="Which label is taken for which">'
        f'<table class="zo-confusion"><thead><tr>{corner}{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _cell(count: int, of: int, right: bool) -> str:
    share = count / of if of else 0.0
    name = "right" if right else "wrong"
    return f'<td class="{name}" style="--share:{100 * share:.0f}%">{count or "·"}</td>'


def _commonest(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """The commonest confusions, where there are too many labels for a table."""
    pairs = [(count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if i != j and count]
    rows = "".join(
        f"<li><b>{escape(_cut(labels[i]))}</b> taken for <b>{escape(_cut(labels[j]))}</b>: {count}</li>"
        for count, i, j in sorted(pairs, reverse=True)[:MOST_LABELS]
    )
    return f"<ul>{rows}</ul>" if rows else ""


def _worst(labels: Sequence[str], worst: Sequence[Mapping[str, Any]]) -> str:
    if not worst:
        return "<p class='zo-quiet'>No error among them.</p>"
    rows = "".join(
        f"<li><q>{escape(one['text'])}</q><span>is <b>{escape(_cut(labels[one['truth']]))}</b> ({one['right']:.2f}), "
        f"said <b>{escape(_cut(labels[one['answer']]))}</b> ({one['sure']:.2f})</span></li>"
        for one in worst
    )
    return f"<h3>Worst errors</h3><ol class='zo-worst'>{rows}</ol>"


def _cut(text: str, most: int = 24) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
