"""Loading models, and turning prompts into one loss per example."""
