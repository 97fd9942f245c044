"""What a model writes after a few prompts, before the run and now: all of it is text, none of it markup."""

import math
from collections.abc import Sequence
from html import escape

from app.jobs.view import View
from zocore.runs.events import CompletionsShown

MOST = 400  # characters of a prompt or a completion that are shown


def of_run(view: View) -> str:
    """Return the prompts of a run with what was written before its first step and what is written now."""
    return table(view.completions[0], view.completions[-1])


def table(before: CompletionsShown, now: CompletionsShown) -> str:
    """Return the same prompts continued at two steps, as a table."""
    rows = "".join(_row(before, now, i) for i in range(len(now.prompts)))
    wanted = "<th>Right answer</th>" if now.wanted else ""
    head = f"<tr><th>Prompt</th>{wanted}<th>Step {before.step}</th><th>Step {now.step}</th></tr>"
    caption = f"<caption>What is written after each prompt, step {before.step} → step {now.step}</caption>"
    place = '<div class="zo-table zo-written" tabindex="0" role="region" aria-label="Completions before and after">'
    return f'{place}<table class="zo-probes">{caption}<thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _row(before: CompletionsShown, now: CompletionsShown, i: int) -> str:
    wanted = f"<td>{escape(_cut(now.wanted[i]))}</td>" if now.wanted else ""
    was, is_ = _written(before, i), _written(now, i)
    return f"<tr><td>{escape(_cut(now.prompts[i]))}</td>{wanted}<td>{was}</td><td>{is_}</td></tr>"


def _written(shown: CompletionsShown, i: int) -> str:
    """A completion and its score, where it has one."""
    text = _cut(shown.completions[i].strip())
    said = escape(text) if text else '<span class="zo-quiet">nothing</span>'
    return f"<p>{said}</p>{_score(shown.scores, i)}"


def _score(scores: Sequence[float], i: int) -> str:
    if i >= len(scores) or not math.isfinite(scores[i]):
        return ""
    return f'<b class="zo-score">{scores[i]:.3g}</b>'


def _cut(text: str) -> str:
    return text if len(text) <= MOST else text[: MOST - 1] + "…"
