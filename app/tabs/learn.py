"""The Learn tab: seven short steps; each button sets the real controls and opens the tab where to look."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from app.form import controls, forms
from app.quiet import QUIET
from app.tabs import classroom
from app.tabs.tab import Site, Tab
from zocore.config import RunConfig


@dataclass(frozen=True)
class Lesson:
    """One step: a question, two or three sentences, and what its button does."""

    title: str
    text: str
    button: str
    tab: str
    config: RunConfig | None = None  # settings for the form
    lanes: tuple[str, ...] = ()  # methods for the race
    watch: str = ""  # where to look: what the panel holds, as CSS names it
    look: str = ""  # and for what


TOY = forms.PRESETS["toy"]
LESSONS = (
    Lesson(
        "Why two forwards are enough",
        "Move all weights a little along a random direction z and ask the loss; move them the other way and ask "
        "again. The difference, over the distance, is the slope along z. Step along z by that slope: on average "
        "over z this is a step along the gradient, and no backward pass was run. Open one step part by part at "
        "the bottom of Play.",
        "Set MeZO and go to Play",
        "play",
        TOY,
        watch="#zo-opened",
        look="Press Next part: two probes, one slope, one step.",
    ),
    Lesson(
        "What one number can know",
        "In d dimensions a random direction has a cosine of about 1/sqrt(d) to the gradient: nearly a right "
        "angle. Each step learns one number about one direction, so steps are many and small. Measure the cosine "
        "and see it sit on the theory line.",
        "Go to the Microscope",
        "microscope",
        TOY,
        watch="#zo-cosine",
        look="Measure: each dot should sit on the line of theory.",
    ),
    Lesson(
        "Why eps has a valley",
        "With a large eps the secant misses the tangent: the curvature cancels between the two sides, but the third "
        "derivative does not, and its error grows with eps squared. With a small eps the two losses agree to the "
        "last digit the computer keeps: rounding. Look along z, then drag eps; then choose bf16 and watch the left "
        "wall move in.",
        "Go to the Microscope",
        "microscope",
        TOY,
        watch="#zo-slice",
        look="Look along z, then move eps: where is the valley?",
    ),
    Lesson(
        "Where the memory goes",
        "Backprop keeps activations, gradients and optimiser state. Two forwards keep the weights and one layer's "
        "scratch. Pick a model and a card, and see what fits that did not.",
        "Go to Memory",
        "memory",
        watch="#zo-fits",
        look="Which models fit with forward passes alone, and not with backprop?",
    ),
    Lesson(
        "A run is a list of seeds",
        "Noise has an address (run seed, step), so a step is stored as one number and the rate it was taken with. From "
        "these the weights of any step of MeZO come back without a forward pass. Run, then move the Replay slider; "
        "download the recording: with the losses and times it keeps besides, it has about 100 bytes a step.",
        "Set a short run and go to Play",
        "play",
        replace(TOY, method="mezo", steps=150),
        watch="#zo-replay",
        look="Press Start; when the run is done, move this slider.",
    ),
    Lesson(
        "More directions, or more steps?",
        "n directions cut the variance by n and cost n times the forwards. At an equal budget of forward passes, "
        "which wins: many rough steps, or few careful ones? Guess first.",
        "Set up the race",
        "race",
        TOY,
        ("mezo", "n-spsa", "mezo-gv"),
        watch="#zo-guess",
        look="Guess here first; then start, and watch the loss at equal cost.",
    ),
    Lesson(
        "When GRZO's B directions help",
        "GRZO gives each example of the batch its own direction inside the same two forwards. That helps as far "
        "as the examples' gradients agree: B_eff = c B + 1 - c, with c their mean cosine. Measure the law on the "
        "Microscope, then race it against MeZO, and read the column that counts work, not passes: its forwards do "
        "twice the arithmetic.",
        "Set up the race",
        "race",
        TOY,
        ("mezo", "grzo"),
        watch="#zo-race-table",
        look="After the race: the column that counts work, not passes.",
    ),
)


CLASS_TABS = (
    ("Play", "play"),
    ("Race", "race"),
    ("Microscope", "microscope"),
    ("Memory", "memory"),
    ("Break it", "break"),
    ("Learn", "learn"),
)
WATCH = """() => {
  const look = %s;
  document.querySelectorAll('.zo-watch').forEach((one) => one.classList.remove('zo-watch'));
  const find = (tries) => {
    const held = document.querySelector(look.at), panel = held && held.closest('.zo-panel, .zo-side');
    if (!panel || !panel.offsetParent) { if (tries) setTimeout(() => find(tries - 1), 200); return; }
    panel.dataset.watch = look.text;
    panel.classList.add('zo-watch');
    panel.scrollIntoView({ block: 'center' });
    const end = () => panel.classList.remove('zo-watch');
    setTimeout(() => document.addEventListener('click', end, { once: true }), 3000);
  };
  find(20);
}"""


def lay_out(site: Site) -> None:
    """Lay the steps out and connect their buttons."""
    form = site.play.form
    with gr.Column(elem_classes="zo-lessons"):
        for number, lesson in enumerate(LESSONS, start=1):
            with gr.Row(elem_classes="zo-panel zo-lesson", equal_height=False):
                gr.HTML(f"<span class='zo-step'>{number}</span><h2>{lesson.title}</h2><p>{lesson.text}</p>", scale=4)
                press = gr.Button(lesson.button, size="sm", elem_id=f"zo-lesson-{number}", scale=0, min_width=220)
            done = press.click(_setter(lesson, form), None, [site.tabs, site.race.methods, *form.outputs], **QUIET)
            done.then(None, None, None, js=WATCH % json.dumps({"at": lesson.watch, "text": lesson.look}))
        classroom.desk(site, CLASS_TABS)


def _setter(lesson: Lesson, form: controls.Controls) -> Any:
    def set_controls() -> Sequence[Any]:
        changes = controls.filled(lesson.config) if lesson.config else {}
        lanes = gr.update(value=list(lesson.lanes)) if lesson.lanes else gr.skip()
        return [gr.update(selected=lesson.tab), lanes, *form.updates(changes)]

    return set_controls


TAB = Tab("learn", "Learn", lay_out)
