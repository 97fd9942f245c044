"""What can be done with a run folder: rebuild its weights, prove them, ask them, write them out."""

from dataclasses import dataclass
from pathlib import Path

from zocore.errors import InputError
from zocore.runs.delta import open_delta, save_session
from zocore.runs.export import check_free, write_model
from zocore.runs.loop import check_base, check_data, replay
from zocore.runs.predict import predictions
from zocore.runs.recording import Recording, read_recording
from zocore.runs.session import Session, open_session

IN_PLACE_TOLERANCE = 1e-5  # moves there and back are roundings: allowed difference over the largest weight


@dataclass(frozen=True)
class Verdict:
    """What a replay found: lines to read, and whether the weights are proved (true where no proof was asked)."""

    lines: list[str]
    proved: bool = True


def rebuild(folder: Path, step: int | None = None) -> tuple[Recording, Session]:
    """Return a run's recording and a session whose weights are those after a step, by default the last.

    Raises InputError for a folder that holds no run or a step it does not have, ValueError when the method
    cannot be replayed or the base model is another one.
    """
    recording = read_recording(folder)
    done = recording.steps[-1].step if recording.steps else 0
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
    count = len(recording.steps) if step is None else step
    found = session.fingerprint()
    said = [f"rebuilt {session.trainable} values after step {count} without a forward pass", f"fingerprint {found}"]
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
    return predictions(rebuild(folder, step)[1], texts)


def export_run(folder: Path, to: Path, step: int | None, delta: bool) -> str:
    """Write the tuned model as a Hugging Face folder, or what changed alone; return a sentence that says so.

    Raises InputError when the target already holds something.
    """
    check_free(to)
    _, session = rebuild(folder, step)
    to.mkdir(parents=True, exist_ok=True)
    if delta:
        save_session(to, session)
        return f"wrote what changed ({session.trainable} values) to {to}"
    return f"wrote the tuned model to {to}{write_model(session, to)}"


def export_delta(model: str, delta: Path, to: Path) -> str:
    """Write the model that a file of changes makes of its base model; return a sentence that says so.

    Raises InputError when the target already holds something, or file and model do not fit.
    """
    check_free(to)
    session = open_delta(model, delta)
    to.mkdir(parents=True, exist_ok=True)
    return f"wrote the tuned model to {to}{write_model(session, to)}"
