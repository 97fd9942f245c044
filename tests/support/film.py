"""python -m tests.support.film: a short silent film of the page's opening, for the README (docs/opening.webp).

Needs playwright and Chromium. Every frame is drawn when it is asked for, so a slow machine makes the same film.
"""

import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from app.tabs import opening
from tests.support.places import ROOT
from tests.support.server import serve

OUT = ROOT / "docs" / "opening.webp"
WIDTH = 1000  # of the page
PHASES = ((0.3, 160), (0.9, 380), (1.35, 90), (1.7, 90))  # of a step, with milliseconds: the probes, then the way
END = 2600  # milliseconds of the last picture
MOST = 3_000_000  # bytes


def frames(page: Any, count: int) -> list[tuple[Image.Image, int]]:
    """Return each picture of the opening with the milliseconds it stands."""
    found = []
    for beat, phase, milliseconds in [*((b, p, ms) for b in range(count) for p, ms in PHASES), (count, 0, END)]:
        page.evaluate(f"zoOpeningAt({beat}, {phase})")
        picture = page.locator("#zo-opening .zo-opening").screenshot(animations="disabled")
        found.append((Image.open(io.BytesIO(picture)).convert("RGB"), milliseconds))
    return found


def main() -> None:
    """Serve the page, film it, and write the file."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        server, address = serve(Path(folder) / "runs")
        try:
            with sync_playwright() as made:
                browser = made.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": WIDTH, "height": 900}, reduced_motion="reduce")
                page.goto(address, timeout=120_000)
                page.wait_for_function("Boolean(window.zoOpeningAt)", timeout=120_000)
                page.add_style_tag(content=".zo-opening button, .zo-opening figcaption { display: none }")
                shown = frames(page, len(opening.recorded()["beats"]))
                browser.close()
        finally:
            server.terminate()
            server.wait(timeout=30)
    (first, _), *others = shown
    times = [milliseconds for _, milliseconds in shown]
    first.save(
        OUT, save_all=True, append_images=[one for one, _ in others], duration=times, loop=0, quality=72, method=4
    )
    size = OUT.stat().st_size
    assert size < MOST, f"{OUT.name} has {size:,} bytes, over the limit of {MOST:,}"
    print(f"{OUT}: {len(shown)} pictures, {sum(times) / 1000:.0f} s, {size:,} bytes")


if __name__ == "__main__":
    main()
