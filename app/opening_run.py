"""The run that the opening shows: recorded numbers alone, from a MeZO run of the bundled model and its own plane."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from app.form import forms
from zocore.config import RunConfig
from zocore.diagnostics.loss_surface import Plane, heights, weights
from zocore.directions.laws import Direction
from zocore.runs.events import EvalDone, StepDone
from zocore.runs.loop import run_session
from zocore.runs.opening import open_session
from zocore.runs.session import Session

BEATS = 24  # moments shown
GRID = 19  # places each way
EXAMPLES = 48  # whose mean loss is the height
ASKED = 120  # test sentences among which those are that turn right
SENTENCES = 3


@dataclass(frozen=True)
class Beat:
    """One step of the run as the opening shows it."""

    step: int
    place: tuple[float, float]  # before it, as shares of the whole way
    direction: tuple[float, float]  # the shadow of z, of length 1
    plus: float  # losses of its batch at both probes
    minus: float
    answers: list[list[float]]  # probabilities of the labels, of each sentence


def moments(steps: int) -> list[int]:
    """Return the steps after which the run is shown: more at first, where most happens."""
    return sorted({round((number / BEATS) ** 2 * steps) for number in range(BEATS + 1)})


def settings() -> RunConfig:
    """Return the settings of the run."""
    toy = forms.PRESETS["toy"].without_options()
    # on an easy task, where plain MeZO turns sentences right within the run
    return forms.with_presets(
        replace(toy, task="topic", method="mezo", measure_every=0, eval_every=0, eval_examples=200)
    )


def readings(config: RunConfig) -> dict[str, Any]:
    """Do the run and return what the opening draws: the surface, the beats and the sentences."""
    session = open_session(config)
    shown = moments(config.steps)
    points, steps, tests = [weights(session)], [], []
    texts = session.task.test[:ASKED]
    answers = [_answers(session, texts)]
    for event in run_session(session):
        if isinstance(event, EvalDone):
            tests.append(event)
        if isinstance(event, StepDone):
            if event.step - 1 in shown:
                steps.append(event)
            if event.step in shown:
                points.append(weights(session))
                answers.append(_answers(session, texts))
    plane = Plane.through(points[0], points[len(points) // 2], points[-1])
    way = plane.place(points[-1])[0]
    xs = [way * (-0.4 + 2.4 * i / (GRID - 1)) for i in range(GRID)]
    ys = [way * (-1.3 + 2.9 * i / (GRID - 1)) for i in range(GRID)]
    surface = heights(session, plane, xs, ys, session.task.train[:EXAMPLES])
    chosen = _turned(answers, texts)
    beats = [
        Beat(
            event.step,
            _share(plane.place(points[number]), way),
            _unit(plane.shadow(_direction(session, event.step))),
            round(_mean(event.loss_plus), 4),
            round(_mean(event.loss_minus), 4),
            [[round(p, 3) for p in answers[number][one]] for one in chosen],
        )
        for number, event in enumerate(steps)
    ]
    return {
        "task": config.task,
        "steps": config.steps,
        "values": session.trainable,
        "xs": [round(x / way, 3) for x in xs],
        "ys": [round(y / way, 3) for y in ys],
        "heights": [[round(h, 4) for h in row] for row in surface],
        "beats": [asdict(beat) for beat in beats],
        "last": {
            "place": _share(plane.place(points[-1]), way),
            "answers": [[round(p, 3) for p in answers[-1][one]] for one in chosen],
        },
        "accuracy": [tests[0].accuracy, tests[-1].accuracy],
        "labels": list(session.task.label_names),
        "sentences": [["\n".join(texts[one].fields.values()), texts[one].label] for one in chosen],
    }


def _answers(session: Session, texts: Any) -> list[list[float]]:
    probabilities: list[list[float]] = session.objective.probabilities([one.fields for one in texts]).tolist()
    return probabilities


def _turned(answers: list[list[list[float]]], texts: Any) -> list[int]:
    """The numbers of sentences that were wrong at first and are right in the end: the last to turn of each label."""

    def wrong(at: int, one: int) -> bool:
        row = answers[at][one]
        return max(range(len(row)), key=row.__getitem__) != texts[one].label

    turned = {
        one: max(at for at in range(len(answers)) if wrong(at, one))
        for one in range(len(texts))
        if wrong(0, one) and not wrong(-1, one)
    }
    by_label: dict[int, int] = {}
    for one in sorted(turned, key=lambda one: -turned[one]):
        by_label.setdefault(texts[one].label, one)
    chosen = list(by_label.values())[:SENTENCES]
    return sorted(chosen, key=lambda one: turned[one])


def _direction(session: Session, step: int) -> torch.Tensor:
    z = Direction(session.key(step), session.method.law)
    return torch.cat([z.tensor(leaf).flatten().float() for leaf in session.leaves])


def _share(place: tuple[float, float], way: float) -> tuple[float, float]:
    return round(place[0] / way, 4), round(place[1] / way, 4)


def _unit(shadow: tuple[float, float]) -> tuple[float, float]:
    length = (shadow[0] ** 2 + shadow[1] ** 2) ** 0.5
    return round(shadow[0] / length, 3), round(shadow[1] / length, 3)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
