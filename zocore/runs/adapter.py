"""A LoRA run's adapters as the folder that PEFT reads: `PeftModel.from_pretrained(base, folder)`."""

from pathlib import Path

from peft import LoraConfig
from safetensors.torch import save_file

from zocore.errors import InputError
from zocore.runs.session import Session
from zocore.subspaces.lora import ALPHA, RANK, TARGETS

PREFIX = "base_model.model."  # what PEFT puts before the names of the model it wraps


def write_adapter(session: Session, folder: Path) -> None:
    """Write the adapters' weights and settings. Raises InputError when adapters are not all that a reader needs."""
    if session.config.subspace != "lora":
        raise InputError(
            f"an adapter and the subspace {session.config.subspace!r} do not go together: take a run with --subspace "
            "lora, or export the model or what changed (--delta)"
        )
    if session.loaded.kind == "classifier" and session.loaded.notes:
        raise InputError("the classification head is new and not in the base checkpoint: export the whole model")
    tensors = {
        PREFIX + leaf.name.replace(".default.", "."): leaf.tensor.detach().cpu().contiguous() for leaf in session.leaves
    }
    LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=TARGETS,
        base_model_name_or_path=session.config.model,
        inference_mode=True,
    ).save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    session.loaded.tokenizer.save_pretrained(folder)
