"""What can be done with a run folder: check it, rebuild its weights, prove them, ask them, write them out."""

from dataclasses import dataclass
from pathlib import Path

from zocore.errors import InputError
from zocore.runs.adapter import write_adapter
from zocore.runs.card import write_card
from zocore.runs.delta import open_delta, save_session
from zocore.runs.export import check_free, whole, write_model
from zocore.runs.kept_weights import after, restore
from zocore.runs.opening import open_session
from zocore.runs.predict import predictions
from zocore.runs.rebuilding import check_base, check_data, replay
from zocore.runs.recording import SUMMARY, Recording, examine, read_recording
from zocore.runs.session import Session
from zocore.runs.typed import parsed

IN_PLACE_TOLERANCE = 1e-5  # moves there and back are roundings: allowed difference over the largest weight

UNSEALED = "not sealed: made before recordings were, so a number that was changed in it would not be noticed"
OTHER_SUMS = (
    "made by an earlier version, which summed momentum, Adam and low-rank directions in another order: its weights are "
    "rebuilt to rounding, not to the last bit"
)


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
    said += caveats(recording)
    if recording.unfinished:
        said.append("the last line was being written when the process was killed: nothing before it is lost")
    return Verdict([*said, *_cut_short(recording)], proved=not _cut_short(recording))


def caveats(recording: Recording) -> list[str]:
    """What is not promised of a recording that an earlier version made."""
    return [UNSEALED] * (not recording.sealed) + [OTHER_SUMS] * recording.rebuilt_to_rounding


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
    replay(session, after(recording.steps, restore(session, recording, step)[0]), until=step)
    return recording, session


def replay_run(folder: Path, step: int | None, verify: bool) -> Verdict:
    """Rebuild a run's weights and say their fingerprint; with `verify`, prove them equal to the live run's.

    The proof is the fingerprint that the run recorded at its end, or else the run done again from its start.
    """
    recording, session = rebuild(folder, step)
    count = recording.last if step is None else step
    fingerprint = session.fingerprint()
    passes = session.method.replay_passes(count)
    how = (
        f"with {passes} of {session.method.forward_passes(count)} forward passes"
        if passes
        else "without a forward pass"
    )
    said = [f"rebuilt {session.trainable} values after step {count} {how}", f"fingerprint {fingerprint}"]
    said += caveats(recording)
    if not verify:
        return Verdict(said)
    end = recording.end
    if end is not None and end.weights_fingerprint == fingerprint and count == end.steps:
        return Verdict([*said, "verified: bitwise equal to the weights the run ended with"])
    if recording.rebuilt_to_rounding:
        return Verdict([*said, "not proved: equal to the bit is not to be had from this recording"], False)
    again = run_again(recording, count)
    if again.fingerprint() == fingerprint:
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
    return predictions(rebuild(folder, step)[1], texts)


def export_run(folder: Path, to: Path, step: int | None, delta: bool, adapter: bool = False) -> str:
    """Write the tuned model as a Hugging Face folder, its LoRA adapter as PEFT's, or what changed alone, with a card.

    Returns a sentence that says so. Raises InputError when the target already holds something, or for an adapter of
    a run that tuned none.
    """
    check_free(to)
    recording, session = rebuild(folder, step)
    with whole(to) as stage:
        if adapter:
            write_adapter(session, stage)
            said = f"the adapter ({session.trainable} values) to {to}"
        elif delta:
            save_session(stage, session)
            said = f"what changed ({session.trainable} values) to {to}"
        else:
            said = f"the tuned model to {to}{write_model(session, stage)}"
        sort = "adapter" if adapter else "delta" if delta else "model"
        write_card(stage, session, recording.until(step), sort)
    return f"wrote {said}" + "".join(f"; the recording is {caveat}" for caveat in caveats(recording))


def export_delta(model: str, delta: Path, to: Path) -> str:
    """Write the model that a file of changes makes of its base model; return a sentence that says so.

    Raises InputError when the target already holds something, or file and model do not fit.
    """
    check_free(to)
    session = open_delta(model, delta)
    with whole(to) as stage:
        said = write_model(session, stage)
        write_card(stage, session, None, "model")
    return f"wrote the tuned model to {to}{said}"
