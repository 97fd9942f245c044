"""What can be done with a run folder: check it, rebuild its weights, prove them, ask them, write them out."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from zocore.errors import InputError
from zocore.models.objectives.encoder import LabelSimilarity
from zocore.models.quiet import quiet
from zocore.runs.export import merge_adapters, save_delta
from zocore.runs.loop import check_base, check_data, replay
from zocore.runs.recording import SUMMARY, Recording, examine, read_recording
from zocore.runs.session import Session, open_session
from zocore.runs.typed import parsed

IN_PLACE_TOLERANCE = 1e-5  # moves there and back are roundings: allowed difference over the largest weight

UNSEALED = "not sealed: made before recordings were, so a number that was changed in it would not be noticed"


@dataclass(frozen=True)
class Verdict:
    """What a check or replay found: lines to read, and whether all is proved (true where no proof was asked)."""

    lines: list[str]
    proved: bool = True


def check_run(folder: Path) -> Verdict:
    """Say whether a recording is as it was written, from the file alone; no model is loaded."""
    recording = examine(folder)
    count = f"{len(recording.events)} lines, steps 1 to {recording.last}" if recording.last else "no step yet"
    if recording.damage:
        said = [str(recording.damage), f"good: {count}"]
        return Verdict(said, proved=False)
    said = [f"{folder}: {count}; every line is as it was written" if recording.sealed else f"{folder}: {count}"]
    if not recording.sealed:
        said.append(UNSEALED)
    if recording.unfinished:
        said.append("the last line was being written when the process was killed: nothing before it is lost")
    return Verdict([*said, *_cut_short(recording)], proved=not _cut_short(recording))


def _cut_short(recording: Recording) -> list[str]:
    """What the summary knows of steps that the recording no longer has."""
    try:
        told = parsed((recording.folder / SUMMARY).read_bytes()).get("steps")
    except (OSError, ValueError):
        return []
    if type(told) is not int or told <= recording.last:
        return []
    return [f"{SUMMARY} tells of {told} steps: the recording's end is missing after step {recording.last}"]


def rebuild(folder: Path, step: int | None = None) -> tuple[Recording, Session]:
    """Return a run's recording and a session whose weights are those after a step, by default the last.

    Raises InputError for a folder that holds no run, a step it does not have or damage before that step,
    ValueError when the method cannot be replayed or the base model or the labels are others.
    """
    recording = read_recording(folder, step)
    done = recording.last
    if step is not None and not 0 <= step <= done:
        raise InputError(f"{folder} has steps 0 to {done}: there is no step {step}")
    session = open_session(recording.config, recording.header.frozen)
    check_base(session, recording)
    replay(session, recording.steps, until=step)
    return recording, session


def replay_run(folder: Path, step: int | None, verify: bool) -> Verdict:
    """Rebuild a run's weights and say their fingerprint; with `verify`, prove them equal to the live run's.

    The proof is the fingerprint that the run recorded at its end, or else the run done again from its start.
    """
    recording, session = rebuild(folder, step)
    count = recording.last if step is None else step
    found = session.fingerprint()
    said = [f"rebuilt {session.trainable} values after step {count} without a forward pass", f"fingerprint {found}"]
    if not recording.sealed:
        said.append(UNSEALED)
    if not verify:
        return Verdict(said)
    end = recording.end
    if end is not None and end.weights_fingerprint == found and count == end.steps:
        return Verdict([*said, "verified: bitwise equal to the weights the run ended with"])
    again = run_again(recording, count)
    if again.fingerprint() == found:
        return Verdict([*said, "verified: bitwise equal to the same steps run again"])
    apart = difference(session, again)
    if session.config.carrier == "in-place" and apart <= IN_PLACE_TOLERANCE:
        return Verdict([*said, f"verified to {apart:.1e} of the largest weight: in-place probes round on the way back"])
    return Verdict([*said, f"NOT equal: weights differ by up to {apart:.1e} of the largest"], proved=False)


def run_again(recording: Recording, steps: int) -> Session:
    """Return a session that has done the steps live, with all their forward passes."""
    session = open_session(recording.config, recording.header.frozen)
    check_data(session, recording)
    assert session.config.eps is not None
    for number in range(1, steps + 1):
        losses, key, lr = session.losses(number), session.key(number), session.lr(number)
        session.method.step(session.leaves, losses, key, lr, session.config.eps, session.state)
    return session


def difference(one: Session, other: Session) -> float:
    """Return the largest difference between two sessions' leaves over their largest value."""
    pairs = list(zip(one.leaves, other.leaves, strict=True))
    apart = max(float((a.tensor - b.tensor).abs().max()) for a, b in pairs)
    return apart / max(float(a.tensor.abs().max()) for a, _ in pairs)


def predict_run(folder: Path, texts: list[str], step: int | None) -> list[str]:
    """Return one line per sentence: the likeliest label and every label's probability."""
    _, session = rebuild(folder, step)
    names = session.task.label_names
    lines = []
    for text, row in zip(texts, session.objective.probabilities(texts).tolist(), strict=True):
        told = ", ".join(f"{name} {probability:.3f}" for name, probability in zip(names, row, strict=True))
        lines.append(f"{names[max(range(len(row)), key=row.__getitem__)]}  ({told})  {text}")
    return lines


def export_run(folder: Path, to: Path, step: int | None, delta: bool) -> str:
    """Write the tuned model as a Hugging Face folder, or what changed alone; return a sentence that says so.

    Raises InputError when the target already holds something.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to} already exists and is not empty: choose another --to")
    recording, session = rebuild(folder, step)
    with _whole(to) as stage:
        said = _write_changes(session, recording, stage) if delta else _write_model(session, stage)
    return f"wrote {said} to {to}" + ("" if recording.sealed else f"; the recording is {UNSEALED}")


@contextmanager
def _whole(to: Path) -> Iterator[Path]:
    """A folder to write into that becomes `to` at the end, so that a killed export leaves no half of one there."""
    stage = to.parent / f".{to.name}.unfinished"
    shutil.rmtree(stage, ignore_errors=True)  # of an export that was killed
    stage.mkdir(parents=True)
    try:
        yield stage
        if to.exists():
            to.rmdir()
        stage.replace(to)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _write_changes(session: Session, recording: Recording, to: Path) -> str:
    if session.config.subspace == "scales":
        from zocore.subspaces.quantised_file import save_scales

        save_scales(to / "scales.safetensors", session.leaves, session.loaded.model, recording.header.model)
    else:
        save_delta(to / "delta.safetensors", session.leaves, recording.header)
    return f"what changed ({session.trainable} values)"


def _write_model(session: Session, to: Path) -> str:
    model = session.loaded.model
    widened = merge_adapters(model)
    with torch.no_grad(), quiet():
        model.save_pretrained(to)  # type: ignore[operator]
    session.loaded.tokenizer.save_pretrained(to)
    if isinstance(session.objective, LabelSimilarity):
        session.objective.save_anchors(to)
    more = ", in full precision (its few bits would round the adapters away)" if widened else ""
    return f"the tuned model{more}"
