"""Weights rebuilt from a recording: what has to be as it was, and the recorded steps done again."""

from zocore.noise import addressed
from zocore.runs.events import StepDone
from zocore.runs.recording import Recording, decode_step
from zocore.runs.session import Session
from zocore.runs.task import data_fingerprint


def replay(session: Session, steps: list[StepDone], until: int | None = None) -> None:
    """Bring a fresh session's weights to where the recorded steps left them, without a probe where weights were moved.

    Methods that push outputs do the forward passes that the recording's header tells, on the run's own batches.
    Bitwise equal to the live run on the same device, unless probes were carried in place. Raises ValueError
    when the method cannot be replayed.
    """
    for event in steps:
        if (until is None or event.step <= until) and not event.skipped:
            replay_step(session, event)


def replay_step(session: Session, event: StepDone) -> None:
    """Do one recorded step again on the session's weights. Raises ValueError when its method cannot."""
    key = session.key(event.step)
    recorded = decode_step(event, key, session.method.law)
    session.method.replay(session.leaves, recorded, lambda: session.losses(event.step), key, session.state)


def check_base(session: Session, recording: Recording) -> None:
    """Raise ValueError when the base model, the labels or the noise are not those the recording was made with.

    Where a replay asks the batches of the run, the training data is checked too.
    """
    header = recording.header
    if list(session.task.label_names) != header.labels:
        raise ValueError(
            f"the labels in the data are {', '.join(session.task.label_names[:8])} where the run had "
            f"{', '.join(header.labels[:8])}: its recording does not fit"
        )
    if header.fingerprint != session.loaded.fingerprint:
        raise ValueError(
            f"the weights of {header.model} are not those the run started from: its recording does not fit"
        )
    if header.versions.get("noise") != str(addressed.VERSION):
        raise ValueError("the recording was made with another version of the noise: its directions cannot be rebuilt")
    if session.method.replay_passes():
        check_data(session, recording)


def check_data(session: Session, recording: Recording) -> None:
    """Raise ValueError when the training data is not what the recorded steps drew their batches from."""
    if data_fingerprint(session.task) != recording.header.data_fingerprint:
        raise ValueError("the training data, template or label words have changed since the run: it cannot go on")
    for name, version in session.objective.versions.items():
        if recording.header.versions.get(name, "") != version:
            raise ValueError(f"the file of the {name} has changed since the run: it cannot go on")
