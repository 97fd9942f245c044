"""The visitor's own file, step by step: its columns, what was read, a word for each label, and a prompt to look at."""

import secrets
from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.form import aims, catalogue, data_form, reading, text_reading
from app.form.data_form import DataForm
from app.form.starting import Guest
from app.jobs.store import JobStore
from app.quiet import QUIET
from zocore.errors import InputError


def _nothing() -> tuple[Any, Any]:
    """The two lists of columns, empty; made anew each time, as Gradio changes what it is given."""
    return gr.update(choices=[], value=[]), gr.update(choices=[], value=None)


def connect(data: DataForm, store: JobStore, visitor: gr.BrowserState) -> None:
    """Join the components of the data form."""
    most = store.limits.upload_bytes

    def chosen(source: str) -> tuple[Any, Any, Any]:
        own = source == data_form.OWN
        return gr.update(visible=not own), gr.update(visible=not own), gr.update(visible=own)

    def uploaded(secret: str, file: str | None, objective: Any, request: gr.Request) -> tuple[Any, ...]:
        return read(store, Guest.of(store, secret, request), file, objective)

    def turned(secret: str, file: str | None, objective: Any, before: bool, request: gr.Request) -> tuple[Any, ...]:
        text = aims.reads_text(objective)
        if text == before:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip(), text
        rows, path, texts, label = read(store, Guest.of(store, secret, request), file, objective)
        places = {**texts, "visible": not text}, {**label, "label": "Answer column" if text else "Label column"}
        return rows, path, *places, gr.update(visible=not text), text

    def worded(path: str, label: str | None, texts: Sequence[str] | None, objective: Any) -> Any:
        return "" if aims.reads_text(objective) else words(store, path, label, texts or ())

    def prompted(path: str, model: Any, texts: Sequence[str] | None) -> str:
        return reading.template_for(kind_of(store, model), texts or ()) if path else ""

    def again(path: str, model: Any, texts: Sequence[str] | None, template: str) -> Any:
        ours = not (template or "").strip() or template in reading.templates_for(texts or ())
        return prompted(path, model, texts) if path and ours else gr.skip()

    def previewed(*values: Any) -> tuple[str, str]:
        chosen = data.named(values)
        try:
            settings = data_form.data_settings(chosen)
            if settings and aims.reads_text(chosen["objective"]):
                answer = store.files.ask("written", **settings)
                return text_reading.report(answer), text_reading.example(answer)
            settings.pop("task", None)
            answer = store.files.ask("prompt", **settings, most=most) if settings else None
        except InputError as error:
            return "", data_form.error(str(error)) if chosen["data"] else ""
        return (reading.report(answer), data_form.example(answer)) if answer else ("", "")

    data.source.change(chosen, data.source, [data.task, data.about, data.own], **QUIET)
    sent = data.file.change(
        uploaded,
        [visitor, data.file, data.objective],
        [data.rows, data.path, data.texts, data.label],
        **QUIET,
    )
    named = sent.then(worded, [data.path, data.label, data.texts, data.objective], data.words, **QUIET)
    asked = named.then(prompted, [data.path, data.model, data.texts], data.template, **QUIET)
    asked.then(previewed, data.inputs, [data.read, data.prompt], **QUIET)
    text = gr.State(False)  # whether the file was last read as texts
    seen = data.objective.change(  # type: ignore[attr-defined]
        turned,
        [visitor, data.file, data.objective, text],
        [data.rows, data.path, data.texts, data.label, data.labelled, text],
        **QUIET,
    )
    named = seen.then(worded, [data.path, data.label, data.texts, data.objective], data.words, **QUIET)
    asked = named.then(prompted, [data.path, data.model, data.texts], data.template, **QUIET)
    asked.then(previewed, data.inputs, [data.read, data.prompt], **QUIET)
    data.label.input(worded, [data.path, data.label, data.texts, data.objective], data.words, **QUIET)
    data.texts.input(prompted, [data.path, data.model, data.texts], data.template, **QUIET)
    data.model.change(again, [data.path, data.model, data.texts, data.template], data.template, **QUIET)  # type: ignore[attr-defined]
    gr.on(
        [part.change for part in (data.texts, data.label, data.template, data.words)],
        previewed,
        data.inputs,
        [data.read, data.prompt],
        **QUIET,
        trigger_mode="always_last",
    )


def read(store: JobStore, guest: Guest, file: str | None, objective: object) -> tuple[Any, ...]:
    """Return what an upload fills: its first rows or what is wrong with it, its path, text and label columns."""
    if not file:
        return "", "", *_nothing()
    most, text = store.limits.upload_bytes, aims.reads_text(objective)
    try:
        folder = store.root / "uploads" / secrets.token_urlsafe(12)
        store.may_ask(guest.secret, guest.address)
        path = data_form.keep_upload(file, folder, most)
        table = store.files.ask("rows" if text else "table", path=str(path.resolve()), most=most)
    except InputError as error:
        return data_form.error(str(error)), "", *_nothing()
    columns = table["columns"]
    chosen = gr.update(choices=columns, value=table["texts"]), gr.update(choices=columns, value=table["label"])
    return data_form.first_rows(table), str(path.resolve()), *chosen


def words(store: JobStore, path: str, label: str | None, texts: Sequence[str]) -> str:
    """Return a word for each label of an upload, to be changed; none where the labels cannot be read."""
    if not path or not label:
        return ""
    try:
        facts = {"path": path, "label": label, "texts": list(texts), "most": store.limits.upload_bytes}
        answer = store.files.ask("labels", **facts)
    except InputError:  # the preview says what is wrong
        return ""
    return reading.words_for(answer["labels"], answer["names"])


def kind_of(store: JobStore, model: Any) -> str | None:
    """Return the kind of a model as far as it is known without loading it; strangers learn nothing of folders."""
    name = str(model or "")
    return catalogue.kind(name) if store.limits.folders or catalogue.is_named(name) else None
