"""Runs of visitors: queued, worked on, kept and seen."""
