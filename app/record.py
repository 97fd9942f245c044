"""python -m app.record [toy] [race] [microscope] [opening]: make what the page opens with, or the named parts."""

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

from app import opening_run
from app.charts import close_up
from app.form import forms
from app.jobs.questions import look_along
from app.tabs import microscope, race
from zocore.config import RunConfig
from zocore.diagnostics import alignment
from zocore.runs.events import Event, StepDone
from zocore.runs.loop import run
from zocore.runs.opening import open_session
from zocore.runs.recording import CONFIG, SUMMARY, record

FOLDER = Path(__file__).parent / "recorded"
RACERS = ("feedback", "grzo", "mezo")
SEEDS, BUDGET = 3, 200


def main() -> None:
    """Record everything anew, or what is named: some minutes on two cores."""
    toy = forms.with_presets(forms.PRESETS["toy"])
    wanted = sys.argv[1:] or ["toy", "race", "microscope", "opening"]
    if "toy" in wanted:
        _run(toy, FOLDER / "toy")
    if "race" in wanted:
        shutil.rmtree(FOLDER / "race", ignore_errors=True)
        for number, config in enumerate(race.lanes(replace(toy, eval_every=0), RACERS, SEEDS, BUDGET)):
            _run(config, FOLDER / "race" / f"lane-{number}", slim=True)
    if "microscope" in wanted:
        # on the task that the claims are measured on
        (FOLDER / "microscope.json").write_text(json.dumps(readings(replace(toy, task="topic"))) + "\n")
    if "opening" in wanted:
        found = opening_run.readings(opening_run.settings())
        (FOLDER / "opening.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")


def _run(config: RunConfig, folder: Path, slim: bool = False) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for _ in record(map(_drawn, run(config)) if slim else run(config), folder):
        pass
    for name in (CONFIG, SUMMARY):
        (folder / name).unlink()


def _drawn(event: Event) -> Event:
    """The event without what only a replay needs."""
    if not isinstance(event, StepDone):
        return event
    slopes = event.projected_grads
    mean = [sum(slopes) / len(slopes)] if slopes else []
    return replace(
        event, loss_plus=[], loss_minus=[], projected_grads=mean, coefficients=[], directions=[], touched=None
    )


def readings(config: RunConfig) -> dict[str, object]:
    """Return the microscope's readings at the bundled model's weights."""
    session = open_session(microscope.config_of(config, "fp32"))
    per_example = open_session(microscope.config_of(config, "fp32", "grzo"))
    return {
        "look": look_along(session, 0, close_up.EPS),
        "alignment": asdict(alignment.alignment(session, microscope.COUNTS)),
        "law": asdict(alignment.batch_law(per_example, microscope.SIZES, 24)),
    }


if __name__ == "__main__":
    main()
