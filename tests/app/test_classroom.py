"""Lessons: what a link carries, and a class's answers, which only the link opens."""

import os
import time
from pathlib import Path

import pytest

from app.form import share
from app.form.share import Lesson
from app.jobs import lessons as module
from app.jobs.lessons import MOST_TEXT, Lessons
from app.jobs.visitors import Visitors
from app.tabs import classroom, learn
from app.tabs.learn import LESSONS
from zocore.config import RunConfig
from zocore.errors import InputError

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def lessons(tmp_path: Path) -> Lessons:
    return Lessons(tmp_path / "lessons", "key")


def test_a_link_carries_the_lesson_beside_the_settings() -> None:
    lesson = Lesson("Lies dies zuerst: ö 中 \n\nund dann das.", "Warum?", ("play", "race"))
    config = RunConfig(method="grzo", steps=7)
    code = share.encode(config, "play", lesson)
    assert share.lesson_of(code) == lesson and share.decode(code) == (config, "play")
    assert share.lesson_of(share.encode(config)) is None
    long = Lesson("中" * share.MOST_LESSON, "中" * share.MOST_QUESTION, ("play",))
    assert share.lesson_of(share.encode(config, "play", long)) == long
    with pytest.raises(InputError, match="at most 1,500 characters"):
        share.encode(config, "play", Lesson("x" * 1501))


@pytest.mark.parametrize(
    "held",
    [
        None,
        [],
        "text",
        {"text": 1, "question": "", "tabs": []},
        {"text": "", "question": "", "tabs": [1]},
        {"text": "", "question": "", "tabs": 5},
        {"text": ["a"], "question": "", "tabs": []},
        {"text": "x" * 5000, "question": "", "tabs": []},
        {"question": "", "tabs": []},
    ],
)
def test_a_damaged_lesson_is_none(held: object) -> None:
    import base64
    import json

    code = base64.urlsafe_b64encode(json.dumps({"run": {}, "lesson": held}).encode()).decode()
    assert share.lesson_of(code) is None
    assert share.lesson_of("broken") is None and share.lesson_of("x" * 20_000) is None


def test_the_teachers_words_are_text_and_hide_tabs_that_exist_alone() -> None:
    shown = classroom.words(Lesson(HOSTILE, "", ("play", "</style><script>")), ["play", "race", "learn"])
    assert "<img" not in shown and "<script" not in shown and "&lt;img" in shown
    assert "#zo-tab-race-button" in shown and "#zo-tab-learn-button" in shown and "#zo-tab-play-button" not in shown
    assert "<style" not in classroom.words(Lesson("all tabs"), ["play", "race"])


def test_answers_are_kept_one_a_visitor_and_are_text(lessons: Lessons) -> None:
    name, other = lessons.issue(), lessons.issue()
    lessons.answer(name, "ann", "  first thought ")
    lessons.answer(name, "bob", HOSTILE)
    lessons.answer(name, "ann", "second thought")
    assert lessons.answers(name) == ["second thought", HOSTILE] and lessons.answers(other) == []
    assert Lessons(lessons.root, "key").answers(name) == ["second thought", HOSTILE]
    shown = classroom.listed(lessons.answers(name))
    assert "2 answers" in shown and "<img" not in shown
    held = "".join(path.read_text() for path in lessons.root.iterdir())
    assert "ann" not in held and name not in held


def test_only_names_issued_here_are_lessons(lessons: Lessons) -> None:
    """Neither a made-up name, nor a path, nor a visitor's own secret opens one."""
    for name in ("", "made up", "../../etc/passwd", "a.b", Visitors("key").issue(), "x" * 10_000, None, 5):
        assert not lessons.known(name)
        with pytest.raises(InputError, match="not known here"):
            lessons.answer(name, "ann", "hello")  # type: ignore[arg-type]
        assert lessons.answers(name) == []  # type: ignore[arg-type]
    assert not lessons.root.exists()


def test_a_lesson_keeps_so_much_and_no_more(lessons: Lessons, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ANSWERS", 3)
    name = lessons.issue()
    for visitor in ("a", "b", "c"):
        lessons.answer(name, visitor, f"answer of {visitor}")
    with pytest.raises(InputError, match="keeps no more"):
        lessons.answer(name, "d", "too late")
    lessons.answer(name, "a", "changed")
    assert lessons.answers(name) == ["changed", "answer of b", "answer of c"]
    for text, said in (("x" * (MOST_TEXT + 1), "at most 500"), ("  \n", "write an answer"), ("", "write an answer")):
        with pytest.raises(InputError, match=said):
            lessons.answer(name, "a", text)
    lessons.answer(name, "a", "half a pair: \ud800")  # which would break the page of everybody in the class
    assert lessons.answers(name)[0] == "half a pair: ?"


def test_the_oldest_lesson_goes_where_there_are_too_many(lessons: Lessons, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LESSONS", 3)
    names = [lessons.issue() for _ in range(5)]
    for age, name in enumerate(names):
        lessons.answer(name, "ann", "here")
        os.utime(lessons._path(name), (time.time() - 1000 + age,) * 2)
    assert [bool(lessons.answers(name)) for name in names] == [False, False, True, True, True]
    os.utime(lessons._path(names[3]), (time.time() - 2 * module.KEPT,) * 2)
    lessons.answer(lessons.issue(), "ann", "here")
    assert not lessons.answers(names[3])


def test_every_step_of_learn_says_where_to_look() -> None:
    assert len(LESSONS) == 7
    assert all(lesson.watch.startswith("#zo-") and lesson.look for lesson in LESSONS)
    assert {tab for _, tab in learn.CLASS_TABS} == {"play", "race", "microscope", "memory", "break", "learn"}
