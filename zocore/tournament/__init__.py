"""A fair tournament: methods by tasks by seeds at one budget, each with rates found by the same rule."""
