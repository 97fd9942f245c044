"""The visitor's own file: an upload becomes columns to choose from and a prompt to look at."""

import secrets
from typing import Any

import gradio as gr

from app.form import data_form
from app.form.data_form import DataForm
from app.jobs.store import JobStore
from app.quiet import QUIET
from zocore.errors import InputError


def connect(data: DataForm, store: JobStore) -> None:
    """Join the components of the data form."""
    most = store.limits.upload_bytes

    def chosen(source: str) -> tuple[Any, Any]:
        return gr.update(visible=source != data_form.OWN), gr.update(visible=source == data_form.OWN)

    def uploaded(file: str | None) -> tuple[Any, ...]:
        return taken(store, file)

    def previewed(*values: Any) -> str:
        chosen = data.named(values)
        try:
            settings = data_form.data_settings(chosen)
            return data_form.prompt_of(settings, most) if settings else ""
        except InputError as error:
            return data_form.error(str(error)) if chosen["data"] else ""

    data.source.input(chosen, data.source, [data.task, data.own], **QUIET)
    sent = data.file.change(uploaded, data.file, [data.rows, data.path, data.texts, data.label], **QUIET)
    sent.then(previewed, data.inputs, data.prompt, **QUIET)
    gr.on(
        [part.change for part in (data.texts, data.label, data.template, data.words)],
        previewed,
        data.inputs,
        data.prompt,
        **QUIET,
        trigger_mode="always_last",
    )


def taken(store: JobStore, file: str | None) -> tuple[Any, ...]:
    """Return what an upload fills: its first rows or what is wrong with it, its path, text and label columns."""
    nothing = gr.update(choices=[], value=[]), gr.update(choices=[], value=None)
    if not file:
        return "", "", *nothing
    most = store.limits.upload_bytes
    try:
        folder = store.root / "uploads" / secrets.token_urlsafe(12)
        path = data_form.keep_upload(file, folder, most)
        table, texts, label = data_form.understood(path, most)
    except InputError as error:
        return data_form.error(str(error)), "", *nothing
    columns = list(table.columns)
    chosen = gr.update(choices=columns, value=list(texts)), gr.update(choices=columns, value=label)
    return data_form.first_rows(table), str(path), *chosen
