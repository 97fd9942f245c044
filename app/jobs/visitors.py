"""Who asks: secrets that the server issues, and how often a visitor and an address may ask."""

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from zocore.errors import InputError

MOST_KEYS = 10_000  # kept apart; beyond them the oldest are forgotten


def server_key(root: Path) -> str:
    """Return the key of a server, the same after a restart."""
    path = root / "secret"
    if not path.is_file():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
    return path.read_text()


@dataclass(frozen=True)
class Visitors:
    """Issues secrets that only this server can make, so that nobody enters under one of their own."""

    key: str

    def issue(self) -> str:
        """Return a new secret."""
        name = secrets.token_urlsafe(16)
        return f"{name}.{self._mark(name)}"

    def welcome(self, secret: object) -> str:
        """Return a secret issued here as it is, and a new one for anything else."""
        if isinstance(secret, str) and len(secret) < 200:
            name, _, mark = secret.partition(".")
            if secret.isascii() and hmac.compare_digest(mark, self._mark(name)):
                return secret
        return self.issue()

    def _mark(self, name: str) -> str:
        return hmac.new(self.key.encode(), name.encode(), hashlib.sha256).hexdigest()[:32]


@dataclass
class Rate:
    """So much in a span of time, for each key: a visitor or an address."""

    most: float  # 0 for any
    seconds: float = 60.0
    clock: Callable[[], float] = time.monotonic
    _spent: dict[str, deque[tuple[float, float]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def spend(self, key: str, amount: float = 1.0) -> float:
        """Spend and return 0, or spend nothing and return the seconds to wait (infinite when it is too much)."""
        if not self.most:
            return 0.0
        if amount > self.most:
            return float("inf")
        with self._lock:
            now = self.clock()
            spent = self._recent(key, now)
            over = sum(part for _, part in spent) + amount - self.most
            if over > 0:
                return max(0.1, self._free(spent, over) - now)
            spent.append((now, amount))
            return 0.0

    def _free(self, spent: deque[tuple[float, float]], over: float) -> float:
        """The time by which enough of what was spent is past."""
        for when, part in spent:
            over -= part
            if over <= 0:
                return when + self.seconds
        return self.clock() + self.seconds

    def give_back(self, key: str, amount: float) -> None:
        """Return what was spent and not used."""
        if self.most:
            with self._lock:
                self._recent(key, self.clock()).append((self.clock(), -amount))

    def _recent(self, key: str, now: float) -> deque[tuple[float, float]]:
        spent = self._spent.pop(key, deque())
        self._spent[key] = spent  # the newest last
        while len(self._spent) > MOST_KEYS:
            del self._spent[next(iter(self._spent))]
        while spent and spent[0][0] <= now - self.seconds:
            spent.popleft()
        return spent


def check_rate(rates: list[tuple[Rate, str]], what: str) -> None:
    """Raise InputError when one of the rates is met."""
    for rate, key in rates:
        if wait := rate.spend(key):
            raise InputError(f"too many {what} from here in a short time: try again in {min(wait, 3600):.0f} s")
