"""The door of the server: requests that are too large or too many are answered before anything reads them."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from threading import Event
from typing import Any

from app.jobs.limits import Limits
from app.jobs.visitors import Rate
from app.log import Errors

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 1_000_000  # of a request that is no upload
# bytes and seconds for which a refused request is read to its end: who is still sending would not hear the answer
MOST_DISCARDED, PATIENCE = 20_000_000, 5.0


class _TooLarge(Exception):
    """More came than a request may have."""


class Door:
    """Counts the requests of each address that are not for reading, and the bytes of each."""

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], limits: Limits, errors: Errors, opened: Event
    ) -> None:
        self._app, self._limits, self._errors, self._opened = app, limits, errors, opened
        self._posts, self._uploads = Rate(limits.posts), Rate(limits.uploads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with one sentence."""
        if scope["type"] == "http" and not self._opened.is_set() and not _of_the_start(scope):
            await _refuse(_Body(receive, MOST_BYTES), send, 503, "the server is starting: try again in a moment")
        elif scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS") or not self._limits.hosted:
            await self._app(scope, receive, send)
        else:
            await self._admit(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = scope["client"][0] if scope.get("client") else ""
        upload = scope["path"].rstrip("/").endswith("/upload")
        most = MOST_BYTES + (self._limits.upload_bytes if upload else 0)
        body = _Body(receive, most)
        if wait := (self._uploads if upload else self._posts).spend(address):
            await _refuse(body, send, 429, f"too many requests from your address: try again in {min(wait, 60):.0f} s")
        elif _announced(scope) > most:
            await _refuse(body, send, 413, f"the request has more than {most:,} bytes")
        else:
            await self._pass_on(scope, body, send)

    async def _pass_on(self, scope: Scope, body: "_Body", send: Send) -> None:
        started = False

        async def sent(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, body.receive, sent)
        except _TooLarge:
            if not started:
                await _refuse(body, send, 413, f"the request has more than {body.most:,} bytes")
        except Exception:
            self._errors.print_exc()
            if not started:
                await _refuse(body, send, 400, "this request is none that the server knows")


def _of_the_start(scope: Scope) -> bool:
    """Whether the request is one of those by which Gradio finds out that it is up, and gives up if it is not."""
    return scope["method"] == "HEAD" or str(scope["path"]).endswith("/startup-events")


def _announced(scope: Scope) -> int:
    """The bytes that a request says it has, 0 where it does not say."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


class _Body:
    """What a request sends: passed on up to a size, or read away."""

    def __init__(self, receive: Receive, most: int) -> None:
        self.most, self._receive, self._bytes, self._ended = most, receive, 0, False

    async def receive(self) -> MutableMapping[str, Any]:
        """Return the next message. Raises _TooLarge at the one that is too much."""
        message = await self._next()
        if self._bytes > self.most:
            raise _TooLarge
        return message

    async def discard(self) -> None:
        """Read what is left, up to a size and for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not self._ended and self._bytes < self.most + MOST_DISCARDED:
                    await self._next()

    async def _next(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        return message


async def _refuse(body: _Body, send: Send, status: int, sentence: str) -> None:
    await body.discard()
    content = json.dumps({"error": sentence, "detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
