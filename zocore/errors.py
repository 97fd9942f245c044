"""The one exception for what a user gave us: its message is shown as it is, without a traceback."""


class InputError(ValueError):
    """Bad input; the message says what is wrong and what to do about it."""
