"""What is said of the papers' claims is what the command found, on the page and in the documentation."""

import math

import pytest

from app import claims
from app.tabs import claims as tab

FOUND = claims.recorded()


def test_the_documentation_is_made_of_the_recorded_file() -> None:
    assert claims.PAGE.read_text(encoding="utf-8") == claims.page(FOUND)


@pytest.mark.parametrize(
    ("claim", "found"), list(zip(claims.CLAIMS, FOUND, strict=True)), ids=lambda one: one.says[:20]
)
def test_each_claim_is_told_with_its_own_figures(claim: claims.Claim, found: claims.Checked) -> None:
    assert (claim.says, claim.verdict) == (found.says, found.verdict)
    assert claim.found.format(**found.figures) == pytest.approx(found.found) or found.figures
    shown = tab.card(found)
    assert found.date in shown and claims.COMMAND in shown and claim.verdict in shown


def test_what_needs_no_model_is_found_again() -> None:
    """The figures that are predicted or simulated are those of the file."""
    by_says = {one.says: one for one in FOUND}
    for claim in claims.CLAIMS:
        if claim.measure in (claims._clip, claims._quantised, claims._thirteen, claims._batch_law):
            assert claim.measure() == pytest.approx(dict(by_says[claim.says].figures), rel=1e-3)


def test_the_gain_of_a_pool_is_that_of_order_statistics() -> None:
    assert claims.gain(2) == pytest.approx(1.0, rel=0.03) and claims.gain(4) == pytest.approx(2.103, rel=0.03)
    left = claims._clip()
    assert left["left"] == pytest.approx(math.erf(1 / math.sqrt(2)), rel=0.02)
