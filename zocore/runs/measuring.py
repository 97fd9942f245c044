"""Looks at the estimator beside a run, by forward passes that are not the step's own and move nothing."""

from dataclasses import replace

from zocore.carriers.scratch import Scratch
from zocore.runs.estimator import measure
from zocore.runs.events import EstimatorMeasured, Event, Warned
from zocore.runs.rounding_share import DROWNED, rounding_share
from zocore.runs.session import Session
from zocore.step.losses import Losses
from zocore.step.step import Method


def estimator_measured(session: Session, number: int) -> list[Event]:
    """Return what a measurement before a step found; nothing where the method draws no directions."""
    eps = session.config.eps
    if not session.method.zeroth_order or eps is None:
        return []
    plain = not session.flat and all(leaf.shown_dtype is None and leaf.floor is None for leaf in session.leaves)
    backprop = plain and session.ranks.count == 1
    key, losses = session.key(number), _apart(session, number)
    r = measure(session.method, session.leaves, losses, key, eps, session.state, backprop=backprop)
    if r is None:
        return [Warned(number, "the estimator could not be measured: a loss was not a finite number")]
    return [EstimatorMeasured(number - 1, r.estimates, r.variance, r.norm, r.cosine, r.norm_ratio, r.forward_passes)]


def rounding_told(session: Session) -> list[Event]:
    """Return a warning when the model's 16 bits round away most of what the steps are to measure."""
    method, dtype, eps = session.method, session.config.dtype, session.config.eps
    if dtype == "fp32" or not isinstance(method, Method) or method.pushes or eps is None:
        return []
    share = rounding_share(method, _apart(session, 1), session.key(1), eps)
    if share is None or share <= DROWNED:
        return []
    message = (
        f"about {min(share, 1):.0%} of what a step measures is rounding in {dtype}: take --dtype fp32, "
        "--dtype fp16 or a larger --eps"
    )
    return [Warned(0, message)]


def _apart(session: Session, number: int) -> Losses:
    """A step's losses, probed never in place: a measurement must not leave even a rounding behind."""
    return replace(session.losses(number), shared=Scratch(session.leaves))
