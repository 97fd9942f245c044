"""A tournament's tables in Markdown: accuracies, losses, what each row cost, and the kill test."""

from collections.abc import Sequence

from zocore.tables import markdown
from zocore.tournament.kill_test import NEEDED, KillTest
from zocore.tournament.paired import LEVEL, paired
from zocore.tournament.plan import Plan
from zocore.tournament.standings import STANDARD_ERRORS, Standing, learned, of_task


def overview(plan: Plan, table: Sequence[Standing], name: str) -> str:
    """Return entries by tasks: the mean of `loss` or `accuracy` on the test split, and its range over the seeds."""
    tasks = [place.name for place in plan.places]
    here = {(standing.entry, standing.task): standing for standing in table}
    rows = [[entry.name, *(_figure(here[entry, task], name) for task in tasks)] for entry in plan.entries]
    return markdown(["method", *tasks], rows)


def _figure(standing: Standing, name: str) -> str:
    if not standing.runs:
        return "failed" if standing.failures else "–"
    low, high = standing.range(name)
    spread = f" ({low:.3f}–{high:.3f})" if len(standing.runs) > 1 else ""
    return f"{standing.mean(name):.3f}{spread}" + (", some failed" if standing.failures else "")


def details(table: Sequence[Standing], task: str) -> str:
    """Return one task's rows with rate, steps and both axes of cost; seconds are this machine's."""
    head = ["method", "rate", "cost of finding it", "seeds", "steps", "forward cost", "seconds", "loss", "accuracy"]
    return markdown(head, [_row(standing) for standing in of_task(table, task)])


def _row(standing: Standing) -> list[str]:
    rate = "" if standing.lr is None else f"{standing.lr:g}"
    tuning = f"{standing.tuning_cost:.0f}" if standing.entry.takes_rate else ""
    if not standing.runs:
        reason = "; ".join(standing.failures) if standing.failures else "not run yet"
        return [standing.entry.name, rate, tuning, "0", "", "", "", reason.replace("|", "/"), ""]
    change = (f"{standing.mean(f'{name}_before'):.3f} -> {_figure(standing, name)}" for name in ("loss", "accuracy"))
    counts = (f"{standing.mean(name):.0f}" for name in ("steps", "forward_cost", "seconds"))
    return [standing.entry.name, rate, tuning, f"{len(standing.runs)}", *counts, *change]


def against(plan: Plan, table: Sequence[Standing], judged: str) -> str:
    """Return the judged entry against every other, paired over the seeds: the mean difference of test losses."""
    tasks = [place.name for place in plan.places]
    here = {(standing.entry.name, standing.task): standing for standing in table}
    others = [entry.name for entry in plan.entries if entry.name != judged]
    rows = [[name, *(_difference(here[judged, task], here[name, task]) for task in tasks)] for name in others]
    return markdown([f"{judged} minus", *tasks], rows)


def _difference(one: Standing, other: Standing) -> str:
    pairs = paired(one.losses, other.losses)
    if not pairs.seeds:
        return "–"
    interval = f" ({pairs.low:+.3f} to {pairs.high:+.3f})" if pairs.seeds > 1 else ""
    return f"{pairs.mean:+.3f}{interval}, {pairs.says}"


def verdict(test: KillTest) -> str:
    """Return the kill test: a row for each task, then its three figures in words."""
    head = ["task", "loss", "best rival", "its loss", "ratio", f"over the seeds, {LEVEL:.0%}", "rivals not run yet"]
    rows = [
        [
            duel.task + ("" if duel.learned else " (learned by nothing, not counted)"),
            f"{duel.loss:.3f}",
            duel.rival,
            f"{duel.rival_loss:.3f}",
            f"{duel.ratio:.2f}",
            duel.paired.says,
            ", ".join(duel.missing) or "none",
        ]
        for duel in test.duels
    ]
    counted, ratio = len(test.counted), "–" if test.ratio is None else f"{test.ratio:.2f}"
    return "\n".join(
        [
            markdown(head, rows) if rows else "No task has a run of both sides yet.",
            "",
            f"- Tasks won by {test.judged.name}: {test.wins} of {counted} that anything learned and that both sides "
            f"ran ({test.clear} of them clearly over the seeds); {NEEDED} are needed.",
            f"- Remaining loss over the best rival's, median of these tasks: {ratio}.",
            f"- Default that follows: {test.default}.",
            *([f"- Not run by both sides yet: {', '.join(test.unknown)}."] if test.unknown else []),
        ]
    )


def counted(plan: Plan, table: Sequence[Standing]) -> str:
    """Return the sentence on which tasks count."""
    ran = [place.name for place in plan.places if any(standing.runs for standing in of_task(table, place.name))]
    names = [name for name in ran if not learned(table, name)]
    rule = f"passes the commonest label's share by {STANDARD_ERRORS:g} standard errors"
    return f"No run yet {rule} on: {', '.join(names)}." if names else f"On every task that was run, something {rule}."
