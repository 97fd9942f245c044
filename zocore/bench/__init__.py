"""The time a step takes beside two forward passes, and beside the step as published."""
