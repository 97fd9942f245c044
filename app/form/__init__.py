"""The form: model, data, method and numbers, and what they will cost."""
