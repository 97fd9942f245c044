"""From examples to losses: decoders, masked models, classifiers and sentence encoders."""
