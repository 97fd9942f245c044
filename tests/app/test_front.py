"""The kept page: what is answered again is what was answered before, and only where it may be."""

from typing import Any

import pytest

from app.front import MOST, Front
from tests.support.coroutines import finish


class Inner:
    """A server that counts how often it made something."""

    def __init__(self, status: int = 200) -> None:
        self.made, self.status = 0, status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.made += 1
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        host = dict(scope["headers"])[b"host"]
        await send({"type": "http.response.body", "body": b"page of " + host + b" " + scope["path"].encode()})


def ask(front: Front, path: str = "/", query: bytes = b"", host: bytes = b"a", method: str = "GET") -> bytes:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": [(b"host", host)]}
    finish(front(scope, None, send))  # type: ignore[arg-type]
    return sent[1]["body"]  # type: ignore[no-any-return]


def test_the_page_is_made_once_for_each_name_of_the_server() -> None:
    inner = Inner()
    front = Front(inner, keep=True)
    assert [ask(front), ask(front, query=b"cfg=x"), ask(front, host=b"b"), ask(front)] == [
        b"page of a /", b"page of a /", b"page of b /", b"page of a /",
    ]  # fmt: skip
    assert inner.made == 2
    for number in range(3 * MOST):
        ask(front, host=str(number).encode())
    assert len(front._pages) == MOST


@pytest.mark.parametrize(
    "asked", [{"path": "/config"}, {"method": "POST"}, {"query": b"deep_link=x"}], ids=["other", "post", "deep"]
)
def test_nothing_else_is_kept(asked: dict[str, Any]) -> None:
    inner = Inner()
    front = Front(inner, keep=True)
    assert ask(front, **asked) == ask(front, **asked)
    assert inner.made == 2


def test_neither_a_failure_nor_a_page_behind_a_password_is_kept() -> None:
    for front in (Front(broken := Inner(500), keep=True), Front(locked := Inner(), keep=False)):
        ask(front), ask(front)
    assert broken.made == locked.made == 2
