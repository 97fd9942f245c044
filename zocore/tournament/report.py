"""A tournament's report: tables in Markdown and JSON and a plot, written beside its cells."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

from zocore.tournament import tables
from zocore.tournament.kill_test import KillTest, kill_test
from zocore.tournament.ledger import read_cells
from zocore.tournament.plan import Plan, take_up
from zocore.tournament.plot import plot
from zocore.tournament.rates import FACTOR
from zocore.tournament.schedule import TUNING_SEED, Ledger
from zocore.tournament.standings import Standing, standings

NAMED = ("torch", "transformers", "numpy")


def write_report(plan: Plan, folder: Path, command: str) -> str:
    """Write `tournament.md`, `tournament.json` and two plots, and return the Markdown.

    Raises InputError when the folder holds no finished cell, or another tournament's.
    """
    done = read_cells(folder)
    take_up(plan, folder)
    table = standings(plan, done)
    test = kill_test(plan, table, plan.entries[0])
    text = _text(plan, done, table, test, command)
    (folder / "tournament.md").write_text(text + "\n", encoding="utf-8")
    (folder / "tournament.svg").write_text(plot(plan, table), encoding="utf-8")
    (folder / "seconds.svg").write_text(plot(plan, table, "seconds"), encoding="utf-8")
    text_of_json = json.dumps(_json(plan, done, table, test, command), indent=1)
    (folder / "tournament.json").write_text(text_of_json + "\n", encoding="utf-8")
    return text


def _text(plan: Plan, done: Ledger, table: Sequence[Standing], test: KillTest, command: str) -> str:
    parts = [
        "# Tournament",
        _state(plan, done, table),
        f"```sh\n{command}\n```",
        "![dev loss against forward cost, median and range over the seeds](tournament.svg)",
        "[The same against seconds](seconds.svg).",
        "## Test accuracy",
        "Mean over the seeds, with the range where there are several.",
        tables.overview(plan, table, "accuracy"),
        "## Test loss",
        tables.overview(plan, table, "loss"),
        tables.counted(plan, table),
        f"## Kill test: {plan.entries[0].name}",
        "Against the published zeroth-order methods on the same subspace and frozen prefix.",
        tables.verdict(test),
        f"## {plan.entries[0].name} against all others",
        "Difference of test losses, paired over the seeds, with its interval by Student's t.",
        tables.against(plan, table, plan.entries[0].name),
    ]
    for place in plan.places:
        parts += [f"## {place.name} ({Path(place.model).name})", tables.details(table, place.name)]
    return "\n\n".join(parts)


def _state(plan: Plan, done: Ledger, table: Sequence[Standing]) -> str:
    """Budget, rule, dates, versions, and how much of the plan is finished."""
    dates = sorted({found.date for found in done.values()})
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    finished, all_ = sum(len(standing.runs) for standing in table), len(table) * len(plan.seeds)
    around = ", ".join(f"{name} {rate:g}" for name, rate in plan.around.items())
    sources = "; ".join(f"{p.name} from {' and '.join(plan.tuned_on(p.name))}" for p in plan.places)
    return "\n".join(
        [
            f"{when}; {', '.join(f'{name} {version(name)}' for name in NAMED)}.",
            "",
            f"- **Finished: {finished} of {all_} final runs** (entries x tasks x seeds), and "
            f"{sum(cell.kind == 'tune' for cell in done)} runs that try a rate.",
            f"- Each final run costs {plan.cost:g} forwards (1 is a plain forward of {plan.batch_size} examples), "
            f"each run that tries a rate {plan.tuning_cost:g}, with seed {TUNING_SEED}.",
            f"- Rates: {plan.first_rates} a factor {FACTOR:g} apart around the preset"
            + (f" (with {Path(plan.places[0].model).name} around: {around})" if around else "")
            + f", one more beyond the edge while the best lies on it, at most {plan.most_rates}; chosen on dev loss.",
            f"- Where rates come from (the geometric mean of several): {sources}.",
            f"- The test split (at most {plan.eval_examples} examples, the same for all) is seen by final runs alone.",
            "- Seconds are those of training, on a machine that may have been shared.",
        ]
    )


def _json(plan: Plan, done: Ledger, table: Sequence[Standing], test: KillTest, command: str) -> dict[str, Any]:
    duels = [asdict(duel) | {"ratio": duel.ratio, "says": duel.paired.says} for duel in test.duels]
    values = {
        "command": command,
        "versions": {name: version(name) for name in NAMED},
        "plan": plan.to_json(),
        "standings": [_standing(standing) for standing in table],
        "kill_test": {
            "judged": test.judged.name,
            "duels": duels,
            "wins": test.wins,
            "clear": test.clear,
            "counted": len(test.counted),
            "ratio": test.ratio,
            "default": test.default,
        },
        "cells": len(done),
    }
    return _plain(values)


def _standing(standing: Standing) -> dict[str, Any]:
    names = ("loss", "accuracy", "loss_before", "accuracy_before", "steps", "forward_cost", "forward_passes", "seconds")
    return {
        "entry": standing.entry.name,
        "task": standing.task,
        "lr": standing.lr,
        "tuning_cost": standing.tuning_cost,
        "missing_seeds": standing.missing,
        "failures": standing.failures,
        "runs": [
            {"seed": run.cell.seed, "date": run.date, "curve": run.curve} | {name: getattr(run, name) for name in names}
            for run in standing.runs
        ],
    }


def _plain(value: Any) -> Any:
    """The same without infinities and NaN, which JSON does not know."""
    if isinstance(value, float) and not isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
