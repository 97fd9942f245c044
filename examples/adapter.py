"""Tune a LoRA adapter from forward passes, and load it with PEFT: `python examples/adapter.py FOLDER`."""

import sys
from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from zocore import RunConfig, claim, export_run, record, run
from zocore.models.files import find_model

folder = Path(sys.argv[1])
config = RunConfig(task="topic", method="fzoo", subspace="lora", steps=20, eval_examples=40)
claim(folder / "run")
for event in record(run(config), folder / "run"):
    print(type(event).__name__)
print(export_run(folder / "run", folder / "adapter", None, delta=False, adapter=True))

base = find_model(config.model).location
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder / "adapter")
tokens = AutoTokenizer.from_pretrained(base)("The team won the last game.", return_tensors="pt")
print(model(**tokens).logits.shape)
