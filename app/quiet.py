"""How the page's own events behave: no overlay over what they fill, no public name, no place in Gradio's queue."""

from typing import Any

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
"""For what answers at once; jobs have a queue of their own."""
LONG: dict[str, Any] = QUIET | {"queue": True, "concurrency_id": "lab"}
"""For what asks a model outside a run: one at a time."""
