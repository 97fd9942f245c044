"""Looking inside a run: loss slices, alignment with the gradient, one step traced, machinery checks, broken runs."""
