"""Settings all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """One thread: machines that run the tests have few cores, and toys are small."""
    torch.set_num_threads(1)
