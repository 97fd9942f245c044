"""The named endpoints, as the documentation shows them."""

import re

import pytest

from tests.support.places import ROOT

pytestmark = pytest.mark.slow
HOSTING = ROOT / "app" / "HOSTING.md"


def test_the_documented_example_runs(address: str) -> None:
    """The example of the hosting page starts a run, follows it and prints its result."""
    example = next(
        block for block in re.findall(r"```python\n(.*?)```", HOSTING.read_text(), re.S) if "Client" in block
    )
    example = example.replace("http://127.0.0.1:7860", address).replace('"steps": 50', '"steps": 5')
    names: dict[str, object] = {}
    exec(compile(example, "example", "exec"), names)
    events = names["events"]
    assert isinstance(events, list) and events[-1]["event"] == "RunEnded"  # the last batch came too


def test_stop_needs_the_owners_secret_and_errors_are_sentences(address: str) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    lab = Client(address, verbose=False)
    run = lab.predict({"steps": 3000}, "", api_name="/start")
    with pytest.raises(AppError, match="no such run"):
        lab.predict(run["job"], "somebody else", api_name="/stop")
    with pytest.raises(AppError, match="under way"):
        lab.predict({"steps": 5}, run["visitor"], api_name="/start")
    with pytest.raises(AppError, match="unknown setting"):
        lab.predict({"stpes": 5}, "", api_name="/start")
    assert lab.predict(run["job"], run["visitor"], api_name="/stop").startswith("stops")
    assert lab.predict({"method": "n-spsa", "directions": 4, "steps": 10}, api_name="/price")["forward_passes"] == 80
