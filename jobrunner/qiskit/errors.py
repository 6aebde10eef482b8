"""Errors that are both jobrunner's and Qiskit's, so that either's ``except`` finds them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from qiskit.exceptions import QiskitError
from qiskit.providers.exceptions import JobError as QiskitJobError
from qiskit.providers.exceptions import JobTimeoutError as QiskitJobTimeoutError

from jobrunner import errors

__all__ = [
    "ExecutorShutdownError",
    "FellBackToThreadWarning",
    "JobCancelledError",
    "JobError",
    "JobTimeoutError",
    "MemoryLimitExceeded",
    "PubError",
    "SerializationError",
    "TimeLimitExceeded",
    "WorkerDiedError",
    "as_qiskits",
]


class FellBackToThreadWarning(RuntimeWarning):
    """A job runs in a thread of the calling process, since it can't be sent to another; the text says why."""


class _Both(errors.JobRunnerError):
    """What every class here has: the message under the name by which Qiskit's errors have it."""

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.message = message


class JobError(_Both, errors.JobError, QiskitJobError):
    """A job was used wrongly: submitted twice, or asked before it was submitted."""


class JobTimeoutError(JobError, errors.JobTimeoutError, QiskitJobTimeoutError):
    """A wait ran out before the job was final; the job goes on, and can be waited for again."""


class JobCancelledError(_Both, errors.JobCancelledError, QiskitJobError):
    """The job was cancelled; also `concurrent.futures.CancelledError`, which Qiskit's own job raises."""


class SerializationError(_Both, errors.SerializationError, QiskitJobError):
    """A part of the job can't cross to another process, or its result not back."""


class WorkerDiedError(_Both, errors.WorkerDiedError, QiskitJobError):
    """The job's process ended under it."""


class MemoryLimitExceeded(WorkerDiedError, errors.MemoryLimitExceeded):  # noqa: N818 (named like its base)
    """The job used more memory than its limit, and was ended."""


class TimeLimitExceeded(_Both, errors.TimeLimitExceeded, QiskitJobError):  # noqa: N818 (likewise)
    """The job ran past its time limit, and was ended."""


class ExecutorShutdownError(_Both, errors.ExecutorShutdownError, QiskitJobError):
    """The executor takes no more jobs."""


#: The class that stands for each of jobrunner's.
_COUNTERPARTS: Mapping[type[errors.JobRunnerError], type[errors.JobRunnerError]] = {
    errors.JobError: JobError,
    errors.JobTimeoutError: JobTimeoutError,
    errors.JobCancelledError: JobCancelledError,
    errors.SerializationError: SerializationError,
    errors.WorkerDiedError: WorkerDiedError,
    errors.MemoryLimitExceeded: MemoryLimitExceeded,
    errors.TimeLimitExceeded: TimeLimitExceeded,
    errors.ExecutorShutdownError: ExecutorShutdownError,
}


def as_qiskits(error: errors.JobRunnerError) -> errors.JobRunnerError:
    """The same error as one that is Qiskit's too; itself where there is none."""
    counterpart = next((_COUNTERPARTS[base] for base in type(error).__mro__ if base in _COUNTERPARTS), None)
    if counterpart is None or isinstance(error, counterpart):
        return error
    both = counterpart(*error.args)
    both.__dict__.update(error.__dict__)
    both.__cause__ = error.__cause__
    return both


class PubError(_Both, QiskitError):
    """A PUB of a parallel run failed; the results of the others are not lost.

    What is raised is also of the class of the PUB's own error, which is its cause: ``except QiskitError`` or ``except
    ValueError`` find it where they would without the parallel run.

    Attributes:
        pub_index: the first PUB that failed, counted from 0.
        failures: the errors of all that failed, by their indices.
        pub_results: what each PUB came to, in order: its result, or its error.
    """

    pub_index: int = 0
    failures: Mapping[int, BaseException] = {}
    pub_results: tuple[Any, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return pub_error, (self.failures, self.pub_results)


def pub_error(failures: Mapping[int, BaseException], pub_results: tuple[Any, ...]) -> PubError:
    """The error of a run in which these PUBs failed."""
    first = min(failures)
    cause = failures[first]
    others = len(failures) - 1
    also = "" if not others else f" ({others} more of the {len(pub_results)} PUBs failed too)"
    text = (
        f"PUB {first}: {type(cause).__name__}: {_text(cause)}{also}. The other PUBs' results are in job.pub_results()"
    )
    class_of_cause: Any = type(cause)
    kind = _class_for(class_of_cause)
    error = kind.__new__(kind, text)
    _Both.__init__(error, text)
    error.pub_index, error.failures, error.pub_results = first, failures, pub_results
    error.__cause__ = cause
    return error


def _text(error: BaseException) -> str:
    # Qiskit's errors show their message in quotes.
    message = getattr(error, "message", None)
    return (message if isinstance(message, str) else str(error)).rstrip(". ")


@lru_cache(maxsize=64)
def _class_for(cause: Any) -> type[PubError]:
    """`PubError`, as a subclass of `cause` too if there can be one."""
    if issubclass(PubError, cause) or not issubclass(cause, Exception):
        return PubError
    both: type[PubError]
    try:
        both = type("PubError", (PubError, cause), {"__module__": __name__, "__doc__": PubError.__doc__})
        _Both.__init__(both.__new__(both, ""), "")
    except TypeError:  # their layouts can't be brought together
        return PubError
    return both
