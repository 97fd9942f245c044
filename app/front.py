"""The page's HTML, kept: making it takes Gradio 30 ms of the one process that answers everybody.

What comes is the same for every visitor who reaches the server by the same name. Where there is a password it is not,
and nothing is kept.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NAMES = (b"host", b"x-forwarded-host", b"x-forwarded-proto", b"x-gradio-server")  # what the page's own address is of
MOST = 8  # addresses by which the server is reached
CHANGES = b"deep_link"  # the one part of a query that Gradio's page depends on


class Front:
    """Answers a request for the page with what was answered before."""

    def __init__(self, app: App, keep: bool) -> None:
        self._app, self._keep = app, keep
        self._pages: OrderedDict[tuple[Any, ...], list[Message]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it from what is kept."""
        if not self._keep or not of_the_page(scope):
            await self._app(scope, receive, send)
            return
        key = _key(scope)
        page = self._pages.get(key) or await self._made(key, scope, receive)
        for message in page:
            await send(dict(message))

    async def _made(self, key: tuple[Any, ...], scope: Scope, receive: Receive) -> list[Message]:
        page: list[Message] = []

        async def kept(message: Message) -> None:
            page.append(message)

        await self._app(scope, receive, kept)
        if page and page[0].get("status") == 200:
            self._pages[key] = page
            while len(self._pages) > MOST:
                self._pages.popitem(last=False)
        return page


def of_the_page(scope: Scope) -> bool:
    """Whether a request is one for the page itself."""
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and scope["path"] == scope.get("root_path", "") + "/"
        and CHANGES not in scope.get("query_string", b"")
    )


def _key(scope: Scope) -> tuple[Any, ...]:
    headers = dict(scope["headers"])
    return scope.get("scheme"), scope.get("root_path"), *(headers.get(name) for name in NAMES)
