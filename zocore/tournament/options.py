"""The tournament's options on the command line, the plan they make, and the command that goes on with it."""

import argparse
import shlex
from math import isfinite
from pathlib import Path

from zocore.data.tasks import bundled_tasks
from zocore.errors import InputError
from zocore.methods import METHODS
from zocore.tournament.entries import PROBE, ZERO_SHOT, entry
from zocore.tournament.plan import Plan, places

TOP = "writers:2"  # where learned feedback is at home: others are asked there too, with the same frozen prefix
JUDGED = f"feedback@{TOP}"
ENTRIES = (
    JUDGED,
    *(f"{name}@{row.home}" for name, row in METHODS.items()),
    *(f"{name}@{TOP}" for name, row in METHODS.items() if row.zeroth_order and row.home == "all"),
    f"adamw@{TOP}",
    "adamw@top:2",
    PROBE,
    ZERO_SHOT,
)
METHODS_HELP = "as in mezo,fzoo@writers:2+directions=4; the first is judged against the others (default: all)"
REPEATED = (
    *("methods", "tasks", "data_root", "model", "seeds", "forward_cost", "tuning_cost", "tuned", "around"),
    *("batch_size", "max_tokens", "eval_examples", "jobs", "out"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `zocore tournament`."""
    add = parser.add_argument
    add(
        "--methods",
        default=",".join(ENTRIES),
        help=METHODS_HELP,
    )
    add("--tasks", default=",".join(bundled_tasks()), help="bundled tasks and folders under --data-root")
    add("--data-root", type=Path, help="folder that holds a folder for each task that is not bundled")
    add("--model", default="bundled", help="the model for tasks that are not bundled")
    add("--seeds", default="0,1,2", help="seeds separated by commas (default: 0,1,2)")
    add("--forward-cost", type=float, default=600.0, help="budget of a run in plain forwards (default: 600)")
    add("--tuning-cost", type=float, default=150.0, help="budget of a run that tries a rate (default: 150)")
    add("--tuned", default="", help="tasks on which rates are found; others take them over (default: every task)")
    add("--around", default="", help="rates to begin at on tasks with --model, as in fzoo@writers:2:6e-2")
    add("--batch-size", type=int, default=16, help="examples per step (default: 16)")
    add("--max-tokens", type=int, default=128, help="longest prompt, in tokens (default: 128)")
    add("--eval-examples", type=int, default=400, help="most examples a run is judged on (default: 400)")
    add("--jobs", type=int, default=1, help="processes, of one thread each (default: 1)")
    add("--out", type=Path, required=True, help="folder of the finished cells, the tables and the plot")
    add("--tables-only", action="store_true", help="run nothing, write the tables of what is finished")


def plan_of(options: argparse.Namespace) -> Plan:
    """Return the plan that the options make. Raises InputError with one sentence when they make none."""
    entries = tuple(dict.fromkeys(entry(name) for name in options.methods.split(",")))
    where = places(options.tasks.split(","), options.data_root, options.model)
    tuned = tuple(name for name in options.tuned.split(",") if name) or tuple(place.name for place in where)
    for name in ("forward_cost", "tuning_cost"):
        if not (isfinite(getattr(options, name)) and getattr(options, name) > 0):
            raise InputError(f"--{name.replace('_', '-')} must be a number above 0, not {getattr(options, name)}")
    if options.jobs < 1:
        raise InputError(f"--jobs must be at least 1, not {options.jobs}")
    return Plan(
        entries,
        where,
        _seeds(options.seeds),
        options.forward_cost,
        options.tuning_cost,
        tuned,
        _rates(options.around),
        options.batch_size,
        options.eval_examples,
        options.max_tokens,
    )


def command(options: argparse.Namespace) -> str:
    """Return the command line that goes on with the tournament."""
    words = ["python", "-m", "zocore", "tournament"]
    for name, value in vars(options).items():
        if name in REPEATED and value not in (None, ""):
            words += ["--" + name.replace("_", "-"), f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(seed) for seed in text.split(",")))
    except ValueError:
        raise InputError(f"--seeds must look like 0,1,2, not {text!r}") from None


def _rates(text: str) -> dict[str, float]:
    """Rates by entry: mezo@writers:2:3e-3,fzoo@writers:2:6e-2."""
    try:
        pairs = [pair.rpartition(":") for pair in text.split(",") if pair]
        return {entry(name).name: float(rate) for name, _, rate in pairs}
    except InputError:
        raise
    except ValueError:
        raise InputError(f"--around must look like mezo@writers:2:3e-3,adamw@all:3e-4, not {text!r}") from None
