"""What became of a point, and of a run."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from jobrunner.report import JobReport

__all__ = ["Outcome", "OutcomeStatus", "Summary"]


class OutcomeStatus(enum.Enum):
    """How a point ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RETRIED = "retried"  #: its worker died, and it is run again


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one point.

    Attributes:
        index: the point's place in the batch, from 0; with replicates each has a place of its own.
        parameters: the point.
        replicate: which repetition of the point, from 0.
        seed: what the point's random numbers came from; None if the function takes none.
        status: done, failed, cancelled or retried.
        value: what the function returned, when done.
        error: what the job ended with, when failed or retried.
        report: the job's report, from executors that give one.
        stdout: what it printed, where that was captured.
        stderr: what it printed on standard error.
        cause: one line on why it failed; None when it did not.
    """

    index: int
    parameters: Mapping[str, Any]
    replicate: int = 0
    seed: int | None = None
    status: OutcomeStatus
    value: Any = dataclasses.field(default=None, repr=False)
    error: BaseException | None = None
    report: JobReport | None = dataclasses.field(default=None, repr=False)
    stdout: str = dataclasses.field(default="", repr=False)
    stderr: str = dataclasses.field(default="", repr=False)
    cause: str | None = None

    def __post_init__(self) -> None:
        if self.cause is None and self.error is not None:
            object.__setattr__(self, "cause", _line(self.error))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """How a run ended.

    Attributes:
        total: points in the batch, each replicate counted.
        done: points whose function returned in this run.
        failed: points that stand as failed at its end.
        cancelled: points that were ended or never started, because a stop was requested.
        skipped: points that were done before, or by another process.
        elapsed_s: wall-clock seconds of the run.
        stopped: why it was stopped early, where it stopped by itself or was asked to; None otherwise.
    """

    total: int
    done: int
    failed: int
    cancelled: int
    skipped: int = 0
    elapsed_s: float
    stopped: str | None = None


def _line(error: BaseException) -> str:
    """An error as one line of text that has an encoding: a user's exception may have neither."""
    name = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except Exception as failure:  # its `__str__` is the user's code
        text = f"(its text can't be made: {type(failure).__name__})"
    # Names of files that are no UTF-8 are lone surrogates in a message.
    return (f"{name}: {text}" if text else name).encode("utf-8", "backslashreplace").decode()
