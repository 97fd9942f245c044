"""The methods, one row each: the page to read first.

A method is a sampler (which directions), a difference (which points are asked), a shaping (from measurements
to coefficients) and an update. Any other composition is made the same way, without new code:

    Method("qzo-4", Fresh(4), shaping=Clip(100.0))                      # QZO with four directions
    Method("grzo-adam", OnePerExample(), shaping=Normalise(), update=Adam())

Which tensors move is the subspace's business (`zocore/subspaces/`) and goes with every row.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from zocore.directions.laws import Gaussian, Law, LowRank, Masked, Rademacher
from zocore.step.difference import Forward
from zocore.step.samplers import Fresh, Guided, OnePerExample
from zocore.step.shaping import CentredRank, Clip, Mean, Normalise, Shaping
from zocore.step.step import Backprop, Method, Stepper
from zocore.step.update import Adam, Sgd, Update

GAUSSIAN = Gaussian()
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


def sgd(*, update: Update = Sgd()) -> Backprop:
    """Backprop with plain SGD: the reference where memory allows."""
    return Backprop("sgd", update)


def adamw(*, update: Update = Adam()) -> Backprop:
    """Backprop with AdamW: the reference where memory allows three more copies."""
    return Backprop("adamw", update)


@dataclass(frozen=True)
class Row:
    """A method as people choose it."""

    build: Callable[..., Stepper]
    title: str
    paper: str  # arXiv number, empty for textbook methods
    forwards: str  # forward passes per step, in words
    home: str = "all"  # the subspace it is made for

    @property
    def knobs(self) -> tuple[str, ...]:
        """Names of the method's own options."""
        return tuple(inspect.signature(self.build).parameters)

    @property
    def update(self) -> Sgd | Adam:
        """The rule it applies unless told otherwise."""
        rule: Sgd | Adam = inspect.signature(self.build).parameters["update"].default
        return rule

    @property
    def summary(self) -> str:
        """One sentence on what it does."""
        return (inspect.getdoc(self.build) or "").splitlines()[0]


METHODS: Mapping[str, Row] = {
    "mezo": Row(mezo, "MeZO", "2305.17333", "2"),
    "n-spsa": Row(n_spsa, "n-SPSA", "2305.17333", "2n"),
    "grzo": Row(grzo, "GRZO", "2606.02857", "2, each with twice the matrix products"),
    "mezo-gv": Row(mezo_gv, "MeZO-GV", "2601.04710", "pool + 2"),
    "mezo-greedy": Row(mezo_greedy, "MeZO-Greedy", "2601.04710", "pool + 1"),
    "qzo": Row(qzo, "QZO", "2505.13430", "2", home="scales"),
    "fzoo": Row(fzoo, "FZOO", "2506.09034", "n + 1"),
    "openai-es": Row(openai_es, "OpenAI-ES", "1703.03864", "2n"),
    "sgd": Row(sgd, "SGD (backprop)", "", "1 and a backward"),
    "adamw": Row(adamw, "AdamW (backprop)", "", "1 and a backward"),
}


def build(name: str, **knobs: object) -> Stepper:
    """Return a method by name with its own options. Raises ValueError for unknown names and options."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    unknown = [knob for knob in knobs if knob not in METHODS[name].knobs]
    if unknown:
        raise ValueError(f"{name} has no option {unknown[0]!r}; its options are {', '.join(METHODS[name].knobs)}")
    return METHODS[name].build(**knobs)


def law(noise: str = "gaussian", *, rank: int = 0, keep: float = 1.0) -> Law:
    """Return the law of the directions: normals or signs, thin factors when rank > 0, sparse when keep < 1.

    Raises ValueError for an unknown noise or a share outside (0, 1].
    """
    laws: dict[str, Law] = {"gaussian": Gaussian(), "rademacher": Rademacher()}
    if noise not in laws:
        raise ValueError(f"unknown noise {noise!r}: choose gaussian or rademacher")
    inner = LowRank(rank) if rank else laws[noise]
    return inner if keep == 1 else Masked(inner, keep)


__all__ = ["METHODS", "Row", "build", "law"]
