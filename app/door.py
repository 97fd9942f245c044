"""The door of the server: requests that are too large or too many are answered before anything reads them."""

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
            await _refuse(send, 503, "the server is starting: try again in a moment")
            return
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS") or not self._limits.hosted:
            await self._app(scope, receive, send)
            return
        address = scope["client"][0] if scope.get("client") else ""
        upload = scope["path"].rstrip("/").endswith("/upload")
        if wait := (self._uploads if upload else self._posts).spend(address):
            await _refuse(send, 429, f"too many requests from your address: try again in {min(wait, 60):.0f} s")
            return
        most = MOST_BYTES + (self._limits.upload_bytes if upload else 0)
        if _announced(scope) > most:
            await _refuse(send, 413, f"the request has more than {most:,} bytes")
            return
        started = False

        async def sent(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, _measured(receive, most), sent)
        except _TooLarge:
            if not started:
                await _refuse(send, 413, f"the request has more than {most:,} bytes")
        except Exception:
            self._errors.print_exc()
            if not started:
                await _refuse(send, 400, "this request is none that the server knows")


def _of_the_start(scope: Scope) -> bool:
    """Whether the request is one of those by which Gradio finds out that it is up, and gives up if it is not."""
    return scope["method"] == "HEAD" or str(scope["path"]).endswith("/startup-events")


def _announced(scope: Scope) -> int:
    """The bytes that a request says it has, 0 where it does not say."""
    said = dict(scope["headers"]).get(b"content-length", b"")
    return int(said) if said.isdigit() else 0


def _measured(receive: Receive, most: int) -> Receive:
    left = most

    async def counted() -> MutableMapping[str, Any]:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _TooLarge
        return message

    return counted


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence, "detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
