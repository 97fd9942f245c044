"""The settings of a run: each field's help is also the command line's and the app's."""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, get_args, get_type_hints

from zocore.data.built_in_rewards import NAMES
from zocore.directions.laws import LAWS
from zocore.methods import METHODS, OPTIONS
from zocore.models.kinds import KINDS
from zocore.objectives import OBJECTIVES

RENAMED = {"diagnose_every": "measure_every"}  # what older recordings call a setting


def setting(default: Any, help: str, *, choices: tuple[str, ...] = (), breaks: str = "") -> Any:
    """A field with one sentence of help and, where a wrong value has a typical effect, what breaks."""
    return field(default=default, metadata={"help": help, "choices": choices, "breaks": breaks})


def _taking(option: str) -> str:
    """The methods that take an option."""
    return ", ".join(name for name, row in METHODS.items() if option in row.options)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run. Raises ValueError with one sentence when a value makes no sense."""

    method: str = setting("feedback", "optimisation method", choices=tuple(METHODS))
    model: str = setting("bundled", "bundled, a local Hugging Face folder, or a hub id")
    kind: str | None = setting(
        None,
        "how the model is read; without it, as its configuration says",
        choices=tuple(KINDS),
    )
    objective: str = setting(
        "loss",
        "what the steps lower: " + "; ".join(f"{name}, {row.summary}" for name, row in OBJECTIVES.items()),
        choices=tuple(OBJECTIVES),
    )
    reward: str | None = setting(
        None,
        f"what judges completions, more for better: {NAMES} (em and f1 against the row's answer), or a function of "
        "your own as FILE.py:function(prompt, completion, row)",
    )
    metric: str | None = setting(
        None, "score of written answers in the evaluations of --objective lm", choices=("em", "f1")
    )
    max_new_tokens: int = setting(32, "longest completion, in tokens")
    temperature: float = setting(0.0, "how completions are drawn, the same for all probes of a step; 0 for greedy")
    task: str = setting(
        "verdict", "a bundled task, or one of the papers, such as sst2 or rte (`zocore tasks` lists them)"
    )
    data: str | None = setting(
        None,
        "your own CSV, TSV or JSON Lines file, a folder of train, dev and test files, or a dataset of the hub as "
        "hub:owner/name, hub:owner/name:configuration",
    )
    k_shot: int = setting(0, "training examples of each label, and as many for dev; 0 for all")
    train_examples: int = setting(0, "training examples in all, and half as many for dev; 0 for all")
    text_columns: str | None = setting(
        None, "columns of the text, separated by commas; without it, recognised by their content"
    )
    label_column: str | None = setting(None, "column of the label; without it, recognised by its content")
    template: str | None = setting(None, 'prompt around the text, such as "{text} It was"')
    label_words: str | None = setting(None, "word for each label: great,terrible in label order, or 1=great,0=terrible")
    subspace: str = setting(
        "auto",
        "what moves: all, lora, scales, top:2 (the last 2 blocks and the head), writers or writers:2 (what writes into "
        "the hidden state, in all blocks or the last 2), or parameters by name: a regular expression, or "
        "glob:layers.*.mlp",
    )
    quantise: str | None = setting(None, "load linear layers in few bits", choices=("nf4", "fp4", "int8"))
    steps: int = setting(400, "optimisation steps")
    batch_size: int = setting(16, "examples per step", breaks="too small: every loss is noisier")
    micro_batch: int | None = setting(None, "examples per forward, when a whole batch does not fit")
    lr: float | None = setting(
        None,
        "learning rate, or auto to look for one first",
        breaks="too high: the loss jumps and stays up; too low: nothing is learned",
    )
    eps: float | None = setting(
        None,
        "distance of the probes from the weights",
        breaks="too large: higher-order terms distort the difference; too small: rounding drowns it",
    )
    auto_lr: bool = setting(False, "look for the learning rate before the first step (--lr auto)")
    schedule: str | None = setting(None, "learning rate over the run", choices=("constant", "linear"))
    seed: int = setting(0, "seed of the noise and of the order of the data")
    split_seed: int = setting(0, "seed of what is held out of a single data file, the same for every --seed")
    noise: str | None = setting(None, "law of the directions", choices=tuple(LAWS))
    rank: int = setting(0, "directions of this rank on matrices (LOZO); 0 for full rank")
    keep: float = setting(1.0, "share of each tensor's smallest weights that moves (Sparse-MeZO); 1 for all")
    directions: int | None = setting(None, f"directions per step ({_taking('directions')})")
    pool: int | None = setting(None, f"candidates per step ({_taking('pool')})", breaks="2 is MeZO at twice the price")
    share: float | None = setting(None, f"elite share of the pool ({_taking('share')})")
    clip: float | None = setting(None, f"largest directional derivative ({_taking('clip')})")
    scale: str | None = setting(None, f"normaliser ({_taking('scale')})", choices=("rms", "std", "raw"))
    sides: int | None = setting(None, f"points a push asks, 2 or 1 beside the clean one ({_taking('sides')})")
    tie: str | None = setting(None, f"what shares one push ({_taking('tie')})", choices=("tokens", "none"))
    mu: float | None = setting(
        None, f"how fast the feedback learns, below 2; 1 onto features, 0.5 onto scores ({_taking('mu')})"
    )
    alpha: float | None = setting(
        None,
        f"share of what it did not foresee that corrects the feedback ({_taking('alpha')})",
        breaks="0 trusts the feedback; 1 is unbiased and noisy",
    )
    onto: str | None = setting(
        None,
        "what the pushes teach of: features before a known label head, or label scores; features where it is known "
        f"({_taking('onto')})",
        choices=("features", "scores"),
    )
    push_every: int | None = setting(
        None,
        "steps between pushes, 0 for the first step alone; 8 for writers onto features, else 1 "
        f"({_taking('push_every')})",
        breaks="too rare: what was learned no longer fits the weights",
    )
    update: str = setting("auto", "rule that applies the estimate", choices=("auto", "sgd", "momentum", "adam"))
    decay: float = setting(0.0, "weight decay")
    carrier: str = setting("scratch", "how probes reach the model", choices=("scratch", "in-place"))
    dtype: str | None = setting(
        None,
        "dtype of the weights; fp32 on a CPU",
        choices=("fp32", "bf16", "fp16"),
        breaks="bf16 rounds small differences of the loss away, most where each example has a direction of its own",
    )
    master: bool = setting(False, "keep a float32 copy of 16-bit weights, so that small steps add up")
    device: str | None = setting(None, "cpu, cuda, or auto to spread over all GPUs; the GPU when there is one")
    prefix_gib: float = setting(
        1.0, "memory for what frozen first blocks give for each training example, in GiB; 0 to run them in every step"
    )
    max_tokens: int = setting(128, "longest prompt, in tokens")
    hours: float = setting(0.0, "stop after the step at which so many hours are over; resume goes on; 0 for no limit")
    snapshot_every: int = setting(0, "steps between copies of the weights on disk, to go on from; 0 for none")
    eval_every: int = setting(0, "steps between evaluations on the dev split; 0 for none")
    patience: int = setting(0, "dev evaluations without a lower loss after which a run ends; 0 to do all steps")
    eval_examples: int = setting(400, "most examples in an evaluation")
    measure_every: int = setting(0, "steps between measurements of the estimator; 0 for none")
    allow_pickle: bool = setting(False, "load weights that are not safetensors; only from people you trust")

    def __post_init__(self) -> None:
        for name, lowest in (
            ("steps", 1),
            ("max_new_tokens", 1),
            ("batch_size", 1),
            ("max_tokens", 8),
            ("eval_examples", 1),
        ):
            _require(
                getattr(self, name) >= lowest, f"{flag(name)} must be at least {lowest}, not {getattr(self, name)}"
            )
        for name in ("lr", "eps"):
            value = getattr(self, name)
            _require(
                value is None or (math.isfinite(value) and value > 0), f"--{name} must be a number above 0, not {value}"
            )
        _require(math.isfinite(self.decay) and self.decay >= 0, f"--decay must be 0 or more, not {self.decay}")
        _require(
            math.isfinite(self.prefix_gib) and self.prefix_gib >= 0,
            f"--prefix-gib must be 0 or more, not {self.prefix_gib}",
        )
        _require(
            math.isfinite(self.temperature) and self.temperature >= 0,
            f"--temperature must be 0 or more, not {self.temperature}",
        )
        _require(
            (self.reward is None) == (self.objective != "reward"),
            "--objective reward and --reward go together: give both or none",
        )
        _require(math.isfinite(self.hours) and self.hours >= 0, f"--hours must be 0 or more, not {self.hours}")
        _require(self.metric is None or self.objective == "lm", "--metric is of the evaluations of --objective lm")
        for name in ("eval_every", "measure_every", "snapshot_every", "rank", "patience", "k_shot", "train_examples"):
            _require(getattr(self, name) >= 0, f"{flag(name)} must be 0 or more, not {getattr(self, name)}")
        _require(
            not self.patience or self.eval_every > 0,
            "--patience looks at the dev split: say --eval-every too, as in 50",
        )
        _require(self.micro_batch is None or self.micro_batch >= 1, "--micro-batch must be at least 1")
        _require(
            not (self.k_shot and self.train_examples), "--k-shot and --train-examples do not go together: give one"
        )
        for name in ("seed", "split_seed"):
            value = getattr(self, name)
            _require(0 <= value < 2**63, f"{flag(name)} must be from 0 to 2^63 - 1, not {value}")
        for setting_ in fields(self):
            value, choices = getattr(self, setting_.name), setting_.metadata["choices"]
            wrong = choices and value is not None and value not in choices
            _require(not wrong, f"{flag(setting_.name)} must be one of {', '.join(choices)}, not {value!r}")

    @property
    def searches(self) -> bool:
        """Whether the run looks for its learning rate before the first step."""
        return self.auto_lr and self.lr is None

    @property
    def options(self) -> dict[str, Any]:
        """The method's own options, where the user set any."""
        return {name: getattr(self, name) for name in OPTIONS if getattr(self, name) is not None}

    def without_options(self) -> "RunConfig":
        """Return the settings without what belongs to one method: its options, lr, eps and schedule."""
        nothing: dict[str, Any] = dict.fromkeys(OPTIONS)
        return replace(self, lr=None, eps=None, schedule=None, **nothing)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunConfig":
        """Return the settings of `to_json`. Raises ValueError for unknown names or values of the wrong type."""
        types = get_type_hints(cls)
        _require(isinstance(values, dict), f"settings must be an object of names and values, not {values!r:.40}")
        values = {RENAMED.get(name, name): value for name, value in values.items()}
        for name, value in values.items():
            _require(name in types, f"unknown setting {name!r}")
            kinds = get_args(types[name]) or (types[name],)
            number = float in kinds and type(value) is int
            _require(number or isinstance(value, kinds), f"{flag(name)} has the wrong type: {value!r}")
        return cls(**values)


def flag(name: str) -> str:
    """Return a setting's name as the command line writes it."""
    return "--" + name.replace("_", "-")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
