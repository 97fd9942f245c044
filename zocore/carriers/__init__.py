"""Ways to let a forward pass see displaced weights."""
