"""How the page looks in a real browser: the first lines, every width, and what a screen reader meets."""

import subprocess
import tarfile
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]
TABS = ("Play", "Race", "Runs", "Microscope", "Memory", "Break it", "Learn", "Claims")


def test_lines_are_there_before_plotly(visit: Any, chromium: Any, address: str) -> None:
    """The first paint waits for no library: curves are sketched, and drawn in full when Plotly comes."""
    page = chromium.new_page()
    held: list[Any] = []
    page.route("**/plotly.min.js", lambda route: held.append(route))
    page.goto(address)
    page.wait_for_selector("#zo-loss .zo-sketch polyline")
    assert len(page.get_attribute("#zo-loss .zo-sketch polyline", "points").split()) == 300
    assert page.locator("#zo-loss .zo-sketch text").count() == 4
    assert "300 steps" in page.inner_text("#zo-card")
    for route in held:
        route.continue_()
    page.wait_for_selector("#zo-loss .main-svg")
    page.wait_for_selector(".zo-sketch", state="detached")
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", TABS)
def test_no_tab_is_wider_than_the_screen(visit: Any, width: int, name: str) -> None:
    ann = visit(width=width)
    ann.tab(name)
    ann.page.wait_for_timeout(600)
    assert ann.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The accessibility checker, fetched once with npm."""
    folder = tmp_path_factory.mktemp("axe")
    try:
        subprocess.run(
            ["npm", "pack", "--silent", "axe-core@4"], cwd=folder, check=True, capture_output=True, timeout=120
        )
    except (OSError, subprocess.SubprocessError):
        pytest.skip("axe-core cannot be fetched: npm or the network is missing")
    with tarfile.open(next(folder.glob("axe-core-*.tgz"))) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_tab_has_a_serious_accessibility_finding(visit: Any, axe: str, theme: str) -> None:
    ann = visit(query=f"?__theme={theme}")
    ann.page.evaluate(axe)
    for name in TABS:
        ann.tab(name)
        ann.page.wait_for_timeout(600)
        found = ann.page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa']})")["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert serious == [], name


def test_the_microscope_looks_and_measures(visit: Any) -> None:
    """Both looks draw what was measured now in the place of what was recorded."""
    ann = visit()
    ann.tab("Microscope")
    ann.page.wait_for_selector("#zo-law .main-svg")
    points = "JSON.stringify(document.querySelector('#zo-{} .zo-plot').data.map((one) => one.y))"
    slice_, law = points.format("slice"), points.format("law")
    before: list[str] = [ann.page.evaluate(slice_), ann.page.evaluate(law)]
    ann.number("direction", 3)
    ann.page.click("#zo-look")
    ann.page.wait_for_function(f"{slice_} !== {before[0]!r}", timeout=90_000)
    assert "measured" in ann.page.inner_text("#zo-look-status")
    ann.page.click("#zo-batch-law")
    ann.page.wait_for_function(f"{law} !== {before[1]!r}", timeout=180_000)


CONTRAST = """(element) => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255);
    const one = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * one(r) + 0.7152 * one(g) + 0.0722 * one(b);
  };
  const style = getComputedStyle(element), [low, high] = [style.color, style.backgroundColor].map(light).sort();
  return (Math.max(low, high) + 0.05) / (Math.min(low, high) + 0.05);
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_start_button_reads_well_under_the_pointer(visit: Any, theme: str) -> None:
    ann = visit(query=f"?__theme={theme}")
    assert ann.page.eval_on_selector("#zo-start", CONTRAST) >= 4.5
    ann.page.hover("#zo-start")
    ann.page.wait_for_timeout(600)
    assert ann.page.eval_on_selector("#zo-start", CONTRAST) >= 4.5


def test_no_bar_of_buttons_covers_a_legend_on_a_touch_screen(chromium: Any, address: str) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#zo-loss .main-svg", state="attached")
    page.tap("#zo-loss .main-svg >> nth=0")
    page.wait_for_timeout(500)
    assert page.locator("#zo-loss .modebar-btn").count() == 0
    context.close()


def test_the_opening_moves_and_stands_still_where_motion_is_not_wanted(visit: Any, chromium: Any, address: str) -> None:
    """With reduced motion the end of the run is shown; without, the picture changes until Pause is pressed."""
    ann = visit()
    assert "forward passes, no backward pass" in ann.page.inner_text(".zo-told")
    assert ann.page.locator(".zo-turn.right").count() == ann.page.locator(".zo-turn").count()
    page = chromium.new_page()
    page.goto(address)
    page.wait_for_function("document.querySelector('.zo-told')?.textContent.startsWith('Step')")
    picture = "document.querySelector('.zo-opening canvas').toDataURL()"
    first = page.evaluate(picture)
    page.wait_for_function(f"{picture}.length > 1000 && {picture} !== {first!r}")
    page.click(".zo-opening button")
    page.wait_for_timeout(600)
    still = page.evaluate(picture)
    page.wait_for_timeout(900)
    assert page.evaluate(picture) == still
    page.close()
