"""Record a run and watch it in TensorBoard: `python examples/tracking.py FOLDER`."""

import sys
from pathlib import Path

from zocore import RunConfig, claim, record, run
from zocore.runs.report import Report

folder = Path(sys.argv[1])
config = RunConfig(task="topic", steps=20, eval_every=10, eval_examples=40)
report = Report(["tensorboard"], folder)  # or trackio, wandb
claim(folder, config)
for event in record(run(config), folder):
    for sentence in report.add(event):
        print(sentence)
