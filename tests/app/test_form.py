"""The left-hand side in a real browser: one's own data, bad input of every kind, the cost, and what is shown."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

GOOD = "text,label\n" + "".join(
    f"the {w} number {i},{name}\n" for i in range(12) for w, name in (("great", "good"), ("awful", "bad"))
)
BAD = {
    "binary": (b"\x89PNG\x00\x00", "binary"),
    "one label": (b"text,label\n" + b"a,x\n" * 20, "one label"),
    "long line": (b"text,label\n" + b"x" * 200_000 + b",good\n", "longer than"),
    "empty": (b"", "empty"),
}


def test_ones_own_data_with_a_preview_and_every_error_beside_its_control(visit: Any, tmp_path: Path) -> None:
    ann = visit()
    ann.page.click("#zo-source label:has-text('My own data')")
    ann.page.wait_for_timeout(500)
    for name, (content, said) in BAD.items():
        path = tmp_path / f"{name}.csv"
        path.write_bytes(content)
        ann.page.set_input_files("#zo-file input[type=file]", str(path))
        ann.page.wait_for_selector(f".zo-own .zo-error:has-text('{said}')")
        ann.page.click("#zo-file button[aria-label*='lear'], #zo-file button[aria-label*='emove']")
        ann.page.wait_for_timeout(500)
    path = tmp_path / "mine.csv"
    path.write_text(GOOD)
    ann.page.set_input_files("#zo-file input[type=file]", str(path))
    ann.page.wait_for_selector("#zo-prompt pre")
    assert "the great number 0" in ann.page.inner_text("#zo-rows")
    assert "24 rows" in ann.page.inner_text("#zo-read") and "50%" in ann.page.inner_text("#zo-read")
    assert ann.page.input_value("#zo-words textarea") == "bad = bad\ngood = good"
    assert ann.page.input_value("#zo-template textarea") == "{text}\nAnswer: {label}"
    ann.page.fill("#zo-template textarea, #zo-template input", "no field here")
    ann.page.wait_for_selector("#zo-prompt .zo-error:has-text('has no field')")
    ann.page.fill("#zo-template textarea, #zo-template input", "{text} It was")
    ann.page.fill("#zo-words textarea, #zo-words input", "good=great,bad=terrible")
    ann.page.wait_for_selector("#zo-prompt pre:has-text('It was great')")
    ann.number("steps", 12)
    ann.page.click("#zo-start")
    assert "12 steps" in ann.until("finished", "failed")
    ann.page.click("#zo-mistakes-look")
    ann.page.wait_for_selector("#zo-mistakes .zo-confusion", timeout=90_000)
    assert ann.page.locator("#zo-mistakes tbody tr").count() == 2


def test_what_fits_follows_the_card_and_a_typed_model_leaves_no_numbers(visit: Any) -> None:
    ann = visit()
    ann.tab("Memory")
    assert "QLoRA" in ann.page.inner_text("#zo-fits") and "RTX 4090" in ann.page.inner_text("#zo-memory-said")
    ann.page.click("#zo-card-name input")
    ann.page.get_by_role("option", name="H100 80 GB").click()
    ann.page.wait_for_selector("#zo-memory-said:has-text('H100 80 GB')")
    ann.page.fill("#zo-shape input", "nobody/unheard-of")
    ann.page.keyboard.press("Enter")
    ann.page.wait_for_selector("#zo-memory-problem:has-text('are not known here')")
    assert "opt-13b" not in ann.page.inner_text("#zo-memory-said")
    ann.page.click("#zo-shape input")
    ann.page.get_by_role("option", name="a model of my own").click()
    ann.page.wait_for_selector("#zo-memory-said:has-text('your llama')")


def test_a_file_over_the_limit_is_refused_before_it_is_sent(visit: Any, tmp_path: Path) -> None:
    ann = visit()
    ann.page.click("#zo-source label:has-text('My own data')")
    huge, good = tmp_path / "huge.csv", tmp_path / "mine.csv"
    good.write_text(GOOD)
    with huge.open("wb") as file:
        file.truncate(200_000_000)
    sent: list[str] = []
    ann.page.on("request", lambda r: sent.append(r.url) if "/upload" in r.url else None)
    ann.page.set_input_files("#zo-file input[type=file]", str(huge))
    ann.page.wait_for_selector("#zo-too-large:has-text('huge.csv has 200 MB, over the limit of 100 MB: use a part')")
    assert sent == []
    ann.page.set_input_files("#zo-file input[type=file]", str(good))
    ann.page.wait_for_selector("#zo-prompt pre")
    assert ann.page.inner_text("#zo-too-large") == ""


def test_the_time_is_measured_on_request(visit: Any) -> None:
    ann = visit()
    ann.page.click("#zo-method input")
    ann.page.get_by_role("option", name="n-SPSA").click()
    ann.page.wait_for_selector("#zo-card:has-text('estimated, until a run was timed')")
    ann.page.click("#zo-time")
    ann.page.wait_for_selector("#zo-card:has-text('measured on this machine')", timeout=60_000)
    assert not ann.page.locator("#zo-time").is_visible()


def test_bad_settings_are_named_and_nothing_is_lost(visit: Any) -> None:
    ann = visit()
    ann.page.fill("#zo-lr input", "fast")
    ann.page.keyboard.press("Enter")
    ann.page.wait_for_selector("#zo-card:has-text('must be a number')")
    assert ann.page.is_disabled("#zo-start")
    ann.page.fill("#zo-lr input", "1e-4")
    ann.page.keyboard.press("Enter")
    ann.page.wait_for_selector("#zo-card:has-text('This run will cost')")
    ann.page.fill("#zo-model input", "nobody/nothing-here")
    ann.page.keyboard.press("Enter")
    ann.page.wait_for_timeout(1500)
    ann.page.click("#zo-start")
    assert "nobody/nothing-here" in ann.until("failed")


def test_settings_that_cannot_run_are_said_beside_a_start_that_is_disabled(visit: Any) -> None:
    """No steps, and a preset for a GPU where there is none: a sentence on the card, and no button that does nothing."""
    ann = visit()
    ann.number("steps", 0)
    ann.page.wait_for_selector("#zo-card:has-text('must be at least 1')")
    assert ann.page.is_disabled("#zo-start")
    ann.page.click("#zo-preset label:has-text('GPU')")
    ann.page.wait_for_selector("#zo-card:has-text('this machine has none'), #zo-card:has-text('cuda')")
    assert "--" not in ann.page.inner_text("#zo-card")
    assert ann.page.is_disabled("#zo-start") or "cuda" in ann.page.inner_text("#zo-card")
    ann.page.click("#zo-preset label:has-text('Toy')")
    ann.page.wait_for_selector("#zo-card:has-text('300 steps')")
    assert ann.page.inner_text("#zo-start") == "Start" and ann.page.is_enabled("#zo-start")


def test_only_the_methods_own_options_are_shown(visit: Any) -> None:
    ann = visit()
    ann.page.click("#zo-method input")
    ann.page.get_by_role("option", name="MeZO-GV").click()
    ann.page.wait_for_timeout(800)
    ann.page.get_by_role("button", name="Advanced").click()
    ann.page.wait_for_selector("#zo-pool")
    assert not ann.page.locator("#zo-clip").is_visible()
    assert "pool" in ann.page.inner_text("#zo-card").lower() or "× 6" in ann.page.inner_text("#zo-card")


def test_learned_feedback_shows_its_own_controls(visit: Any) -> None:
    ann = visit()
    ann.page.get_by_role("button", name="Advanced").click()
    ann.page.wait_for_selector("#zo-mu")
    assert ann.page.locator("#zo-alpha").is_visible() and ann.page.locator("#zo-onto").is_visible()
    assert not ann.page.locator("#zo-tie").is_visible()
    ann.page.click("#zo-method input")
    ann.page.get_by_role("option", name="Activity perturbation").click()
    ann.page.wait_for_selector("#zo-tie")
    assert not ann.page.locator("#zo-mu").is_visible()


def test_the_rate_is_found_where_that_is_asked_for(visit: Any) -> None:
    """The list of rates rests meanwhile; the card counts the search, and the page says what it found."""
    ann = visit()
    ann.number("steps", 5)
    ann.page.check("#zo-auto-lr input")
    ann.page.wait_for_selector("#zo-card:has-text('48 × 1.2 for the rate')")
    assert ann.page.is_disabled("#zo-lr input")
    ann.page.click("#zo-start")
    ann.until("looking for a learning rate", "found", "training")
    ann.until("finished")
    assert "found by a range test" in ann.page.inner_text("#zo-warnings")
    ann.page.uncheck("#zo-auto-lr input")
    ann.page.wait_for_selector("#zo-card:has-text('5 steps × 1.2'):not(:has-text('for the rate'))")
    assert ann.page.is_enabled("#zo-lr input")
