"""Tune a classifier with transformers' Trainer, without gradients: `python examples/trainer.py MODEL FOLDER`."""

import sys

from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments

from zocore.hf import ZOTrainer

name, folder = sys.argv[1:]
texts = ["the soup was lovely", "the waiter was rude", "a fine room", "a noisy street"] * 8
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=2)
rows = [tokenizer(text) | {"label": 1 - number % 2} for number, text in enumerate(texts)]
arguments = TrainingArguments(
    output_dir=folder,
    learning_rate=1e-3,
    per_device_train_batch_size=8,
    max_steps=6,
    eval_strategy="steps",
    eval_steps=3,
    logging_steps=1,
    report_to="none",
)
trainer = ZOTrainer(
    model, arguments, train_dataset=rows, eval_dataset=rows[:8], processing_class=tokenizer, method="fzoo", eps=1e-3
)
trainer.train()
trainer.save_model()
