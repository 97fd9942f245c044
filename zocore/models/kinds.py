"""The kinds of model: which class loads one, and which objective turns its outputs into losses.

Classes go by their names here, for importing them takes seconds and the settings only need the kinds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class ModelKind:
    """One way to load and to read a model."""

    loader: str  # class of transformers
    objective: str  # module and class in zocore.models.objectives
    endings: tuple[str, ...] = ()  # of the architectures' names in a model's configuration
    labelled: bool = False  # its head has one output for each label
    bare: bool = False  # it has no head, and needs no pooling layer either

    def load_class(self) -> Any:
        """Return the class of transformers that loads it."""
        return getattr(import_module("transformers"), self.loader)

    def objective_class(self) -> Any:
        """Return the objective's class."""
        module, name = self.objective.split(".")
        return getattr(import_module(f"zocore.models.objectives.{module}"), name)


KINDS: Mapping[str, ModelKind] = {
    "causal": ModelKind("AutoModelForCausalLM", "causal.CausalChoice", ("ForCausalLM", "LMHeadModel")),
    "masked": ModelKind("AutoModelForMaskedLM", "masked.MaskedChoice", ("ForMaskedLM",)),
    "classifier": ModelKind(
        "AutoModelForSequenceClassification",
        "encoder.Classification",
        ("ForSequenceClassification",),
        labelled=True,
    ),
    "encoder": ModelKind("AutoModel", "encoder.LabelSimilarity", bare=True),
}


def kind_of(config: Any) -> str:
    """Return the kind of a transformers configuration by its architecture's name; an encoder where none fits."""
    architecture: str = (getattr(config, "architectures", None) or [""])[0]
    return next((name for name, kind in KINDS.items() if architecture.endswith(kind.endings)), "encoder")
