"""One real server and one headless Chromium for all tests of the page."""

import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.server import serve

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server, address = serve(tmp_path_factory.mktemp("app") / "runs")
    yield address
    server.terminate()
    server.wait(timeout=30)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as made:
        browser = made.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Visitor:
    """One browser profile on the page, with what went wrong in it."""

    def __init__(self, browser: Any, address: str, width: int = 1280, query: str = "") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce")
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else self.outside.append(r.url)
        )
        self.address = address
        self.open(query)

    def open(self, query: str = "") -> None:
        self.page.goto(self.address + query)
        # attached, not visible: a link may open another tab before the chart is drawn
        self.page.wait_for_selector("#zo-loss .main-svg", state="attached")
        self.page.wait_for_timeout(800)

    def status(self) -> str:
        return str(self.page.inner_text("#zo-status")).split("\n")[-1].strip()

    def until(self, *words: str, seconds: float = 90) -> str:
        """Wait until the status holds one of the words."""
        end = time.monotonic() + seconds
        while not any(word in self.status() for word in words):
            assert time.monotonic() < end, f"status is still {self.status()!r}"
            self.page.wait_for_timeout(200)
        return self.status()

    def number(self, name: str, value: object) -> None:
        self.page.fill(f"#zo-{name} input", str(value))
        self.page.keyboard.press("Tab")
        self.page.wait_for_timeout(500)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()
        self.page.wait_for_timeout(400)

    def points(self, chart: str, trace: int = 0) -> int:
        return int(self.page.evaluate(f"document.querySelector('#zo-{chart} .zo-plot').data[{trace}].x.length"))

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Any]:
    visitors: list[Visitor] = []

    def come(**options: Any) -> Visitor:
        visitors.append(Visitor(chromium, address, **options))
        return visitors[-1]

    yield come
    for visitor in visitors:
        stop = visitor.page.locator("#zo-stop")
        if stop.is_visible():
            stop.click()
            visitor.until("stopped", "finished", "failed")
        visitor.close()
        assert visitor.errors == []
        assert visitor.outside == []
