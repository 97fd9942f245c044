"""All text the page shows, apart from what the engine says itself."""

import re
from collections.abc import Mapping
from typing import Any

from app.jobs.job import Job, Lane
from app.jobs.view import View
from zocore.runs.rate_search import MOST

FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")  # of the command line
NAME = "ZO Lab"
TAGLINE = "Fine-tune a language model from forward passes alone, and watch how it works."

PRESETS: Mapping[str, str] = {
    "toy": "Toy · one minute",
    "cpu": "CPU fine-tune",
    "gpu": "GPU fine-tune",
}
BREAKS: Mapping[str, str] = {
    "lr": "Too high: the loss jumps and then sticks. Too low: nothing happens.",
    "eps": "Too large: the third derivative biases the difference. Too small: rounding drowns it.",
    "steps": "Zeroth-order steps are cheap and noisy: hundreds, where backprop takes tens.",
    "seed": "Decides the noise and the order of the data. The same seed gives the same run.",
}
SUBSPACES = [
    ("Preset of the method", "auto"),
    ("All weights", "all"),
    ("LoRA adapters", "lora"),
    ("What writes into the hidden state, in the last 2 blocks", "writers:2"),
    ("The last 2 blocks", "top:2"),
    ("Sparse: the smallest quarter of each tensor", "sparse"),
    ("Low rank: directions of rank 4", "low-rank"),
    ("Quantisation scales (loads in 4 bits)", "scales"),
]
FIND_RATE = "Find the rate by a short range test"
ABOUT_FIND_RATE = (
    f"At most {MOST} steps at rising rates on four batches, before the first step; their forward passes count."
)
AXES = [("forward passes", "forwards"), ("steps", "steps"), ("seconds", "seconds")]

ABOUT_LOSS = "Faint: the loss each step measured. Bold: its debiased running mean. No backward pass is ever run."
ABOUT_GRADIENT = "One number per step: how steep the loss is along the random direction z. It is all a step learns."
ABOUT_FORESEEN = (
    "Learned feedback pushes the outputs of layers, in some steps only, and foresees how the answers will respond. "
    "Here is the share of the response that it foresaw. A low share hinders little: Adam takes the feedback's size out "
    "of the step, and its direction is what counts."
)
ABOUT_MOVED = (
    "The objective has no gradient: a probe learns only from examples whose score it changes. Where this share stays "
    "near zero, a larger eps or a larger batch helps."
)
ABOUT_ACCURACY = "Examples the run never trains on. Circles: dev while training. Dots: test, before and after."
ABOUT_ESTIMATOR = (
    "Variance of the estimate over fresh directions at fixed weights, and its cosine to the true gradient where "
    "backprop fits in memory. Its forward passes are not counted as the run's. At alpha 0 learned feedback does not "
    "depend on the draw: its variance is zero, and what it gets wrong is bias."
)
ABOUT_MEMORY = (
    "Predicted peak of one step from the model's sizes, for this method and the usual ones. Measured: the allocator's "
    "peak on a GPU; on a CPU, the tensors alive at once, without Python and its libraries."
)
ABOUT_PROBES = (
    "Test sentences, and your own first: what the model said before the run, and what it says now. Where it writes, "
    "they are prompts."
)
RECORDED = "recorded · a run of the toy preset that came with the project. Press Start for your own."
NO_PROBES = "The sentences appear with the first evaluation."


def status(job: Job | None, position: int, wait: float = 0.0) -> str:
    """Return where a job stands, in words; a waiting one with about how many seconds it still waits."""
    if job is None:
        return RECORDED
    if job.phase == "queued" and job.lent:
        return "waiting for the GPU that is lent"
    if job.phase == "queued":
        place = f"queued, {ordinal(position + 1)} in line" if position else "queued, next"
        return f"{place} · about {clock(max(wait, 5))} to wait" if wait else place
    if job.phase == "loading":
        return "stopping before the first step" if job.stop.is_set() else _loading(job.lane)
    if job.phase == "running":
        return " · ".join(_running(lane.view, job) for lane in job.lanes[:1]) + _others(job)
    return _over(job)


def _loading(lane: Lane) -> str:
    """What a run does before its first step."""
    if not lane.config.searches:
        return "loading model and data, first evaluation"
    if lane.view.header is None:
        return f"loading, then looking for a learning rate: a range test of at most {MOST} steps"
    return f"learning rate {lane.view.header.config['lr']:g} found, first evaluation"


def rate_found(search: Mapping[str, Any]) -> str:
    """Return how a run found its learning rate, in words."""
    first, last = search["tried"][0][0], search["tried"][-1][0]
    return (
        f"Learning rate {search['lr']:g}, found by a range test from {first:g} to {last:g}: an eighth of the rate at "
        f"which the loss of four batches was lowest. Its {search['forward_passes']} forward passes are counted."
    )


def _running(view: View, job: Job) -> str:
    if job.stop.is_set():
        return f"stops after this step ({view.steps}/{view.planned})"
    word = "warm-up" if view.steps < 3 else "training"
    left = (view.planned - view.steps) / max(view.speed, 1e-9)
    return f"{word} {view.steps}/{view.planned} at {view.speed:.3g} steps/s · {clock(left)} left"


def _others(job: Job) -> str:
    return f" · {len(job.lanes)} lanes" if len(job.lanes) > 1 else ""


def _over(job: Job) -> str:
    view = job.lane.view
    if len(job.lanes) > 1 and job.phase == "finished":
        passes = sum(lane.view.place.forwards for lane in job.lanes)
        lost = sum(bool(lane.problem) for lane in job.lanes)
        return f"finished · {len(job.lanes)} runs, {passes:,} forward passes" + (
            f" · {lost} dropped out" if lost else ""
        )
    if job.phase == "finished":
        return f"finished · {view.steps} steps, {view.place.forwards} forward passes, {clock(view.place.seconds)}"
    if job.phase == "stopped" and view.warnings and not job.stopped_by:
        return f"stopped by the detector at step {view.steps}: read what it says"
    if job.phase == "stopped":
        where = f" at step {view.steps}" if view.steps else " before the first step"
        return f"stopped by {job.stopped_by or 'you'}{where}"
    if job.phase == "paused":
        return f"paused at step {view.steps}: {job.reason}. It can go on with another slice, or on the CPU."
    if job.phase == "interrupted":
        return f"interrupted at step {view.steps}: {job.reason}. Resume goes on from there."
    return f"failed: {plain(job.reason)}"


def plain(message: str) -> str:
    """Return an engine's sentence with settings named as the page names them: there is no command line here."""
    return FLAG.sub(lambda found: found[1].replace("-", " "), message)


def clock(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th, ..."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0, "th")
    return f"{number}{ending}"


def size(count: float) -> str:
    """Return bytes in words."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


RACE_AXES = [("plain forwards' worth", "cost"), *AXES]
ABOUT_RACE = (
    "Two to five methods on the model and task of the Play tab, with the same seeds, batches and budget of "
    "arithmetic; each with its own preset learning rate. A forward in which every example has a direction of its own "
    "counts twice, and blocks below all that moves count once a batch. The run that has spent least always goes next."
)
MEASURED_RACE = (
    "With rates that were searched, at 300 plain forwards: learned feedback ended with the lowest loss of the "
    "zeroth-order methods on all nine tasks tried. A linear probe of the frozen features is level with it (lower on "
    "two of the nine), and AdamW on the same weights ended lower on five of eight: docs/tournament and docs/verdict."
)
RECORDED_RACE = "recorded · a race that came with the project. Choose lanes, make a guess, and start your own."
PREDICT = "Predict first: which will have the lowest loss at the end?"
NO_STANDINGS = "The table comes when the race is over."
ABOUT_RUNS = (
    "Your runs in this browser. Choose two or more to lay their losses over one another and see in what they differ. "
    "Each letter in the table is a link to that run, which anybody who has it can open and nobody but you can change."
)
ABOUT_CLAIMS = (
    "What the papers of these methods claim, and what is left of it when it is measured. One command measures all of "
    "them again and writes this page."
)
NO_RUNS = "Choose runs above. There are none before your first start on the Play tab."
SHARED = (
    "A run that somebody shared, to look at, replay and take away. The form holds its settings: Start does it again."
)
NO_GUESS = "I would rather not say"

ABOUT_BREAK = (
    "The usual ways to ruin a run, one button each. The run starts on the Play tab with the model and task chosen "
    "there, and ends soon after a detector has said what is wrong and what to do."
)
BREAK_WATCH: Mapping[str, str] = {
    "lr": "Watch the smoothed loss: does it come back down?",
    "tiny-eps": "Watch the projected gradient: how many different values does it take?",
    "huge-eps": "Watch the projected gradient, then compare it with the slope the Microscope finds at this eps.",
    "lost-seed": "Watch the loss: the probes are honest, so why does nothing improve?",
    "no-restore": "Watch the loss: it may even fall for a while, so what is wrong with where the weights end up?",
}
