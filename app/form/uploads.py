"""The visitor's own file: an upload becomes columns to choose from and a prompt to look at."""

import secrets
from typing import Any

import gradio as gr

from app.form import data_form
from app.form.data_form import DataForm
from app.form.starting import Guest
from app.jobs.store import JobStore
from app.quiet import QUIET
from zocore.errors import InputError


def connect(data: DataForm, store: JobStore, visitor: gr.BrowserState) -> None:
    """Join the components of the data form."""
    most = store.limits.upload_bytes

    def chosen(source: str) -> tuple[Any, Any]:
        return gr.update(visible=source != data_form.OWN), gr.update(visible=source == data_form.OWN)

    def uploaded(secret: str, file: str | None, request: gr.Request) -> tuple[Any, ...]:
        return read(store, Guest.of(store, secret, request), file)

    def previewed(*values: Any) -> str:
        chosen = data.named(values)
        try:
            settings = data_form.data_settings(chosen)
            return data_form.example(store.files.ask("prompt", **settings, most=most)) if settings else ""
        except InputError as error:
            return data_form.error(str(error)) if chosen["data"] else ""

    data.source.input(chosen, data.source, [data.task, data.own], **QUIET)
    sent = data.file.change(uploaded, [visitor, data.file], [data.rows, data.path, data.texts, data.label], **QUIET)
    sent.then(previewed, data.inputs, data.prompt, **QUIET)
    gr.on(
        [part.change for part in (data.texts, data.label, data.template, data.words)],
        previewed,
        data.inputs,
        data.prompt,
        **QUIET,
        trigger_mode="always_last",
    )


def read(store: JobStore, guest: Guest, file: str | None) -> tuple[Any, ...]:
    """Return what an upload fills: its first rows or what is wrong with it, its path, text and label columns."""
    nothing = gr.update(choices=[], value=[]), gr.update(choices=[], value=None)
    if not file:
        return "", "", *nothing
    most = store.limits.upload_bytes
    try:
        folder = store.root / "uploads" / secrets.token_urlsafe(12)
        store.may_ask(guest.secret, guest.address)
        path = data_form.keep_upload(file, folder, most)
        found = store.files.ask("table", path=str(path.resolve()), most=most)
    except InputError as error:
        return data_form.error(str(error)), "", *nothing
    columns = found["columns"]
    chosen = gr.update(choices=columns, value=found["texts"]), gr.update(choices=columns, value=found["label"])
    return data_form.first_rows(found), str(path.resolve()), *chosen
