"""The exception for bad input: its message is shown to the user as it is, without a traceback."""


class InputError(ValueError):
    """Bad input; the message says what is wrong and what to do about it."""
