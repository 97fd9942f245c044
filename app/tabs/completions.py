"""What a model writes after a few prompts, before the run and now: all of it is text, none of it markup."""

import math
from collections.abc import Sequence
from html import escape

from app.jobs.view import View
from zocore.runs.events import CompletionsShown

MOST = 400  # characters of a prompt or a completion that are shown


def of_run(view: View) -> str:
    """Return the prompts of a run with what was written before its first step and what is written now."""
    return listed(view.completions[0], view.completions[-1])


def listed(before: CompletionsShown, now: CompletionsShown) -> str:
    """Return the same prompts continued at two steps, as a list."""
    items = "".join(_item(before, now, i) for i in range(len(now.prompts)))
    return f'<ol class="zo-written" aria-label="Completions before and after">{items}</ol>'


def _item(before: CompletionsShown, now: CompletionsShown, i: int) -> str:
    wanted = now.wanted[i] if i < len(now.wanted) else ""
    right = f' <span class="zo-quiet">right: {escape(_cut(wanted))}</span>' if wanted else ""
    shown = [before] if before is now else [before, now]
    written = "".join(f"<dt>Step {one.step}</dt><dd>{_text(one, i)}</dd>" for one in shown)
    return f"<li><p>{escape(_cut(now.prompts[i]))}{right}</p><dl>{written}</dl></li>"


def _text(shown: CompletionsShown, i: int) -> str:
    """A completion and its score, where it has one."""
    text = _cut(shown.completions[i].strip())
    return (escape(text) if text else "<em>nothing</em>") + _score(shown.scores, i)


def _score(scores: Sequence[float], i: int) -> str:
    if i >= len(scores) or not math.isfinite(scores[i]):
        return ""
    return f' <b title="score">{scores[i]:.3g}</b>'


def _cut(text: str) -> str:
    return text if len(text) <= MOST else text[: MOST - 1] + "…"
