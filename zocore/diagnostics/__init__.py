"""Looking at a run from the inside: loss slices, one step traced, checks of the machinery, broken runs."""
