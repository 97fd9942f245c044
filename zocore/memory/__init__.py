"""The memory a step needs, reckoned from a model's shape."""
