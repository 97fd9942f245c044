"""What other sites show of a link: the page's title, and for a link to a run that run's result and picture."""

import re
from collections import OrderedDict
from html import escape
from urllib.parse import parse_qs

from app import results, words
from app.front import App, Message, Receive, Scope, Send, of_the_page
from app.jobs.job import Job
from app.jobs.store import JobStore

TAGS = re.compile(r'<meta\s+(?:property|name)="(?:og|twitter):[^"]*"\s+content="[^"]*"\s*/>')
HEAD = 6000  # characters in which the tags stand
PICTURES, ENDING = "/card/", ".png"
MOST = 32  # pictures kept


class Preview:
    """Writes the tags of the page, and serves the pictures they name."""

    def __init__(self, app: App, store: JobStore) -> None:
        self._app, self._store = app, store
        self._pictures: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and change what comes back where it is the page."""
        if scope["type"] == "http" and scope["method"] == "GET" and PICTURES in scope["path"]:
            await self._picture(scope["path"].partition(PICTURES)[2].removesuffix(ENDING), send)
        elif of_the_page(scope):
            await self._page(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _picture(self, name: str, send: Send) -> None:
        job = self._job(name)
        if job is None:
            await answer(send, 404, b"text/plain", b"there is no such run here")
            return
        key = (job.id, job.version)
        if key not in self._pictures:
            self._pictures[key] = results.card(job)
            while len(self._pictures) > MOST:
                self._pictures.popitem(last=False)
        await answer(send, 200, b"image/png", self._pictures[key])

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []

        async def kept(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, kept)
        if messages[0].get("status") != 200:
            for message in messages:
                await send(message)
            return
        html = b"".join(message.get("body", b"") for message in messages).decode()
        body = (self._tagged(html[:HEAD], scope) + html[HEAD:]).encode()
        headers = [pair for pair in messages[0]["headers"] if pair[0].lower() != b"content-length"]
        await send({**messages[0], "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})

    def _tagged(self, head: str, scope: Scope) -> str:
        """The head of the page with tags of its own."""
        named = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("run", [""])[0]
        job = self._job(named)
        title, about = words.NAME, words.TAGLINE
        if job is not None:
            title, about = f"{results.title(job)} · {words.NAME}", results.result(job)
        tags = {"og:type": "website", "og:title": title, "og:description": about, "twitter:title": title}
        tags |= {"twitter:description": about, "twitter:card": "summary_large_image" if job else "summary"}
        if job is not None:
            tags["og:image"] = tags["twitter:image"] = f"{root(scope)}{PICTURES}{job.id}{ENDING}"
        ours = "".join(f'<meta property="{name}" content="{escape(text)}" />' for name, text in tags.items())
        return TAGS.sub("", head).replace("<head>", f"<head>{ours}", 1)

    def _job(self, name: str) -> Job | None:
        job = self._store.find(name)
        return job if job is not None and job.lane.view.header is not None else None


def root(scope: Scope) -> str:
    """Return the address by which the server was reached, without a slash at its end."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    scheme = str(headers.get(b"x-forwarded-proto") or scope.get("scheme") or "http").partition(",")[0]
    host = headers.get(b"x-forwarded-host", headers.get(b"host", "")).partition(",")[0].strip()
    return f"{scheme.strip()}://{host}{scope.get('root_path', '')}"


async def answer(send: Send, status: int, sort: bytes, body: bytes) -> None:
    """Send a whole answer."""
    headers = [(b"content-type", sort), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
