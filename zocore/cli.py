"""The command line: each command reads its options, asks the engine, and writes text."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, cast, get_args, get_type_hints

from zocore.config import RunConfig
from zocore.errors import InputError
from zocore.terminal import Output, complain, is_text, say

RUNS = Path("runs")
ONLY = ""  # `export RUN --delta`, without a file
BEST, AUTO = "best", "auto"  # words in place of a step, and of a learning rate


class Parser(argparse.ArgumentParser):
    """A parser that answers a wrong option with one line, like any other bad input."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with status 2."""
        self.exit(2, f"zocore: {message} (`{self.prog} --help` lists the options)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 when a run failed, 2 for bad input."""
    parser, words = _parser(), sys.argv[1:] if arguments is None else arguments
    for word in words:
        if not is_text(word):
            parser.error(f"the argument {word!r} is not text in UTF-8: type it anew, or rename the file")
    options = parser.parse_args(words)
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

    config = _config(options)
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

    config = _config(options)
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
            print(line, flush=True)
    print(write_report(plan, options.out, command(options)))
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

    config = _config(options)
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


def _seeds(text: str) -> list[int]:
    return [int(seed) for seed in text.split(",")]


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


def _config(options: argparse.Namespace) -> RunConfig:
    values = {field.name: getattr(options, field.name) for field in fields(RunConfig)}
    if values["lr"] == AUTO:
        values |= {"lr": None, "auto_lr": True}
    return RunConfig(**values)


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


def _step(text: str) -> int | str:
    """A step's number, or the word for the best."""
    return BEST if text == BEST else int(text)


def _rate(text: str) -> float | str:
    """A learning rate, or the word for one that is looked for."""
    return AUTO if text == AUTO else float(text)


_step.__name__, _rate.__name__ = f"number or {BEST}", f"number or {AUTO}"  # as argparse names what is wrong


def _parser(defaults: Mapping[str, Any] = MappingProxyType({})) -> argparse.ArgumentParser:
    parser = Parser(prog="zocore", description="zeroth-order fine-tuning of language models")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    training = _command(commands, "train", train)
    _settings(training)
    training.set_defaults(**defaults)
    training.add_argument(
        "--recipe", metavar="NAME", help="begin with the settings of a paper's run (see `zocore recipes`)"
    )
    training.add_argument("--out", type=Path, help=f"run folder (default: the next number under {RUNS}/)")
    _reporting(training)
    for function in (resume, verify, replay, export, predict):
        name = function.__name__
        command = _command(commands, name, function)
        if name in ("export", "predict"):
            command.add_argument(
                "run", metavar="RUN", help="run folder, or the base model that --delta FILE belongs to"
            )
        else:
            command.add_argument("run", type=Path, metavar="RUN", help="run folder")
        if name == "resume":
            _reporting(command)
        if name not in ("resume", "verify"):
            command.add_argument(
                "--step",
                type=_step,
                help=f"the weights after this step, or {BEST}: the step of the lowest dev loss (default: the last)",
            )
        if name == "replay":
            command.add_argument("--verify", action="store_true", help="prove the rebuilt weights equal to the run's")
        if name == "export":
            command.add_argument("--to", type=Path, required=True, help="folder to write")
            command.add_argument(
                "--delta",
                nargs="?",
                const=ONLY,
                metavar="FILE",
                help="write only what changed, as one safetensors file; with FILE, lay it over the base model RUN",
            )
            command.add_argument(
                "--adapter", action="store_true", help="write the adapter of a LoRA run, as PEFT reads it"
            )
            command.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload the folder to the model hub too")
        if name == "predict":
            command.add_argument("--delta", metavar="FILE", help="what a run changed, to lay over the base model RUN")
            command.add_argument("text", nargs="+", help="sentences to label")
    _measures(commands)
    return parser


def _reporting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--report-to", default="", metavar="TRACKERS", help="tensorboard, trackio or wandb, separated by commas"
    )


def _measures(commands: Any) -> None:
    """The commands that compare and measure."""
    from zocore.tournament.options import add_options

    racing = _command(commands, "compare", compare)
    _settings(racing, without=("method", "steps", "seed"))
    racing.add_argument("--methods", required=True, help="methods separated by commas")
    racing.add_argument("--seeds", type=_seeds, default=[0, 1, 2], help="seeds separated by commas (default: 0,1,2)")
    racing.add_argument("--forward-cost", type=float, help="budget of each run in plain forwards' worth of compute")
    racing.add_argument(
        "--forward-passes", type=float, help="budget of each run in calls of the model, as papers count"
    )
    racing.add_argument("--lrs", default="", help="learning rates by method, as in mezo=1e-4,grzo=5e-5")
    racing.add_argument("--out", type=Path, help="folder for the runs and the table")
    add_options(_command(commands, "tournament", tournament))
    _command(commands, "tasks", tasks)
    _command(commands, "recipes", recipes)
    bill = _command(commands, "memory", memory)
    bill.add_argument("--model", default="llama-3-8b", help="a built-in name or a folder with config.json")
    bill.add_argument(
        "--method",
        help="one method, or lora-adamw, qlora-adamw, adamw-pure or inference (default: all methods and lora-adamw)",
    )
    bill.add_argument("--batch-size", type=int, default=16, help="examples per step (default: 16)")
    bill.add_argument("--max-tokens", type=int, default=128, help="tokens per example (default: 128)")
    bill.add_argument("--dtype", default="bf16", help="fp32, bf16 or fp16 (default: bf16)")
    bill.add_argument(
        "--kept-examples",
        type=int,
        default=0,
        help="training examples, where the first blocks stay frozen and their outputs are kept (default: 0)",
    )
    timing = _command(commands, "bench", bench)
    timing.add_argument("--shape", default="llama-15M", help="such as llama-15M, opt-30M, opt-1.3b, llama-3-8b")
    timing.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    timing.add_argument("--batch-size", type=int, default=16, help="examples (default: 16)")
    timing.add_argument("--tokens", type=int, default=64, help="tokens per example (default: 64)")
    timing.add_argument("--repeats", type=int, default=15, help="rounds, of which the medians are taken (default: 15)")
    saving = _command(commands, "frozen", frozen)
    _settings(saving, without=("method", "subspace"))
    saving.add_argument("--methods", default="mezo,grzo", help="methods separated by commas (default: mezo,grzo)")
    saving.add_argument("--subspaces", default="top:2,top:1", help="subspaces likewise (default: top:2,top:1)")
    saving.add_argument("--repeats", type=int, default=15, help="steps, of which the medians are taken (default: 15)")
    checking = _command(commands, "gpu-check", gpu_check)
    checking.add_argument("--device", help="cuda, or cpu for the same in miniature (default: the GPU if there is one)")
    checking.add_argument("--out", type=Path, required=True, help="folder for check.md and check.json")
    checking.add_argument("--minutes", type=float, default=8.0, help="begin no part after so many minutes (default: 8)")
    checking.add_argument("--model", help="local folder of a model to tune for a few steps")


def _command(commands: Any, name: str, function: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    summary = (function.__doc__ or "").splitlines()[0]
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(command=function)
    return command


def _settings(parser: argparse.ArgumentParser, without: Sequence[str] = ()) -> None:
    """One option per field of RunConfig."""
    hints = get_type_hints(RunConfig)
    parser.set_defaults(**{field.name: field.default for field in fields(RunConfig)})
    for field in (field for field in fields(RunConfig) if field.name not in (*without, "auto_lr")):
        flag = "--" + field.name.replace("_", "-")
        help_text = field.metadata["help"] + (f"; {field.metadata['breaks']}" if field.metadata["breaks"] else "")
        if hints[field.name] is bool:
            parser.add_argument(flag, action="store_true", help=help_text)
            continue
        kind = (
            _rate
            if field.name == "lr"
            else next(kind for kind in (*get_args(hints[field.name]), hints[field.name]) if kind is not type(None))
        )
        default = "" if field.default is None else f" (default: {field.default})"
        choices = field.metadata["choices"]
        parser.add_argument(
            flag,
            type=kind,
            default=field.default,
            metavar="|".join(choices) or field.name.upper(),
            help=(help_text + default).replace("%", "%%"),
        )
