"""Silence for the libraries underneath: what matters of theirs goes into notes and errors."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import transformers


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of bitsandbytes is worth a reader: that a package of faster CPU products is absent is not."""
    return "kernels-community" not in str(record.msg)


logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_news)  # it speaks as it is imported, by whomever


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers and the hub from writing to the terminal inside a block."""
    verbosity = transformers.utils.logging.get_verbosity()
    bars = transformers.utils.logging.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    hub.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
        hub.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
