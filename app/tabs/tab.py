"""A tab is one value: an id for links, a label, and what lays it out and connects it.

Adding a tab is a module with a `TAB` of its own and a line in `page.TABS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import gradio as gr

from app.jobs.store import JobStore

if TYPE_CHECKING:
    from app.tabs.play import Play
    from app.tabs.race import RacePage


@dataclass
class Site:
    """What the tabs share: the store, the visitor, and the two tabs that others drive."""

    store: JobStore
    visitor: gr.BrowserState
    tabs: gr.Tabs
    play: "Play" = field(init=False)  # set when Play is laid out, which comes first
    race: "RacePage" = field(init=False)


def nothing(site: Site) -> None:
    """Connect nothing: the tab is complete once it is laid out."""


@dataclass(frozen=True)
class Tab:
    """One tab of the page."""

    id: str
    label: str
    lay_out: Callable[[Site], None]
    connect: Callable[[Site], None] = nothing  # called once every tab is laid out
