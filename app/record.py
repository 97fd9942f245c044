"""python -m app.record: make the recorded run, race and microscope readings that the page opens with."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from app import forms, microscope, race
from zocore import slices
from zocore.config import RunConfig
from zocore.loop import run
from zocore.recorder import CONFIG, SUMMARY, record

FOLDER = Path(__file__).parent / "recorded"
RACERS = ("mezo", "grzo", "mezo-gv")
BUDGET = 400


def main() -> None:
    """Record everything anew; some minutes on two cores."""
    toy = forms.with_presets(forms.PRESETS["toy"])
    _run(toy, FOLDER / "toy")
    for number, config in enumerate(race.lanes(replace(toy, eval_every=0), RACERS, 1, BUDGET)):
        _run(config, FOLDER / "race" / f"lane-{number}")
    (FOLDER / "microscope.json").write_text(json.dumps(readings(toy)) + "\n")


def _run(config: RunConfig, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for _ in record(run(config), folder):
        pass
    for name in (CONFIG, SUMMARY):
        (folder / name).unlink()


def readings(config: RunConfig) -> dict[str, object]:
    """Return the microscope's readings at the bundled model's weights."""
    session = microscope.opened(microscope.config_of(config, "fp32"))
    per_example = microscope.opened(microscope.config_of(config, "fp32", "grzo"))
    return {
        "look": asdict(microscope.look_along(session, 0)),
        "alignment": asdict(slices.alignment(session, microscope.COUNTS)),
        "law": asdict(slices.batch_law(per_example, microscope.SIZES)),
    }


if __name__ == "__main__":
    main()
