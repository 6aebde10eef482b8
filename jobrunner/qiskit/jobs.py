"""`PrimitiveJob` and `AlgorithmJob` as Qiskit knows them, run in processes.

Where a job runs is decided when it is submitted (`places.place_of`): in a worker of the executor; in a thread of this
process, as Qiskit's own does, where it is too short to be worth a journey, or can't be sent; or, within a worker,
there and then.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import functools
import os
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from qiskit.exceptions import QiskitError
from qiskit.primitives.primitive_job import PrimitiveJob as QiskitPrimitiveJob
from qiskit.providers.jobstatus import JobStatus

from jobrunner import algorithm_job, primitive_job, status
from jobrunner.backend import Backend, host_name
from jobrunner.errors import JobRunnerError, SerializationError
from jobrunner.executors.future import JobFuture
from jobrunner.primitive_job import rebuild_job
from jobrunner.qiskit.carrying import carry_call
from jobrunner.qiskit.errors import FellBackToThreadWarning, JobCancelledError, JobError, JobTimeoutError, as_qiskits
from jobrunner.qiskit.places import Place, find_backend, place_of
from jobrunner.qiskit.settings import settings
from jobrunner.report import JobOutput, JobReport
from jobrunner.role import is_worker
from jobrunner.serialization import Call, call_name, dump_exception, dump_result

__all__ = ["AlgorithmJob", "PrimitiveJob", "combined"]

ResultT = TypeVar("ResultT")

_STATUS = {ours: JobStatus[ours.name] for ours in status.JobStatus}
_FINAL = frozenset(_STATUS[ours] for ours in status.JOB_FINAL_STATES)

_MISSING: Any = object()

#: The functions of which it was told already that their jobs run in threads, and why.
_told: set[tuple[str, str]] = set()


class PrimitiveJob(primitive_job.PrimitiveJob[ResultT], QiskitPrimitiveJob[ResultT]):
    """Qiskit's ``PrimitiveJob``, run in a process; also a `jobrunner.PrimitiveJob`.

    Behaves as Qiskit's own: before it is submitted, whatever is asked of it raises `JobError`; `status` is one of
    ``qiskit.providers.JobStatus``; a pickle of an unfinished job waits for it, that of a failed one raises its error.
    What `jobrunner.PrimitiveJob` has beyond (`submit` to an executor, a timeout of `result`, `report`, ``await``) works
    as there.

    Args:
        function: any callable.  If it can't be sent to another process, the job runs in a thread of this one, and a
            `FellBackToThreadWarning` says why, once for each function.
        args: its positional arguments; a submitted job among them is waited for first, and arrives finished.
        kwargs: its keyword arguments.

    Example:
        >>> job = PrimitiveJob(divmod, 17, 5)
        >>> job.submit()
        >>> job.result(), job.status().name
        ((3, 2), 'DONE')
    """

    def __init__(self, function: Callable[..., ResultT] = _MISSING, /, *args: Any, **kwargs: Any) -> None:
        if function is _MISSING:  # Qiskit's own takes it by name, too
            function = kwargs.pop("function", _MISSING)
        if function is _MISSING:
            raise TypeError("PrimitiveJob() missing 1 required positional argument: 'function'")
        primitive_job.PrimitiveJob.__init__(self, function, *args, **kwargs)

    def _error(self, message: str) -> JobError:
        return JobError(message, job_id=self._job_id)

    def _hand_in(self, executor: concurrent.futures.Executor | None) -> None:
        if self._future is not None:
            raise self._error("Primitive job has been submitted already.")
        if executor is None:
            mine = settings.current()
            if is_worker():
                self._claim()
                self._adopt(_run_now(self._function, self._args, self._kwargs))  # type: ignore[arg-type]
                return
            if place_of(self._function, (*self._args, *self._kwargs.values()), mine) is Place.THREAD:
                self._claim()
                self._start_thread()
                return
            executor = None if mine is None else mine.executor
        try:
            super()._hand_in(executor)
        except JobRunnerError as error:
            raise as_qiskits(error) from error.__cause__

    def _serialize(self, backend: Backend) -> Call:
        assert self._function is not None
        return carry_call(
            self._function,
            self._args,
            self._kwargs,
            accelerated=settings.any(),
            shared=backend.capabilities.shared_objects,
        )

    def _refuse(self, error: SerializationError) -> None:
        """The call can't be sent: it runs in a thread."""
        self._start_thread()
        name = call_name(self._function)
        if (name, str(error)) not in _told:
            _told.add((name, str(error)))
            warnings.warn(
                f"jobs of {name!r} run in a thread of this process, as Qiskit's own do, and can't be cancelled once "
                f"they run: {error}",
                FellBackToThreadWarning,
                stacklevel=5,
            )

    def _start_thread(self) -> None:
        threads = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="jobrunner-qiskit")
        self._adopt(threads.submit(self._function, *self._args, **self._kwargs))  # type: ignore[arg-type]
        threads.shutdown(wait=False)

    def status(self) -> JobStatus:
        """The job's status, one of ``qiskit.providers.JobStatus``; never blocks.

        Raises:
            JobError: the job was not submitted.
        """
        return _STATUS[_status_of(self._expect_future())]

    def result(self, timeout: float | None = None) -> ResultT:
        """The job's result, waiting for it; the same object at each call.

        Args:
            timeout: seconds to wait; None: as long as it takes.

        Raises:
            JobError: the job was not submitted.
            JobTimeoutError: `timeout` passed first; the job goes on.
            JobCancelledError: the job was cancelled; also ``concurrent.futures.CancelledError``.
            WorkerDiedError, TimeLimitExceeded, SerializationError: see there.
            BaseException: what the job raised.
        """
        with self._translated(timeout):
            return self._expect_future().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the job raised, or None, waiting for it; raises as `result` does if there is no answer."""
        with self._translated(timeout):
            error = self._expect_future().exception(timeout)
        return as_qiskits(error) if isinstance(error, JobRunnerError) else error

    @contextlib.contextmanager
    def _translated(self, timeout: float | None) -> Any:
        """Errors of a future as those of Qiskit."""
        try:
            yield
        except JobRunnerError as error:
            raise as_qiskits(error) from error.__cause__
        except concurrent.futures.CancelledError:
            raise JobCancelledError(f"job {self._job_id} was cancelled", job_id=self._job_id) from None
        except concurrent.futures.TimeoutError:
            if timeout is None or self._expect_future().done():
                raise  # the job's own
            message = f"job {self._job_id} is not final after {timeout:g} s; it goes on, and can be waited for again"
            raise JobTimeoutError(message, job_id=self._job_id) from None

    def cancel(self) -> bool:
        """Cancel the job; a running one is ended with all the processes it started.

        Returns:
            True where the job is now cancelled, and none of its processes alive; False once it is final, or where it
            runs in a thread.

        Raises:
            JobError: the job was not submitted.
        """
        return self._expect_future().cancel()

    def done(self) -> bool:
        """Whether the job has run well."""
        return self.status() is JobStatus.DONE

    def running(self) -> bool:
        """Whether the function is running."""
        return self.status() is JobStatus.RUNNING

    def cancelled(self) -> bool:
        """Whether the job was cancelled."""
        return self.status() is JobStatus.CANCELLED

    def in_final_state(self) -> bool:
        """Whether the job is DONE, CANCELLED or ERROR."""
        return self.status() in _FINAL

    def report(self) -> JobReport:
        """Accounting and post-mortem; never blocks; what is not known yet is None."""
        future = self._future
        if future is None or isinstance(future, JobFuture):
            return super().report()
        # In a thread, or within a worker: there is nothing to account for it alone.
        return JobReport(
            job_id=self._job_id,
            status=_status_of(future),
            name=call_name(self._function),
            backend="thread",
            host=host_name(),
            pid=os.getpid(),
        )

    def output(self) -> JobOutput | None:
        """All that is kept of what the job printed; None where it is not captured, or runs in a thread."""
        return super().output() if isinstance(self._future, JobFuture) else None

    async def _await_result(self) -> ResultT:
        with self._translated(None):
            return await super()._await_result()

    def __repr__(self) -> str:
        name = "INITIALIZING" if self._future is None else self.status().name
        return f"<{type(self).__name__} {self._job_id} {name}>"

    def __copy__(self) -> PrimitiveJob[ResultT]:
        """Another handle of the finished job, waiting for it, with the same result."""
        self.result()
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> PrimitiveJob[ResultT]:
        """Another handle of the finished job, waiting for it, with a copy of its result."""
        self.result()
        # Not what a subclass makes of it: its method will do so again.
        result = copy.deepcopy(self._expect_future().result(), memo)
        twin = type(self).__new__(type(self))
        own = {name: value for name, value in self.__dict__.items() if name != "_future"}
        twin.__dict__.update(copy.deepcopy(own, memo))
        twin._future = _finished(result=result)  # type: ignore[assignment]
        return twin

    def _check_pickle(self) -> None:
        self.result()

    #: The class from which a combined one was made, which stands for it in a pickle; None: it is not combined.
    _of: type[Any] | None = None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle the finished job, waiting for it; that of a failed one raises its error, as Qiskit's does."""
        make, state = super().__reduce__()
        if self._of is None or make is not rebuild_job:
            return make, state
        return _rebuild_combined, (self._of, *state[1:])

    def _outcome(self, future: concurrent.futures.Future[Any]) -> tuple[bool, Any] | None:
        if isinstance(future, JobFuture):
            return super()._outcome(future)
        if future.cancelled():
            return None
        error = future.exception()
        return (True, dump_result(future.result())) if error is None else (False, dump_exception(error))


class AlgorithmJob(PrimitiveJob[ResultT], algorithm_job.AlgorithmJob[ResultT]):
    """A `PrimitiveJob` of an algorithm, with the further methods of Qiskit's former ``JobV1``.

    Attributes:
        version: of the job interface, 1.
    """

    def backend(self) -> Any:
        """The backend (``qiskit.providers.Backend``) on which the job's circuits run.

        It is found in the object whose method the job calls, or in the primitive that this one uses.  On which machine
        and by which executor the job runs, `report` tells.

        Raises:
            QiskitError: there is none, as with a statevector primitive.
        """
        found = find_backend(self._function, self._args)
        if found is None:
            raise QiskitError("The job does not have any backend.")
        return found

    def wait_for_final_state(
        self, timeout: float | None = None, wait: float = 5, callback: Callable[[str, Any, Any], Any] | None = None
    ) -> None:
        """Wait until the job is final, querying its status now and then; see `jobrunner.AlgorithmJob`.

        Args:
            timeout: seconds after which to give up; None: never.
            wait: seconds between two queries.
            callback: called as ``callback(job_id, status, job)`` after each query that is not final.

        Raises:
            JobError: the job was not submitted.
            JobTimeoutError: `timeout` passed; the job goes on.
            ValueError: `wait` is not above 0, or `timeout` is negative.
        """
        with self._translated(None):
            super().wait_for_final_state(timeout, wait, callback)


def _status_of(future: concurrent.futures.Future[Any]) -> status.JobStatus:
    if isinstance(future, JobFuture):
        return future.status()
    if future.cancelled():
        return status.JobStatus.CANCELLED
    if future.done():
        return status.JobStatus.DONE if future.exception() is None else status.JobStatus.ERROR
    return status.JobStatus.RUNNING if future.running() else status.JobStatus.QUEUED


def _finished(*, result: Any = None, error: BaseException | None = None) -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
    return future


def _run_now(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> concurrent.futures.Future[Any]:
    """Within a worker: the job is part of the one that runs there."""
    try:
        return _finished(result=function(*args, **kwargs))
    except KeyboardInterrupt:
        raise  # the job around is being ended
    except BaseException as error:
        return _finished(error=error)


@functools.lru_cache(maxsize=256)
def combined(cls: Any) -> type[Any]:
    """The class that an instance of `cls`, one of Qiskit's job classes, gets while ours are in force.

    Its own methods come first, then ours, then those of Qiskit's ``PrimitiveJob``; so that a class which overrides
    `result`, or calls ``super()._submit()``, does what it does on top of ours.
    """
    if cls is QiskitPrimitiveJob:
        return PrimitiveJob
    ours = AlgorithmJob if any(base.__name__ == "AlgorithmJob" for base in cls.__mro__) else PrimitiveJob
    own = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__, "_of": cls}
    return type(cls.__name__, (cls, ours), own)


def _rebuild_combined(cls: Any, *state: Any) -> Any:
    """A finished job of a combined class again."""
    return rebuild_job(combined(cls), *state)
