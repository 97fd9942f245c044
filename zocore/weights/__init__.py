"""What may move: tensors, the modules that read them, and how a small step is stored in 16 bits."""
