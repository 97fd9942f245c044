"""Which weights move: parameters by name, LoRA adapters, quantisation scales."""
