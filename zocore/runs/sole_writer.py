"""One writer at a time: two processes that append to one recording would break it.

The system drops the lock with the process, however that ends. Readers need none.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from zocore.errors import InputError

if sys.platform == "win32":
    import msvcrt

    FAR = 2**62  # a byte that no recording reaches: Windows keeps readers off the bytes that are locked

    def _lock(file: IO[bytes]) -> None:
        file.seek(FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def sole_writer(file: IO[bytes], folder: Path) -> Iterator[None]:
    """Keep other writers off an open file, until it is closed. Raises InputError when there is one already.

    A file system that knows no locks keeps nobody off.
    """
    try:
        _lock(file)
    except (BlockingIOError, PermissionError):
        raise InputError(f"{folder} is being written by another process: wait for it or stop it") from None
    except OSError:  # network file systems without locks
        pass
    yield
