"""The papers' runs and tasks in the form: a recipe fills it, and says what it should cost; a task says where it is."""

from dataclasses import replace
from html import escape

from app.form import catalogue, guard
from app.jobs.store import JobStore
from app.words import plain
from zocore.config import RunConfig
from zocore.data.named import named_tasks
from zocore.data.tasks import bundled_tasks, load_task
from zocore.errors import InputError
from zocore.recipes.recipe import recipe, recipes

NONE = ""
CHOICES = [("none", NONE), *((row.title, name) for name, row in recipes().items())]


def tasks(chosen: str = RunConfig.task) -> list[tuple[str, str]]:
    """Return (label, task) of the tasks on offer: those that come with the project, then the papers'."""
    here = [(load_task(name).title, name) for name in bundled_tasks()]
    hub = [(f"{row.title} · from the hub", name) for name, row in named_tasks().items() if not row.generated]
    choices = [*here, *hub]
    return choices if chosen in dict(choices).values() else [*choices, (chosen, chosen)]


def task_note(name: str) -> str:
    """Return what a task is and where its rows are, as HTML."""
    row = named_tasks().get(name)
    if row is not None:
        return (
            f"Rows from the hub, <b>{escape(row.hub)}</b>, downloaded once. Prompt: {escape(row.source)}. "
            f"The papers report {escape(row.metric)}."
        )
    return escape(load_task(name).description) if name in bundled_tasks() else ""


def config(name: str) -> RunConfig:
    """Return a recipe's settings as the form holds them: the model's kind is read off the model."""
    return replace(recipe(name).config, kind=None)


def note(name: str, store: JobStore) -> str:
    """Return what a recipe is, what it should cost, and what stands in its way here, as HTML."""
    if not name:
        return ""
    row = recipe(name)
    expected = row.said.removeprefix(f"{row.name}: ")
    return (
        f"{escape(row.paper)}, {escape(row.where)}.<br><b>Expected cost</b>, {escape(expected)}."
        f"{_missing(name, store)}"
        f"<br>On a command line: <code>zocore train --recipe {escape(row.name)}</code>"
    )


def _missing(name: str, store: JobStore) -> str:
    """A sentence where this server does not take the recipe, or its model is not here yet."""
    settings = config(name)
    try:
        guard.checked(settings, store.limits, store.root / "uploads")
    except InputError as error:
        return f'<p class="zo-error" role="alert">{escape(plain(str(error)))}</p>'
    if catalogue.downloaded(settings.model):
        return ""
    return f"<br>{escape(settings.model)} is not on this machine: a run downloads it from the hub first."
