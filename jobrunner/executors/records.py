"""What the scheduler keeps of jobs and lanes, and the moves between their states.

States of a job::

    HELD ──release──▶ QUEUED ──assign──▶ SENT ──outcome──▶ FINAL
                        ▲                 │ ├──────────▶ DECIDING (the caller's code says whether to retry)
                        └─revoked, retry──┘ └─cancel, limit──▶ ENDING ──lane ended──▶ FINAL, or QUEUED to retry

States of a lane::

    STARTING ──ready──▶ SERVING ──retire──▶ RETIRING ──▶ GONE
        └──────────────────┴──end, death──▶ ENDING ──ended──▶ GONE
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Protocol

from jobrunner.options import JobOptions

__all__ = ["JOB_MOVES", "CancelAnswer", "Driver", "End", "Job", "JobState", "LaneState", "Slot"]


class JobState(enum.Enum):
    """Where a job stands, for the scheduler."""

    NEW = "not yet handed in"
    HELD = "waits for other jobs"
    QUEUED = "waits for a lane"
    SENT = "handed to a lane"
    DECIDING = "failed; it is being found out whether to retry"
    ENDING = "its lane is being ended because of it"
    FINAL = "over"

    def __init__(self, meaning: str) -> None:
        self.meaning = meaning
        # One bit each, and those of the states that it may go to: a set of them would be hashed at every move.
        self.bit = 1 << len(type(self).__members__)
        self.moves = 0


_J = JobState

#: The legal moves of a job.
JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    _J.NEW: frozenset({_J.HELD, _J.QUEUED, _J.FINAL}),
    _J.HELD: frozenset({_J.QUEUED, _J.FINAL}),
    _J.QUEUED: frozenset({_J.SENT, _J.FINAL}),
    _J.SENT: frozenset({_J.QUEUED, _J.DECIDING, _J.ENDING, _J.FINAL}),
    _J.DECIDING: frozenset({_J.QUEUED, _J.FINAL}),
    _J.ENDING: frozenset({_J.QUEUED, _J.FINAL}),
    _J.FINAL: frozenset(),
}
for _state, _targets in JOB_MOVES.items():
    _state.moves = sum(target.bit for target in _targets)


class LaneState(enum.Enum):
    """Where a lane stands."""

    STARTING = "its worker is starting"
    SERVING = "takes jobs"
    RETIRING = "told to leave when idle"
    ENDING = "its processes are being ended"
    GONE = "over"


class End(enum.Enum):
    """How a job ended, as far as the scheduler knows."""

    OUTCOME = "the worker sent an outcome"
    CANCELLED = "cancelled"
    DIED = "its worker died"
    TIME_LIMIT = "it ran past its time limit"
    MEMORY_LIMIT = "its processes used more memory than its limit"
    NO_WORKER = "no worker could be started"


class CancelAnswer(enum.Enum):
    """What `Scheduler.cancel` did."""

    TOO_LATE = "the job is over, or its outcome is on its way"
    CANCELLED = "the job is cancelled"
    ENDING = "the job's processes are being ended"


class Job:
    """What the scheduler keeps of a job; the pool's record extends it."""

    __slots__ = ("alone", "attempts", "deadline", "end", "frame_bytes", "memory", "options", "seq", "slot", "state")

    def __init__(self, seq: int, options: JobOptions, frame_bytes: int) -> None:
        self.seq = seq
        self.options = options
        # Bytes that it may use; 0: it doesn't say.
        self.memory = 0 if options.memory_limit is None else options.memory_bytes
        # Whether no other job may wait in its lane: what it prints must be its own.
        self.alone = options.capture_output
        self.frame_bytes = frame_bytes
        self.state = JobState.NEW
        # The lane that has it; set in SENT, DECIDING and ENDING.
        self.slot: Slot | None = None
        # How often a worker claimed it.
        self.attempts = 0
        # Monotonic seconds at which its limit is to be looked at again; None: no limit, or not sent.
        self.deadline: float | None = None
        # Why its lane is being ended; set in ENDING only.
        self.end: End | None = None

    def move(self, state: JobState) -> None:
        """Go to `state`; a move that is not legal is a defect of ours, and told as such."""
        if not self.state.moves & state.bit:
            raise AssertionError(f"job {self.seq}: illegal move from {self.state.name} to {state.name}")
        self.state = state


class Slot:
    """What the scheduler keeps of a lane; the pool's lane refers to it."""

    __slots__ = (
        "answered",
        "dropping",
        "idle_since",
        "inflight",
        "memory",
        "number",
        "rest_bytes",
        "served",
        "state",
        "threads",
        "victim",
        "worn",
    )

    def __init__(self, number: int, threads: int) -> None:
        self.number = number
        # Threads that its worker was started for; it runs jobs of that many only.
        self.threads = threads
        self.state = LaneState.STARTING
        # Jobs sent and not answered, in the order of sending.
        self.inflight: deque[Job] = deque()
        # Revoked jobs that the worker has not dropped yet; nothing is sent before it has, or it would claim them with
        # the tokens of what comes after.
        self.dropping = 0
        # How many jobs were answered, and the number of the last one.
        self.served = 0
        self.answered = 0
        self.idle_since = 0.0
        # The job because of which it is being ended, if one is.
        self.victim: Job | None = None
        # Bytes of the memory budget that it takes up: the largest limit among its jobs, until they are over.
        self.memory = 0
        # What its worker's memory was when it had served one job; 0: none, or not known.
        self.rest_bytes = 0
        # Its worker has grown too much, and is to be replaced when it has no job.
        self.worn = False


class Driver(Protocol):
    """Carries out what the scheduler decides; every method returns at once."""

    def spawn(self, slot: Slot) -> None:
        """Start a worker for `slot`; `ready` or `ended` follows."""

    def send(self, slot: Slot, job: Job) -> None:
        """Give the lane a token, and the job."""

    def revoke(self, slot: Slot) -> int:
        """Take all tokens back that the worker has not taken; the number of them."""

    def claimed(self, slot: Slot) -> int:
        """The number of the lane's job that its worker claimed last; 0: none of them; any other: it tells nonsense."""

    def claimed_at(self, slot: Slot, job: Job) -> float | None:
        """Monotonic seconds from which the job's time limit counts; None while it is not claimed."""

    def end(self, slot: Slot, job: Job | None) -> None:
        """End the lane's processes; `job` is the one to interrupt first, if it has grace.  `ended` follows."""

    def retire(self, slot: Slot) -> None:
        """Tell the lane to leave; `ended` follows."""

    def retryable(self, job: Job, end: End) -> bool:
        """Whether a job that came to this end, and has attempts left, is to be tried again."""

    def finish(self, job: Job, end: End) -> None:
        """The job has come to its end; told once."""
