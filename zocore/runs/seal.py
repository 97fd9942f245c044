"""The rolling seal of a recording: every line ends with a hash of itself and of all lines before it.

    {"event":"StepDone", ... ,"seal":"9f86d081884c7d65"}

A seal is the first 16 hexadecimal digits of SHA-256 over the seal before and the bytes of the line without its
own. A digit that changed, or a line that was added, doubled, renumbered, moved or taken out, breaks every seal
from there on. Lines of recordings that were made before there were seals count as they stand.
"""

import hashlib
import re

NONE = ""  # the seal before the first line
SEAL = re.compile(rb'^(\{.*),"seal":"([0-9a-f]{16})"\}$', re.DOTALL)


def sealed(line: str, before: str) -> tuple[bytes, str]:
    """Return an event's line (a JSON object) with its seal and line end, and that seal."""
    body = line.encode()
    seal = chained(before, body)
    return body[:-1] + f',"seal":"{seal}"}}\n'.encode(), seal


def unsealed(line: bytes) -> tuple[bytes, str]:
    """Return a line without its seal, and the seal, which is empty where there is none."""
    match = SEAL.match(line)
    return (match[1] + b"}", match[2].decode()) if match else (line, NONE)


def chained(before: str, body: bytes) -> str:
    """Return the seal of a line whose bytes without a seal are `body`."""
    return hashlib.sha256(before.encode() + body).hexdigest()[:16]
