"""A lesson for a class: the teacher's words above the tabs, those tabs that are used, a question and its answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from app.form import controls, data_form, share
from app.form.share import Lesson
from app.form.starting import Guest
from app.jobs.lessons import MOST_TEXT
from app.quiet import QUIET
from app.tabs.tab import Site
from zocore.errors import InputError

ABOUT = (
    "Choose the settings for your class on the Play tab, write what it should read, and copy the link. It opens the "
    "page with those settings, without the controls, and with the tabs that you leave: what is left is the cost, the "
    "Start button and the charts. Anybody can show the controls again. Answers are kept without names for two weeks; "
    "who has the link sees them."
)
COPY = """async (code, lesson) => {
  if (!code) return;
  await zoCopyLink('#zo-lesson-link', '?cfg=' + code + '&lesson' + (lesson ? '=' + lesson : ''));
}"""


@dataclass
class Room:
    """What a class sees above the tabs."""

    column: gr.Column
    text: gr.HTML
    question: gr.Column
    asked: gr.HTML
    answer: gr.Textbox
    send: gr.Button
    look: gr.Button
    answers: gr.HTML
    name: gr.State  # of the lesson


def layout() -> Room:
    """Lay out the room, which is hidden until a link opens it."""
    with gr.Column(visible=False, elem_classes="zo-panel zo-class", elem_id="zo-class") as column:
        text = gr.HTML("", elem_id="zo-class-text")
        with gr.Column(visible=False) as question:
            asked = gr.HTML("", elem_id="zo-class-question")
            answer = gr.Textbox(
                label="Your answer",
                lines=2,
                max_lines=6,
                max_length=MOST_TEXT,
                elem_id="zo-class-answer",
            )
            with gr.Row(elem_classes="zo-buttons"):
                send = gr.Button("Answer", variant="primary", size="sm", elem_id="zo-class-send", scale=0)
                look = gr.Button("See the class's answers", size="sm", elem_id="zo-class-look", scale=0, min_width=200)
            answers = gr.HTML("", elem_id="zo-class-answers")
    return Room(column, text, question, asked, answer, send, look, answers, gr.State(""))


def connect(room: Room, site: Site, blocks: gr.Blocks, tabs: Sequence[str]) -> None:
    """Fill the room from the page's address, and join the question to the answers."""
    store = site.store

    def opened(request: gr.Request) -> tuple[Any, ...]:
        lesson, name = share.lesson_of(request.query_params.get("cfg", "")), request.query_params.get("lesson", "")
        if lesson is None or "lesson" not in request.query_params:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), ""
        asks = bool(lesson.question) and store.lessons.known(name)
        shown = gr.update(visible=bool(lesson.text) or asks)
        question = f"<h3>{escape(lesson.question)}</h3>"
        return shown, words(lesson, tabs), gr.update(visible=asks), question, name if asks else ""

    def answered(secret: str, name: str, text: str, request: gr.Request) -> tuple[str, str]:
        guest = Guest.of(store, secret, request)
        try:
            store.may_ask(guest.secret, guest.address)
            store.lessons.answer(name, guest.secret, text)
        except InputError as error:
            return data_form.error(str(error)), guest.secret
        return listed(store.lessons.answers(name)), guest.secret

    blocks.load(opened, None, [room.column, room.text, room.question, room.asked, room.name], **QUIET)
    room.send.click(answered, [site.visitor, room.name, room.answer], [room.answers, site.visitor], **QUIET)
    room.look.click(lambda name: listed(store.lessons.answers(name)), room.name, room.answers, **QUIET)


def words(lesson: Lesson, tabs: Sequence[str]) -> str:
    """Return the teacher's words as HTML, with the rule that hides the tabs the lesson does not use."""
    hidden = [tab for tab in tabs if lesson.tabs and tab not in lesson.tabs]
    rules = ", ".join(f".zo-lesson-mode #zo-tab-{tab}-button" for tab in hidden)
    style = f"<style>{rules} {{ display: none !important; }}</style>" if hidden else ""
    return f'{style}<p class="zo-teacher">{escape(lesson.text)}</p>'


def listed(answers: Sequence[str]) -> str:
    """Return a class's answers as HTML."""
    if not answers:
        return "<p class='zo-quiet'>Nobody has answered yet.</p>"
    rows = "".join(f"<li>{escape(answer)}</li>" for answer in answers)
    count = "1 answer" if len(answers) == 1 else f"{len(answers)} answers"
    return f"<p class='zo-quiet'>{count}:</p><ul class='zo-said'>{rows}</ul>"


def desk(site: Site, tabs: Sequence[tuple[str, str]]) -> None:
    """Lay out and connect where a teacher makes the link: for the tabs given as (label, id)."""
    store, form = site.store, site.play.form
    with gr.Column(elem_classes="zo-panel zo-desk", elem_id="zo-desk"):
        gr.HTML(f"<h2>For a class</h2><p class='zo-quiet'>{ABOUT}</p>")
        text = gr.Textbox(
            label="What the class reads", lines=3, max_lines=10, max_length=share.MOST_LESSON, elem_id="zo-desk-text"
        )
        question = gr.Textbox(label="A question to answer", max_length=share.MOST_QUESTION, elem_id="zo-desk-question")
        used = gr.CheckboxGroup(list(tabs), value=["play"], label="Tabs to show", elem_id="zo-desk-tabs")
        link = gr.Button("Copy a lesson link", size="sm", elem_id="zo-lesson-link", min_width=220)
        problem = gr.HTML("", elem_id="zo-desk-problem")
    code = gr.Textbox("", visible="hidden", elem_id="zo-lesson-code", label="Link")
    name = gr.Textbox("", visible="hidden", elem_id="zo-lesson-name", label="Lesson")

    def made(text: str, question: str, used: Sequence[str], *values: Any) -> tuple[str, str, str]:
        lesson = Lesson((text or "").strip(), (question or "").strip(), tuple(used or ()))
        try:
            config = controls.collect(form.named(values), store.limits)
            link = share.encode(config, lesson.tabs[0] if lesson.tabs else "play", lesson)
        except ValueError as error:
            return "", "", data_form.error(f"No link: {error}")
        return link, store.lessons.issue() if lesson.question else "", ""

    done = link.click(made, [text, question, used, *form.inputs], [code, name, problem], **QUIET)
    done.then(None, [code, name], None, js=COPY)
