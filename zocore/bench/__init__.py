"""How long a step takes, compared with two forward passes and with the step as published."""
