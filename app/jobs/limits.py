"""How much visitors may ask for: on one's own machine almost anything, on a hosted server what it can give."""

from collections.abc import Mapping
from dataclasses import dataclass

DAY = 86_400.0
HOUR = 3600.0


@dataclass(frozen=True)
class Limits:
    """The limits of a server. The defaults are for one's own machine; 0 means any."""

    hosted: bool = False  # strangers: no folders, files, pickles or regular expressions from outside
    workers: int = 1  # jobs at a time
    waiting: int = 20  # jobs in the queue
    seconds: float = 12 * HOUR  # wall-clock time of one job
    grace: float = 30.0  # seconds between a stop and the end of a child that does not end by itself
    memory: int = 0  # bytes of one child
    polite: int = 0  # how much the page goes before a run, as `nice` counts
    question_seconds: float = HOUR  # wall-clock time of a question to a model
    file_seconds: float = 120.0  # and of one to a file
    abandoned: float = DAY  # seconds without a look after which a job is stopped
    lanes: int = 15  # of a race
    upload_bytes: int = 100_000_000
    keep: float = 0.0  # seconds a finished job stays on disk
    resident: float = 120.0  # seconds without a look after which a finished job leaves memory
    resident_jobs: int = 50  # finished jobs in memory at most
    places: int = 0  # jobs of one address that wait or run
    work: float = 0.0  # of one run; its unit is in form/work.py
    work_an_hour: float = 0.0  # of one address
    starts: int = 0  # a minute and visitor; an address has three times as many
    questions: int = 0  # a minute and visitor; an address has three times as many
    posts: int = 0  # requests a minute and address that are not for reading
    uploads: int = 0  # a minute and address

    @property
    def folders(self) -> bool:
        """Whether a visitor may name folders and files of the server."""
        return not self.hosted


HOSTED = Limits(
    hosted=True,
    waiting=16,
    seconds=900.0,
    grace=3.0,
    memory=4_000_000_000,
    polite=7,
    question_seconds=60.0,
    file_seconds=20.0,
    abandoned=120.0,
    lanes=15,
    upload_bytes=20_000_000,
    keep=DAY,
    places=4,
    work=4e13,
    work_an_hour=2e14,
    starts=10,
    questions=30,
    posts=3000,
    uploads=20,
)
"""For a server that strangers use."""

BOUNDS: Mapping[str, tuple[float, float]] = {
    "steps": (1, 5000),
    "batch_size": (1, 64),
    "micro_batch": (1, 64),
    "max_tokens": (8, 512),
    "lr": (0, 1e6),
    "eps": (0, 1e3),
    "decay": (0, 1e3),
    "seed": (0, 2**63 - 1),
    "split_seed": (0, 2**63 - 1),
    "rank": (0, 64),
    "keep": (0, 1),
    "directions": (1, 32),
    "pool": (1, 16),
    "share": (0, 1),
    "clip": (0, 1e9),
    "sides": (1, 2),
    "mu": (0, 1e3),
    "alpha": (0, 1e3),
    "push_every": (0, 5000),
    "prefix_gib": (0, 1),
    "eval_every": (0, 5000),
    "eval_examples": (1, 1000),
    "measure_every": (0, 5000),
    "max_new_tokens": (1, 64),
    "temperature": (0, 10),
    "hours": (0, 24),
    "k_shot": (0, 10_000),
    "train_examples": (0, 100_000),
    "patience": (0, 1000),
    "snapshot_every": (0, 5000),
}
"""What each number of a run may be on a hosted server."""
MOST_TEXT = 2000  # characters of any setting that is text
