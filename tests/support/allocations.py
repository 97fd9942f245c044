"""How much memory a piece of work takes."""

from collections.abc import Callable
from typing import Any

import torch


def peak(work: Callable[[], Any]) -> int:
    """Most bytes held at once by tensors that `work` makes, from the allocator's own log."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        work()
    held = most = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most
