"""The methods, one row each: the page to read first.

A method is a sampler (which directions), a difference (where the loss is evaluated), a shaping (from measurements
to coefficients) and an update. Any other composition is made the same way, without new code:

    Method("qzo-4", Fresh(4), shaping=Clip(100.0))                      # QZO with four directions
    Method("grzo-adam", OnePerExample(), shaping=Normalise(), update=Adam())

Which tensors move is a choice of its own (`zocore/subspaces/`) and goes with every method.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zocore.directions.laws import Gaussian, Law, Rademacher
from zocore.directions.pushes import Tie
from zocore.presets import Models, Preset, Subspace, choose, coarse, of_encoder, paper, tuned
from zocore.step.difference import Central, Difference, Forward
from zocore.step.feedback import Feedback
from zocore.step.readout import Onto
from zocore.step.samplers import Fresh, Guided, OnePerExample, OnOutputs
from zocore.step.shaping import CentredRank, Clip, Mean, Normalise, Shaping
from zocore.step.step import Backprop, Method, Stepper
from zocore.step.update import Adam, Sgd, Update

GAUSSIAN = Gaussian()
# how a step's memory is counted: see `memory/bill.py`
Memory = Literal[
    "probe",
    "combination",
    "per example",
    "scales",
    "outputs",
    "outputs and moments",
    "gradient",
    "gradient and moments",
]
FITTED = 1e-3  # directional derivatives below this are rounding noise of a fitted example, not signal


def mezo(*, law: Law = GAUSSIAN, update: Update = Sgd()) -> Method:
    """MeZO: two forwards at theta +- eps z, step along z (SPSA)."""
    return Method("mezo", Fresh(1, law), update=update)


def n_spsa(*, directions: int = 4, law: Law = GAUSSIAN, update: Update = Sgd()) -> Method:
    """n-SPSA: the mean of n independent MeZO estimates at the same weights and batch."""
    return Method("n-spsa", Fresh(directions, law), update=update)


def grzo(*, law: Law = GAUSSIAN, scale: str = "rms", update: Update = Sgd()) -> Method:
    """GRZO: one direction per example inside two batched forwards, differences normalised within the batch.

    The paper normalises by the standard deviation about the mean (`scale="std"`); the default divides by the
    root mean square, which never blows up on small batches. lr is the unit-step lr: the paper's over 2 eps.
    """
    shaping: dict[str, Shaping] = {"rms": Normalise("rms", floor=FITTED), "std": Normalise("std"), "raw": Mean()}
    if scale not in shaping:
        raise ValueError(f"scale must be rms, std or raw, not {scale!r}")
    return Method("grzo", OnePerExample(law), shaping=shaping[scale], update=update)


def mezo_gv(*, pool: int = 4, share: float = 0.5, law: Law = GAUSSIAN, update: Update = Sgd()) -> Method:
    """MeZO-GV: mean of the best candidates of a pool less the mean of the rest, then a central difference."""
    return Method("mezo-gv", Guided(pool, share, law=law), update=update)


def mezo_greedy(*, pool: int = 4, law: Law = GAUSSIAN, update: Update = Sgd()) -> Method:
    """MeZO-Greedy: the candidate of lowest loss, then a central difference that reuses its loss."""
    return Method("mezo-greedy", Guided(pool, greedy=True, law=law), update=update)


def qzo(*, directions: int = 1, clip: float = 100.0, law: Law = GAUSSIAN, update: Update = Sgd()) -> Method:
    """QZO: MeZO on quantisation scales with the directional derivative clipped; codes never change."""
    return Method("qzo", Fresh(directions, law), shaping=Clip(clip), update=update)


def fzoo(*, directions: int = 8, law: Law = Rademacher(), update: Update = Sgd()) -> Method:
    """FZOO: n one-sided Rademacher differences with one base loss, divided by the losses' deviation."""
    return Method("fzoo", Fresh(directions, law), Forward(), Normalise("std"), update)


def openai_es(*, directions: int = 8, law: Law = GAUSSIAN, update: Update = Sgd()) -> Method:
    """OpenAI-ES: antithetic pairs, losses replaced by centred ranks."""
    return Method("openai-es", Fresh(directions, law), shaping=CentredRank(), update=update)


def activity(*, directions: int = 2, sides: int = 2, tie: Tie = "tokens", update: Update = Sgd()) -> Method:
    """Activity perturbation: random signs on the outputs of linear layers, times what those layers read."""
    return Method("activity", OnOutputs(directions, tie), _difference(sides), update=update)


def feedback(
    *,
    directions: int = 1,
    sides: int = 1,
    mu: float | None = None,
    alpha: float = 0.0,
    onto: Onto | None = None,
    push_every: int | None = None,
    update: Update = Adam(),
) -> Feedback:
    """Learned feedback: pushes teach how what the head reads responds; one clean forward gives each example's error."""
    two_sided = _difference(sides) == Central()
    return Feedback("feedback", directions, mu, alpha, onto, two_sided, push_every, update=update)


def _difference(sides: int) -> Difference:
    if sides not in (1, 2):
        raise ValueError(f"--sides must be 1 (beside the clean forward) or 2 (plus and minus), not {sides}")
    return Central() if sides == 2 else Forward()


def sgd(*, update: Update = Sgd()) -> Backprop:
    """Backprop with plain SGD: the reference where memory allows."""
    return Backprop("sgd", update)


def adamw(*, update: Update = Adam()) -> Backprop:
    """Backprop with AdamW: the reference where memory allows three more copies."""
    return Backprop("adamw", update)


@dataclass(frozen=True)
class Row:
    """A method as people choose it: everything the project needs to know about it."""

    build: Callable[..., Stepper]
    title: str
    paper: str  # arXiv number, empty for textbook methods
    forwards: str  # forward passes per step, in words
    memory: Memory
    colour: str  # of its lines in charts; "ink" is the text's
    dash: str  # of its lines, as Plotly writes it
    trial_lrs: tuple[float, float]  # with which it learns a quadratic and a tiny Llama in the tests
    presets: Sequence[Preset]
    schedule: Literal["constant", "linear"] = "constant"  # linear where steps do not shrink with the slope
    home: str = "all"  # the subspace it is made for

    @property
    def options(self) -> Mapping[str, Any]:
        """The method's own options and their defaults."""
        return {name: option.default for name, option in inspect.signature(self.build).parameters.items()}

    @property
    def update(self) -> Sgd | Adam:
        """The update rule it takes by default."""
        rule: Sgd | Adam = self.options["update"]
        return rule

    @property
    def zeroth_order(self) -> bool:
        """Whether it works from forward passes alone."""
        return self.build().zeroth_order

    @property
    def summary(self) -> str:
        """One sentence on what it does, from its docstring."""
        return (inspect.getdoc(self.build) or "").splitlines()[0]

    def preset(self, subspace: Subspace, models: Models) -> Preset:
        """Return its learning rate and eps in a subspace of a sort of models, an estimate where none is known."""
        method = self.build()
        by_length = not (isinstance(method, Method) and method.shaping.follows_slope)
        return choose(self.presets, subspace, models, by_length)


METHODS: Mapping[str, Row] = {
    "mezo": Row(
        mezo,
        "MeZO",
        "2305.17333",
        forwards="2",
        memory="probe",
        colour="#0072B2",
        dash="solid",
        trial_lrs=(0.03, 1e-3),
        presets=(
            paper(1e-6, "MeZO, arXiv 2305.17333: grid 1e-6, 1e-7"),
            paper(1e-4, "MeZO, arXiv 2305.17333: grid 1e-4, 5e-5 for LoRA", "lora"),
            Preset(
                6e-5, 1e-3, "MiniLM on SST-2: 1500 steps took accuracy from 0.752 to 0.775, seed 0", "all", "encoder"
            ),
            tuned(3e-4),
            tuned(4.5e-3, "writers"),
            of_encoder(1e-3),
            coarse(3e-2, "lora"),
            coarse(1.5e-2, "scales"),
        ),
    ),
    "n-spsa": Row(
        n_spsa,
        "n-SPSA",
        "2305.17333",
        forwards="2n",
        memory="probe",
        colour="#56B4E9",
        dash="dash",
        trial_lrs=(0.1, 1e-3),
        presets=(
            paper(1e-6, "MeZO's grid"),
            paper(1e-4, "MeZO's grid for LoRA", "lora"),
            tuned(4e-4),
            coarse(1e-1, "lora"),
            coarse(2e-2, "scales"),
        ),
    ),
    "grzo": Row(
        grzo,
        "GRZO",
        "2606.02857",
        forwards="2, each with twice the matrix products",
        memory="per example",
        colour="#D55E00",
        dash="12px,3px",
        trial_lrs=(0.1, 1e-2),
        schedule="linear",
        presets=(
            paper(5e-5, "GRZO's released 1e-7 over 2 eps; decay is ours, its steps do not shrink"),
            tuned(1.5e-2),
            tuned(6e-2, "writers"),
            of_encoder(3e-2),
            coarse(3e-2, "lora"),
            coarse(2e-2, "scales"),
        ),
    ),
    "mezo-gv": Row(
        mezo_gv,
        "MeZO-GV",
        "2601.04710",
        forwards="pool + 2",
        memory="combination",
        colour="#009E73",
        dash="dashdot",
        trial_lrs=(0.03, 3e-4),
        presets=(
            paper(3e-7, "arXiv 2601.04710: grid 1e-7 to 5e-7"),
            paper(5e-5, "arXiv 2601.04710: grid 3e-5 to 1e-4 for LoRA", "lora"),
            tuned(3e-4),
            coarse(3e-2, "lora"),
            coarse(1.5e-2, "scales"),
        ),
    ),
    "mezo-greedy": Row(
        mezo_greedy,
        "MeZO-Greedy",
        "2601.04710",
        forwards="pool + 1",
        memory="probe",
        colour="#CC79A7",
        dash="dot",
        trial_lrs=(0.03, 3e-4),
        presets=(
            paper(3e-7, "arXiv 2601.04710: grid 1e-7 to 5e-7"),
            paper(5e-5, "arXiv 2601.04710: grid 3e-5 to 1e-4 for LoRA", "lora"),
            tuned(3e-4),
            coarse(3e-2, "lora", of="MeZO-GV"),
            coarse(1.5e-2, "scales", of="MeZO-GV"),
        ),
    ),
    "qzo": Row(
        qzo,
        "QZO",
        "2505.13430",
        forwards="2",
        memory="scales",
        colour="#E69F00",
        dash="longdash",
        trial_lrs=(0.03, 1e-3),
        home="scales",
        presets=(
            paper(4.7e-6, "QZO's 1e-7 and 1e-3 for GPTQ, rescaled to NF4 (k = 6.9)", "scales", eps=6.9e-3),
            coarse(5e-3, "scales"),
        ),
    ),
    "fzoo": Row(
        fzoo,
        "FZOO",
        "2506.09034",
        forwards="n + 1",
        memory="probe",
        colour="#9A8B00",  # Okabe and Ito's yellow, darkened until it shows on white
        dash="longdashdot",
        trial_lrs=(0.1, 1e-2),
        schedule="linear",
        presets=(
            paper(1e-5, "ours by the step length of GRZO; not the paper's grid"),
            tuned(1.5e-2),
            tuned(6e-2, "writers"),
            of_encoder(6e-2),
            coarse(3e-2, "lora"),
            coarse(3e-2, "scales"),
        ),
    ),
    "openai-es": Row(
        openai_es,
        "OpenAI-ES",
        "1703.03864",
        forwards="2n",
        memory="probe",
        colour="#7F7F7F",
        dash="3px,6px",
        trial_lrs=(0.3, 1e-2),
        schedule="linear",
        presets=(tuned(1.8e-1), coarse(1e-1, "lora")),
    ),
    "activity": Row(
        activity,
        "Activity perturbation",
        "2210.03310",
        forwards="2n + 1",
        memory="outputs",
        colour="#8C564B",
        dash="dash",
        trial_lrs=(0.05, 1e-2),
        schedule="linear",
        home="writers:2",
        presets=(of_encoder(1.5e-2, eps=1e-2), tuned(2.7e-1, "writers", 1e-2)),
    ),
    "feedback": Row(
        feedback,
        "Learned feedback",
        "",
        forwards="1, in steps with pushes n + 1",
        memory="outputs and moments",
        colour="#AA3377",
        dash="solid",
        trial_lrs=(0.05, 1e-2),
        schedule="linear",
        home="writers:2",
        presets=(of_encoder(1e-3, eps=1e-2), tuned(3e-3, "writers", 1e-2)),
    ),
    "sgd": Row(
        sgd,
        "SGD (backprop)",
        "",
        forwards="1 and a backward",
        memory="gradient",
        colour="ink",
        dash="dot",
        trial_lrs=(0.2, 0.03),
        schedule="linear",
        presets=(paper(1e-3, "common fine-tuning practice"), tuned(3.3e-2)),
    ),
    "adamw": Row(
        adamw,
        "AdamW (backprop)",
        "",
        forwards="1 and a backward",
        memory="gradient and moments",
        colour="ink",
        dash="solid",
        trial_lrs=(0.1, 3e-3),
        schedule="linear",
        presets=(
            paper(2e-5, "common fine-tuning practice"),
            paper(2e-4, "common LoRA practice", "lora", eps=1e-3),
            tuned(3e-4),
            of_encoder(1.3e-4, "all"),
            of_encoder(1.6e-3),
            coarse(1e-3, "lora", eps=1e-3),
        ),
    ),
}

# every option of some method that is a number or a word; each is a setting of RunConfig by the same name
OPTIONS = tuple(
    dict.fromkeys(name for row in METHODS.values() for name in row.options if name not in ("law", "update"))
)


def build(name: str, **options: object) -> Stepper:
    """Return a method by name with its own options. Raises ValueError for unknown names and options."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    unknown = [option for option in options if option not in METHODS[name].options]
    if unknown:
        raise ValueError(f"{name} has no option {unknown[0]!r}; its options are {', '.join(METHODS[name].options)}")
    return METHODS[name].build(**options)
