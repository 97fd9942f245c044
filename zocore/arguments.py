"""The words that a command line may hold: one option for each setting of a run, and each command's own."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, get_args, get_type_hints

from zocore.config import RunConfig, flag
from zocore.tournament.options import add_options as _tournament

Commands = Mapping[str, Callable[[argparse.Namespace], int]]  # what each command does, by its name

RUNS = Path("runs")
ONLY = ""  # `export RUN --delta`, without a file
BEST, AUTO = "best", "auto"  # words in place of a step, and of a learning rate


class Parser(argparse.ArgumentParser):
    """A parser that answers a wrong option with one line, like any other bad input."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with status 2."""
        self.exit(2, f"zocore: {message} (`{self.prog} --help` lists the options)\n")


def config_of(options: argparse.Namespace) -> RunConfig:
    """Return the settings that the options make. Raises ValueError with one sentence where they make no sense."""
    values = {field.name: getattr(options, field.name) for field in fields(RunConfig)}
    if values["lr"] == AUTO:
        values |= {"lr": None, "auto_lr": True}
    return RunConfig(**values)


def _seeds(text: str) -> list[int]:
    return [int(seed) for seed in text.split(",")]


def _step(text: str) -> int | str:
    """A step's number, or the word for the best."""
    return BEST if text == BEST else int(text)


def _rate(text: str) -> float | str:
    """A learning rate, or the word for one that is looked for."""
    return AUTO if text == AUTO else float(text)


_step.__name__, _rate.__name__ = f"number or {BEST}", f"number or {AUTO}"  # as argparse names what is wrong


def parser(commands: Commands, defaults: Mapping[str, Any] = MappingProxyType({})) -> argparse.ArgumentParser:
    """Return the parser of all commands; `defaults` take the place of those of `train`."""
    whole = Parser(prog="zocore", description="zeroth-order fine-tuning of language models")
    named = whole.add_subparsers(required=True, metavar="COMMAND")
    for name, function in commands.items():
        summary = (function.__doc__ or "").splitlines()[0]
        command = named.add_parser(name, help=summary, description=summary)
        command.set_defaults(command=function)
        OPTIONS_OF.get(name, lambda _: None)(command)
        if name == "train":
            command.set_defaults(**defaults)
    return whole


def _train(parser: argparse.ArgumentParser) -> None:
    _settings(parser)
    parser.add_argument(
        "--recipe", metavar="NAME", help="begin with the settings of a paper's run (see `zocore recipes`)"
    )
    parser.add_argument("--out", type=Path, help=f"run folder (default: the next number under {RUNS}/)")
    _reporting(parser)


def _resume(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    _reporting(parser)


def _replay(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    _at_step(parser)
    parser.add_argument("--verify", action="store_true", help="prove the rebuilt weights equal to the run's")


def _export(parser: argparse.ArgumentParser) -> None:
    _run_or_model(parser)
    _at_step(parser)
    parser.add_argument("--to", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--delta",
        nargs="?",
        const=ONLY,
        metavar="FILE",
        help="write only what changed, as one safetensors file; with FILE, lay it over the base model RUN",
    )
    parser.add_argument("--adapter", action="store_true", help="write the adapter of a LoRA run, as PEFT reads it")
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload the folder to the model hub too")


def _predict(parser: argparse.ArgumentParser) -> None:
    _run_or_model(parser)
    _at_step(parser)
    parser.add_argument("--delta", metavar="FILE", help="what a run changed, to lay over the base model RUN")
    parser.add_argument("text", nargs="+", help="sentences to label")


def _compare(parser: argparse.ArgumentParser) -> None:
    _settings(parser, without=("method", "steps", "seed"))
    add = parser.add_argument
    add("--methods", required=True, help="methods separated by commas")
    add("--seeds", type=_seeds, default=[0, 1, 2], help="seeds separated by commas (default: 0,1,2)")
    add("--forward-cost", type=float, help="budget of each run in plain forwards' worth of compute")
    add("--forward-passes", type=float, help="budget of each run in calls of the model, as papers count")
    add("--lrs", default="", help="learning rates by method, as in mezo=1e-4,grzo=5e-5")
    add("--out", type=Path, help="folder for the runs and the table")


def _memory(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", default="llama-3-8b", help="a built-in name or a folder with config.json")
    add(
        "--method",
        help="one method, or lora-adamw, qlora-adamw, adamw-pure or inference (default: all methods and lora-adamw)",
    )
    add("--batch-size", type=int, default=16, help="examples per step (default: 16)")
    add("--max-tokens", type=int, default=128, help="tokens per example (default: 128)")
    add("--dtype", default="bf16", help="fp32, bf16 or fp16 (default: bf16)")
    add(
        "--kept-examples",
        type=int,
        default=0,
        help="training examples, where the first blocks stay frozen and their outputs are kept (default: 0)",
    )


def _bench(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--shape", default="llama-15M", help="such as llama-15M, opt-30M, opt-1.3b, llama-3-8b")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--batch-size", type=int, default=16, help="examples (default: 16)")
    add("--tokens", type=int, default=64, help="tokens per example (default: 64)")
    add("--repeats", type=int, default=15, help="rounds, of which the medians are taken (default: 15)")


def _frozen(parser: argparse.ArgumentParser) -> None:
    _settings(parser, without=("method", "subspace"))
    add = parser.add_argument
    add("--methods", default="mezo,grzo", help="methods separated by commas (default: mezo,grzo)")
    add("--subspaces", default="top:2,top:1", help="subspaces likewise (default: top:2,top:1)")
    add("--repeats", type=int, default=15, help="steps, of which the medians are taken (default: 15)")


def _gpu_check(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--device", help="cuda, or cpu for the same in miniature (default: the GPU if there is one)")
    add("--out", type=Path, required=True, help="folder for check.md and check.json")
    add("--minutes", type=float, default=8.0, help="begin no part after so many minutes (default: 8)")
    add("--model", help="local folder of a model to tune for a few steps")


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")


def _run_or_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder, or the base model that --delta FILE belongs to")


def _at_step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--step",
        type=_step,
        help=f"the weights after this step, or {BEST}: the step of the lowest dev loss (default: the last)",
    )


def _reporting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--report-to", default="", metavar="TRACKERS", help="tensorboard, trackio or wandb, separated by commas"
    )


def _settings(parser: argparse.ArgumentParser, without: Sequence[str] = ()) -> None:
    """One option per field of RunConfig."""
    hints = get_type_hints(RunConfig)
    parser.set_defaults(**{field.name: field.default for field in fields(RunConfig)})
    for field in (field for field in fields(RunConfig) if field.name not in (*without, "auto_lr")):
        help_text = field.metadata["help"] + (f"; {field.metadata['breaks']}" if field.metadata["breaks"] else "")
        if hints[field.name] is bool:
            parser.add_argument(flag(field.name), action="store_true", help=help_text)
            continue
        kinds = [kind for kind in get_args(hints[field.name]) or (hints[field.name],) if kind is not type(None)]
        default = "" if field.default is None else f" (default: {field.default})"
        choices = field.metadata["choices"]
        parser.add_argument(
            flag(field.name),
            type=_rate if field.name == "lr" else kinds[0],
            default=field.default,
            metavar="|".join(choices) or field.name.upper(),
            help=(help_text + default).replace("%", "%%"),
        )


# a command that is not here takes no options
OPTIONS_OF: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "train": _train,
    "resume": _resume,
    "verify": _run,
    "replay": _replay,
    "export": _export,
    "predict": _predict,
    "compare": _compare,
    "tournament": _tournament,
    "memory": _memory,
    "bench": _bench,
    "frozen": _frozen,
    "gpu-check": _gpu_check,
}
