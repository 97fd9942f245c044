"""From examples to what a run lowers: scores of labels, next tokens, and rewards of what is written."""
