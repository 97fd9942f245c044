"""The task: one that comes with the project, or the visitor's own file with a preview and one sentence per error."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app.form import aims
from app.form.reading import MOST_LABELS, joined
from app.form.recipes import task_note
from app.words import plain, size
from zocore.config import RunConfig
from zocore.errors import InputError

KNOWN, OWN = "A known task", "My own data"
CELL = 120  # characters of a cell shown


@dataclass
class DataForm:
    """The components that say what to learn."""

    source: gr.Radio
    task: gr.Dropdown
    about: gr.HTML  # the task
    own: gr.Column
    file: gr.File
    path: gr.State  # where the upload was put
    texts: gr.Dropdown
    label: gr.Dropdown
    template: gr.Textbox
    words: gr.Textbox
    model: gr.components.Component  # what the template has to suit
    objective: gr.components.Component  # what decides how a file is read
    labelled: gr.Column  # what files of texts have no use for
    rows: gr.HTML
    read: gr.HTML
    prompt: gr.HTML

    @property
    def parts(self) -> dict[str, gr.components.Component]:
        """What `data_settings` reads, by name."""
        return {
            "source": self.source,
            "objective": self.objective,
            "data": self.path,
            "text_columns": self.texts,
            "label_column": self.label,
            "template": self.template,
            "label_words": self.words,
        }

    @property
    def inputs(self) -> list[gr.components.Component]:
        """What a handler takes to read the data's settings; `named` tells which value is which."""
        return list(self.parts.values())

    def named(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return the values of `inputs` by name."""
        return dict(zip(self.parts, values, strict=True))

    @classmethod
    def build(
        cls,
        tasks: Sequence[tuple[str, str]],
        chosen: str,
        most: int,
        model: gr.components.Component,
        objective: gr.components.Component,
    ) -> "DataForm":
        """Lay the components out, in the order in which one's own data is prepared."""
        source = gr.Radio([KNOWN, OWN], value=KNOWN, label="What to learn", elem_id="zo-source")
        task = gr.Dropdown(list(tasks), value=chosen, label="Task", elem_id="zo-task")
        about = gr.HTML(task_note(chosen), elem_id="zo-task-note", elem_classes="zo-note")
        with gr.Column(visible=False, elem_classes="zo-own") as own:
            gr.HTML(_step("Upload a file"))
            file = gr.File(
                label=f"CSV, TSV or JSON Lines, at most {size(most)}",
                type="filepath",
                height=110,
                elem_id="zo-file",
                file_count="single",
            )
            gr.HTML('<div id="zo-too-large" role="alert"></div>')  # filled by upload.js
            rows = gr.HTML("", elem_id="zo-rows")
            gr.HTML(_step("Which columns"))
            with gr.Row(elem_classes="zo-pair"):
                texts = gr.Dropdown([], multiselect=True, label="Text columns", elem_id="zo-texts", min_width=120)
                label = gr.Dropdown([], label="Label column", elem_id="zo-label", min_width=120)
            read = gr.HTML("", elem_id="zo-read")
            with gr.Column(elem_classes="zo-labelled") as labelled:
                gr.HTML(_step("A word for each label"))
                words = gr.Textbox(
                    "",
                    label="Label words",
                    show_label=False,
                    info="The model answers with one of these. For labels that are numbers they are a guess: say what "
                    "they mean.",
                    placeholder="0 = terrible\n1 = great",
                    lines=2,
                    max_lines=8,
                    elem_id="zo-words",
                    max_length=2000,
                )
            gr.HTML(_step("How it is asked"))
            template = gr.Textbox(
                "",
                label="Template",
                show_label=False,
                info="Columns in braces, and {label} where the answer goes.",
                placeholder="{text}\nAnswer: {label}",
                lines=2,
                max_lines=6,
                elem_id="zo-template",
                max_length=2000,
            )
            prompt = gr.HTML("", elem_id="zo-prompt")
        fields = (gr.State(""), texts, label, template, words, model, objective, labelled, rows, read, prompt)
        return cls(source, task, about, own, file, *fields)


def _step(title: str) -> str:
    return f'<h3 class="zo-wizard"><span></span>{title}</h3>'  # counted by form.css, as some are not always there


def data_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of one's own data, none for a bundled task. Raises InputError without a file."""
    if values["source"] != OWN:
        return {}
    if not values["data"]:
        raise InputError("upload a file with your own data, or choose a known task")
    label, template = values["label_column"] or None, (values["template"] or "").strip() or None
    own = {"data": values["data"], "task": RunConfig.task, "label_column": label, "template": template}
    if aims.reads_text(values["objective"]):
        return own
    return own | {
        "text_columns": ",".join(values["text_columns"] or ()) or None,
        "label_words": joined(values["label_words"] or "") or None,
    }


def keep_upload(upload: str, folder: Path, most: int) -> Path:
    """Move an upload to where runs can read it again. Raises InputError when it is too large."""
    path = Path(upload)
    if path.stat().st_size > most:
        raise InputError(f"{path.name} has {size(path.stat().st_size)}, over the limit of {size(most)}: use a part")
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / path.name
    shutil.copyfile(path, kept)
    return kept


def first_rows(table: Mapping[str, Any]) -> str:
    """Return the first rows of a table, as the question "table" found them, as HTML."""
    head = "".join(f"<th>{escape(_cut(name))}</th>" for name in table["columns"])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cut(row.get(name, '')))}</td>" for name in table["columns"]) + "</tr>"
        for row in table["rows"]
    )
    note = f"{table['count']:,} rows; the first {len(table['rows'])}:"
    table_ = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="zo-table" tabindex="0" role="region" aria-label="First rows"><p>{note}</p>{table_}</div>'


def example(task: Mapping[str, Any]) -> str:
    """Return the first training example as the model sees it, and the words it chooses from, as HTML."""
    pairs = list(zip(task["labels"], task["words"], strict=True))
    labels = ", ".join(f"{_cut(name, 40)} → {_cut(word, 40)}" for name, word in pairs[:MOST_LABELS])
    labels += f" and {len(pairs) - MOST_LABELS} more" if len(pairs) > MOST_LABELS else ""
    prompt = f'<p class="zo-quiet">One prompt, with its answer:</p><pre>{escape(_cut(task["text"], 600))}</pre>'
    notes = "".join(f'<p class="zo-warning">{escape(note)}</p>' for note in _notes(task))
    return f'{prompt}<p class="zo-quiet">{escape(labels)}</p>{notes}<p class="zo-quiet">Ready: press Start above.</p>'


def _notes(task: Mapping[str, Any]) -> Iterator[str]:
    """What a visitor should know of how their file was read."""
    if list(task["labels"]) == list(task["words"]) and any(name.isdigit() for name in task["labels"]):
        first, second = task["labels"][:2]
        yield (
            f'The labels are numbers, so the model would be asked for the words "{first}", "{second}", which mean '
            f"nothing to it. Write a word for each under Label words, such as {first}=terrible,{second}=great."
        )


def error(message: str) -> str:
    """Return a problem as HTML, to stand beside its control."""
    return f'<p class="zo-error" role="alert">{escape(plain(message))}</p>'


def _cut(text: str, most: int = CELL) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
