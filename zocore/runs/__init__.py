"""A run from its settings to its last event, and back again from its recording."""
