"""What can go wrong, as types.

::

    JobRunnerError
    ├── JobError                     wrong use of a job (submitted twice, not submitted)
    │   └── JobTimeoutError          a wait ran out; also TimeoutError and concurrent.futures.TimeoutError
    ├── JobCancelledError            also concurrent.futures.CancelledError
    ├── SerializationError           something cannot cross between processes; also pickle.PicklingError
    ├── WorkerDiedError              the job's process ended under it; also concurrent.futures.BrokenExecutor
    │   ├── MemoryLimitExceeded      also MemoryError
    │   └── ClusterLostError         the whole cluster can't be reached any more
    ├── TimeLimitExceeded            the job ran past its time limit and was ended
    ├── ExecutorShutdownError        also RuntimeError
    ├── SpecError                    a batch description is wrong
    └── StoreError                   a batch store can't be used

Every error pickles, and carries its facts as attributes; what is not known is None.  This module imports nothing of
jobrunner.
"""

from __future__ import annotations

import concurrent.futures
import pickle
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobrunner.report import JobReport

__all__ = [
    "ClusterLostError",
    "ExecutorShutdownError",
    "JobCancelledError",
    "JobError",
    "JobRunnerError",
    "JobTimeoutError",
    "MemoryLimitExceeded",
    "SerializationError",
    "SpecError",
    "StoreError",
    "TimeLimitExceeded",
    "WorkerDiedError",
]


class JobRunnerError(Exception):
    """The base of every error that jobrunner raises on its own account.

    Args:
        message: what happened, and what to do about it.
        job_id: the job concerned, as UUID4 text.
        pid: process id of the worker concerned.
        exit_code: the worker's exit code, when it exited.
        signal: number of the signal that ended the worker, when one did.
        limit: the limit that was passed (seconds or bytes, by the error's type).
        report: the job's `JobReport`, when the job is final.

    Example:
        >>> error = JobRunnerError("the lamp is out", job_id="42")
        >>> error.job_id, error.pid
        ('42', None)
    """

    def __init__(
        self,
        message: str = "",
        *,
        job_id: str | None = None,
        pid: int | None = None,
        exit_code: int | None = None,
        signal: int | None = None,
        limit: float | None = None,
        report: JobReport | None = None,
    ) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.pid = pid
        self.exit_code = exit_code
        self.signal = signal
        self.limit = limit
        self.report = report

    def __str__(self) -> str:
        # OSError, an ancestor of JobTimeoutError, would otherwise format its own way.
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only fields do not survive the default (type, args) reduction.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(cls: type[JobRunnerError], args: tuple[Any, ...], fields: dict[str, Any]) -> JobRunnerError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


class JobError(JobRunnerError):
    """A job was used wrongly: submitted twice, or asked for a result before it was submitted."""


if sys.version_info >= (3, 11):

    class JobTimeoutError(JobError, TimeoutError):
        """A wait ran out before the job was final; the job itself goes on, and can be waited for again."""

else:  # Python 3.10, where the two TimeoutErrors are distinct

    class JobTimeoutError(JobError, TimeoutError, concurrent.futures.TimeoutError):
        """A wait ran out before the job was final; the job itself goes on, and can be waited for again."""


class JobCancelledError(JobRunnerError, concurrent.futures.CancelledError):
    """The job was cancelled, so it has no result."""


class SerializationError(JobRunnerError, pickle.PicklingError):
    """A function, argument, result or exception cannot cross between processes.

    The message names the part that failed; ``__cause__`` is what the pickler said.
    """


class WorkerDiedError(JobRunnerError, concurrent.futures.BrokenExecutor):
    """The process that ran the job ended under it: see ``exit_code``, ``signal`` and ``pid``."""


class MemoryLimitExceeded(WorkerDiedError, MemoryError):
    """The job's processes used more memory than its ``memory_limit``, and were ended.

    Args:
        message: what happened, and what to do about it.
        peak: the most memory that they were seen to use, in bytes.
        facts: the fields of `JobRunnerError`; ``limit`` in bytes.
    """

    def __init__(self, message: str = "", *, peak: int | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.peak = peak


class ClusterLostError(WorkerDiedError):
    """The cluster that an executor works on is gone, with all jobs that it had: nothing is known of how they ended.

    What is left can be done by a new executor once there is a cluster again.
    """


class TimeLimitExceeded(JobRunnerError):
    """The job ran past its ``time_limit`` and its processes were ended.

    Not a `TimeoutError`: that means "wait again", and this job has ended.
    """


class ExecutorShutdownError(JobRunnerError, RuntimeError):
    """The executor takes no more jobs: it was shut down, or the interpreter is exiting."""


class SpecError(JobRunnerError):
    """A batch description is wrong.

    Args:
        message: what is wrong, and what was expected.
        file: the file it stands in, if any.
        line: the line in that file, counted from 1.
        key: the key or parameter concerned.
        facts: the fields of `JobRunnerError`.

    Example:
        >>> str(SpecError("expected a number", file="ising.toml", line=3, key="size"))
        'ising.toml:3: size: expected a number'
    """

    def __init__(
        self,
        message: str = "",
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        **facts: Any,
    ) -> None:
        place = f"{file}:{line}" if file is not None and line is not None else file
        super().__init__(": ".join(part for part in (place, key, message) if part), **facts)
        self.file = file
        self.line = line
        self.key = key


class StoreError(JobRunnerError):
    """A batch store can't be used.

    Args:
        message: the reason, and what to do about it.
        path: the store's path.
        facts: the fields of `JobRunnerError`.
    """

    def __init__(self, message: str = "", *, path: str | None = None, **facts: Any) -> None:
        super().__init__(f"{path}: {message}" if path else message, **facts)
        self.path = path
