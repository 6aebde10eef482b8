"""The states of a job, and the moves between them that are legal.

::

    INITIALIZING ──submit──▶ QUEUED ──a worker has it──▶ VALIDATING ──the function started──▶ RUNNING ──▶ DONE | ERROR
                               ▲                             │                                  │
                               └───────── another attempt, or it had not started ───────────────┘

Every state that is not final may become CANCELLED or ERROR; a final state never changes.  The one exception is DONE to
ERROR: a result whose bytes arrived, and which cannot be rebuilt when it is first looked at.
"""

from __future__ import annotations

import enum

__all__ = ["JOB_FINAL_STATES", "TRANSITIONS", "JobStatus"]


class JobStatus(enum.Enum):
    """The state of a job.  Values are those of ``qiskit.providers.JobStatus``.

    Example:
        >>> JobStatus.RUNNING.value
        'job is actively running'
    """

    INITIALIZING = "job is being initialized"
    QUEUED = "job is queued"
    VALIDATING = "job is being validated"
    RUNNING = "job is actively running"
    CANCELLED = "job has been cancelled"
    DONE = "job has successfully run"
    ERROR = "job incurred error"


#: The states in which a job stays.
JOB_FINAL_STATES = (JobStatus.DONE, JobStatus.CANCELLED, JobStatus.ERROR)

_S = JobStatus

#: The legal moves: from a state to the set of states that may follow it.
TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    _S.INITIALIZING: frozenset({_S.QUEUED, _S.CANCELLED, _S.ERROR}),
    # A worker is quicker than the one who looks: QUEUED may be followed by any state at the next look.
    _S.QUEUED: frozenset({_S.VALIDATING, _S.RUNNING, _S.DONE, _S.CANCELLED, _S.ERROR}),
    _S.VALIDATING: frozenset({_S.RUNNING, _S.QUEUED, _S.DONE, _S.CANCELLED, _S.ERROR}),
    _S.RUNNING: frozenset({_S.VALIDATING, _S.QUEUED, _S.DONE, _S.CANCELLED, _S.ERROR}),
    _S.DONE: frozenset({_S.ERROR}),
    _S.CANCELLED: frozenset(),
    _S.ERROR: frozenset(),
}
