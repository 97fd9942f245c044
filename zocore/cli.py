"""The command line: each command reads its options, asks the engine, and writes text."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from zocore.arguments import BEST, ONLY, RUNS, Commands, config_of, parser
from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.terminal import Output, complain, is_text, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 when a run failed, 2 for bad input."""
    words = sys.argv[1:] if arguments is None else arguments
    for word in words:
        if not is_text(word):
            _parser().error(f"the argument {word!r} is not text in UTF-8: type it anew, or rename the file")
    options = _parser().parse_args(words)
    try:
        if getattr(options, "recipe", None):
            options = _parser(_of_recipe(options.recipe)).parse_args(words)
        _alone_or_shared(options)
        return options.command(options)
    except ValueError as error:
        complain(f"zocore: {error}")
        return 2
    except OSError as error:  # a folder that cannot be written, a full disk
        complain(f"zocore: {error.filename or 'output'}: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        complain("zocore: interrupted")
        return 130


def _of_recipe(name: str) -> dict[str, Any]:
    """A recipe's settings, which take the place of the defaults; says what it should cost."""
    from zocore.recipes.recipe import recipe

    chosen = recipe(name)
    say(chosen.said)
    return dict(chosen.settings)


def _alone_or_shared(options: argparse.Namespace) -> None:
    """Raise ValueError when a launcher started several processes for what one has to do."""
    if int(os.environ.get("WORLD_SIZE") or 1) > 1 and options.command not in (train, resume):
        raise ValueError("several processes share train and resume alone: start this command without a launcher")


def train(options: argparse.Namespace) -> int:
    """Fine-tune a model and record the run."""
    from zocore.parallel.ranks import joined
    from zocore.runs.loop import run
    from zocore.runs.recording import claim

    config = config_of(options)
    with joined(config.device) as (ranks, device), _stop_on_interrupt() as stop:
        folder = options.out or _next_folder(config)
        events = run(replace(config, device=device), stop, ranks=ranks, folder=folder if ranks.first else None)
        if not ranks.first:
            return _accompany(events)
        report = _report(options, folder)
        claim(folder, config)
        try:
            return _follow(events, folder, report)
        finally:
            _drop_empty(folder)


def resume(options: argparse.Namespace) -> int:
    """Go on with a run that was cut off or stopped."""
    from zocore.parallel.ranks import joined
    from zocore.runs.loop import run
    from zocore.runs.recording import take_up
    from zocore.runs.replay import caveats

    config, recording = take_up(options.run)
    if recording and recording.last >= config.steps and recording.end and recording.end.status == "finished":
        raise ValueError(f"{options.run} is finished: all its {recording.last} steps are done")
    with joined(config.device) as (ranks, device), _stop_on_interrupt() as stop:
        for caveat in caveats(recording) if recording and ranks.first else []:
            say(f"{options.run}: {caveat}")
        ranks.told("read")  # before the first process writes to it
        folder = options.run if ranks.first else None
        events = run(replace(config, device=device), stop, recording, ranks, folder)
        return _follow(events, options.run, _report(options, options.run)) if ranks.first else _accompany(events)


def verify(options: argparse.Namespace) -> int:
    """Check that a run's recording is as it was written, without loading a model."""
    from zocore.runs import replay

    return _said(replay.check_run(options.run))


def replay(options: argparse.Namespace) -> int:
    """Rebuild a run's weights at any step, and prove on request that they are the run's."""
    from zocore.runs import replay

    return _said(replay.replay_run(options.run, _step_of(options), options.verify))


def export(options: argparse.Namespace) -> int:
    """Write the tuned model, its adapter or what changed alone, and put it on the model hub on request."""
    from zocore.runs import hub, replay

    if options.adapter and options.delta is not None:
        raise ValueError("--adapter and --delta do not go together: each writes a folder of its own")
    if options.push_to_hub is not None:
        hub.check_name(options.push_to_hub)
    if file := _delta(options):
        say(replay.export_delta(options.run, file, options.to))
    else:
        delta = options.delta == ONLY
        say(replay.export_run(Path(options.run), options.to, _step_of(options), delta, options.adapter))
    if options.push_to_hub is not None:
        say(hub.push(options.to, options.push_to_hub))
    return 0


def predict(options: argparse.Namespace) -> int:
    """Label sentences with a tuned model."""
    from zocore.runs import delta, predict, replay

    if file := _delta(options):
        lines = predict.predictions(delta.open_delta(options.run, file), options.text)
    else:
        lines = replay.predict_run(Path(options.run), options.text, _step_of(options))
    say("\n".join(lines))
    return 0


def compare(options: argparse.Namespace) -> int:
    """Race methods on the same seeds and batches at an equal budget."""
    from zocore.compare import lanes, run_race

    config = config_of(options)
    runs = lanes(config, options.methods.split(","), options.seeds, *_budget(options), lrs=_rates(options.lrs))
    out = options.out or _numbered("race")
    with _stop_on_interrupt() as stop:
        for line in run_race(runs, out, stop):
            say(line)
    return 0


def tournament(options: argparse.Namespace) -> int:
    """Race methods on many tasks, each with rates found by one rule; given again, the command goes on."""
    from zocore.tournament.hold import hold
    from zocore.tournament.options import command, plan_of
    from zocore.tournament.report import write_report

    plan = plan_of(options)
    with _stop_on_interrupt() as stop:
        for line in () if options.tables_only else hold(plan, options.out, options.jobs, stop):
            say(line)
    say(write_report(plan, options.out, command(options)))
    return 0


def tasks(options: argparse.Namespace) -> int:
    """List the tasks by name: the bundled ones, and those of the papers, with where their rows are on the hub."""
    from zocore.data.named import named_tasks
    from zocore.data.tasks import bundled_tasks

    say(f"{'task':10} {'metric':9} {'rows':46} title")
    for name in bundled_tasks():
        say(f"{name:10} {'accuracy':9} {'bundled':46}")
    for row in named_tasks().values():
        say(f"{row.name:10} {row.metric:9} {row.hub:46} {row.title}")
    return 0


def recipes(options: argparse.Namespace) -> int:
    """List the papers' runs that `train --recipe` begins with, and what each should cost: predicted, not measured."""
    from zocore.recipes import recipe

    for one in recipe.recipes().values():
        say(f"{one.said}\n  {one.title} ({one.paper}, {one.where})")
    return 0


def memory(options: argparse.Namespace) -> int:
    """Show what each method needs in memory, from the model's configuration alone."""
    from zocore.memory import bill
    from zocore.memory.shapes import shape_of

    sizes = (options.batch_size, options.max_tokens, options.dtype)
    shape, names = shape_of(options.model), [options.method] if options.method else bill.TABLE
    bills = [bill.bill(shape, name, *sizes, kept_examples=options.kept_examples) for name in names]
    say(bill.render(bills))
    return 0


def bench(options: argparse.Namespace) -> int:
    """Time a step of each method against plain forwards and the published MeZO step."""
    from zocore.bench import bench as timing

    sizes = {"batch": options.batch_size, "tokens": options.tokens, "repeats": options.repeats}
    timings = timing.bench(options.shape, **sizes, device=options.device)
    where = "one thread" if options.device == "cpu" else options.device
    say(f"{options.shape}, {options.batch_size} x {options.tokens} tokens, {where}, medians of {options.repeats}")
    say(timing.render(timings))
    say("\nthe same model in NF4")
    say(timing.render(timing.bench_quantised(options.shape, **sizes, device=options.device)))
    return 0


def gpu_check(options: argparse.Namespace) -> int:
    """Show what this machine's GPU does: the CPU's bits, speed, memory, a run; goes on where it was stopped."""
    from zocore.bench.gpu_check import check

    for line in check(options.device, options.out, options.minutes, options.model):
        say(line)
    return 0


def frozen(options: argparse.Namespace) -> int:
    """Time steps that move only the last blocks, with and without running the others every time."""
    from zocore.bench import frozen as timing

    config = config_of(options)
    methods, subspaces = options.methods.split(","), options.subspaces.split(",")
    chosen = [replace(config, method=method, subspace=subspace) for subspace in subspaces for method in methods]
    say(timing.render([timing.saving(one, options.repeats) for one in chosen]))
    return 0


def _said(verdict: Any) -> int:
    """Show what was found; 1 when something is wrong."""
    say("\n".join(verdict.lines))
    return 0 if verdict.proved else 1


def _delta(options: argparse.Namespace) -> Path | None:
    """The file of changes to lay over a base model, None where a run is meant."""
    if options.delta in (None, ONLY):
        return None
    if options.step is not None:
        raise ValueError("--step and --delta FILE do not go together: a file of changes holds one step's weights")
    return Path(options.delta)


def _budget(options: argparse.Namespace) -> tuple[float, Any]:
    if (options.forward_cost is None) == (options.forward_passes is None):
        raise ValueError("give the race one budget: --forward-cost N or --forward-passes N")
    if options.forward_cost is not None:
        return options.forward_cost, "forward_cost"
    return options.forward_passes, "forward_passes"


def _rates(text: str) -> dict[str, float]:
    """Learning rates by method: mezo=1e-4,grzo=5e-5."""
    try:
        return {name: float(rate) for name, rate in (pair.split("=") for pair in text.split(",") if pair)}
    except ValueError:
        raise ValueError(f"--lrs must look like mezo=1e-4,grzo=5e-5, not {text!r}") from None


def _report(options: argparse.Namespace, folder: Path) -> Any:
    """The trackers that are to hear of a run."""
    from zocore.runs.report import Report

    return Report([name.strip() for name in options.report_to.split(",") if name.strip()], folder)


def _follow(events: Iterator[Any], folder: Path, report: Any) -> int:
    """Record and show a run's events, and report them; 1 when it failed."""
    from zocore.runs.events import RunEnded
    from zocore.runs.progress import Progress
    from zocore.runs.recording import record

    progress, failed = Progress(Output(sys.stdout), folder), False
    try:
        for event in record(events, folder):
            progress.show(event)
            for sentence in report.add(event):
                complain(f"zocore: {sentence}")
            failed = failed or (isinstance(event, RunEnded) and event.status == "failed")
    except Exception:
        if not failed:  # not a failure of the run itself, which has already been reported
            raise
    return int(failed)


def _accompany(events: Iterator[Any]) -> int:
    """Go through a run that another process records and shows; 1 when it failed."""
    from zocore.runs.events import RunEnded

    return int(any(isinstance(event, RunEnded) and event.status == "failed" for event in list(events)))


def _drop_empty(folder: Path) -> None:
    """Take back a folder in which no run ever started, so that nothing is left of a command that cannot work."""
    from zocore.runs.recording import CONFIG, EVENTS, SUMMARY, begun
    from zocore.runs.sole_writer import sole_writer

    if begun(folder) or not (folder / EVENTS).exists():
        return
    try:
        with (folder / EVENTS).open("ab") as file, sole_writer(file, folder):
            pass
    except ValueError:  # another process is starting a run there
        return
    for name in (EVENTS, CONFIG, SUMMARY):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C or a polite kill once ends the run after the step; twice ends it at once, as if the step never began."""
    asked = threading.Event()

    def ask(*_: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        with suppress(OSError):  # straight to the system: a stream may be in the middle of a write
            os.write(2, b"\nstopping after this step (Ctrl-C again to stop at once)\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _next_folder(config: RunConfig) -> Path:
    return _numbered(f"{config.method}-{Path(config.data).stem if config.data else config.task}")


def _numbered(name: str) -> Path:
    numbers = [int(path.name[:4]) for path in RUNS.glob("[0-9][0-9][0-9][0-9]-*")]
    return RUNS / f"{max(numbers, default=0) + 1:04d}-{name}"


def _step_of(options: argparse.Namespace) -> int | None:
    """The step that is asked for. Raises InputError where the best of a run that never looked at dev is."""
    from zocore.runs.best_point import BestPoint
    from zocore.runs.recording import examine

    if options.step != BEST:
        return cast(int | None, options.step)
    best = BestPoint.of(examine(options.run).events).best
    if best is None:
        raise InputError(f"{options.run} has no evaluation on the dev split to choose by: train with --eval-every")
    return best.step


def _parser(defaults: Mapping[str, Any] = MappingProxyType({})) -> argparse.ArgumentParser:
    return parser(COMMANDS, defaults)


COMMANDS: Commands = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(train, resume, verify, replay, export, predict),
        *(compare, tournament, tasks, recipes, memory, bench, frozen, gpu_check),
    )
}
