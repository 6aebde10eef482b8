"""`PrimitiveJob`: one call in a process, with the job interface that Qiskit users know."""

from __future__ import annotations

import abc
import concurrent.futures
import threading
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from jobrunner.backend import Backend
from jobrunner.errors import JobError, SerializationError
from jobrunner.executors.default import get_executor
from jobrunner.executors.foreign import as_job_executor
from jobrunner.executors.future import CANCELLED, JobFuture, Settlement, await_final, refuse_from_asyncio_wait
from jobrunner.executors.services import run_callback
from jobrunner.html import job_table
from jobrunner.job_ids import new_job_id
from jobrunner.parcel import Parcel
from jobrunner.report import JobOutput, JobReport
from jobrunner.serialization import (
    Call,
    call_name,
    collect_dependency,
    dump_call,
    dump_exception,
    dump_result,
    handle_is_carried,
)
from jobrunner.serialization import resolve_dependency as _resolve_dependency
from jobrunner.status import JOB_FINAL_STATES, JobStatus

__all__ = ["BasePrimitiveJob", "PrimitiveJob", "rebuild_job"]

ResultT = TypeVar("ResultT")
StatusT = TypeVar("StatusT")


class BasePrimitiveJob(abc.ABC, Generic[ResultT, StatusT]):
    """The interface of a job.

    Type parameters:
        ResultT: what the job computes.
        StatusT: how its state is told.

    Args:
        job_id: the job's id; default: a new UUID4.

    Attributes:
        metadata: a dict for the user's own notes.
    """

    def __init__(self, job_id: str | None = None) -> None:
        self._job_id = job_id or new_job_id()
        self.metadata: dict[str, Any] = {}

    def job_id(self) -> str:
        """The job's id, known from its construction on."""
        return self._job_id

    @abc.abstractmethod
    def submit(self) -> None:
        """Hand the job in; does not wait for its result."""

    @abc.abstractmethod
    def result(self) -> ResultT:
        """The result; blocks until there is one, and raises what the job raised."""

    @abc.abstractmethod
    def status(self) -> StatusT:
        """The job's state; never blocks."""

    @abc.abstractmethod
    def done(self) -> bool:
        """Whether the job has run well; never blocks."""

    @abc.abstractmethod
    def running(self) -> bool:
        """Whether the job is running; never blocks."""

    @abc.abstractmethod
    def cancelled(self) -> bool:
        """Whether the job was cancelled; never blocks."""

    @abc.abstractmethod
    def in_final_state(self) -> bool:
        """Whether the job's state will not change any more; never blocks."""

    @abc.abstractmethod
    def cancel(self) -> bool:
        """Cancel the job; whether it is cancelled now."""


class _FinishedRecord:
    """What is kept of a job that is not, or no longer, any executor's."""

    def __init__(self, job_id: str, report: JobReport | None) -> None:
        self.job_id = job_id
        self._report = report

    def cancel(self) -> bool:
        return False

    def live_status(self) -> JobStatus:
        return JobStatus.INITIALIZING

    def forget_future(self) -> None:
        """There is none to forget."""

    def attend(self, deadline: float | None) -> None:
        """There is nothing to listen to."""

    def check_process(self) -> None:
        """It is final everywhere."""

    def report(self, status: JobStatus) -> JobReport:
        return self._report or JobReport(job_id=self.job_id, status=status)

    def output(self) -> JobOutput | None:
        return None


def _finished_future(job_id: str, settlement: Settlement, report: JobReport | None = None) -> JobFuture[Any]:
    future: JobFuture[Any] = JobFuture(_FinishedRecord(job_id, report))
    future.settle(settlement)
    return future


# Guards the step from "not submitted" of every job; held for that step only.
_submitting = threading.Lock()

#: What a pickled handle leaves behind: it is the process's own, or is carried in another form.
_NOT_CARRIED = frozenset(
    {"_function", "_args", "_kwargs", "_future", "_job_id", "_submitted", "_submitted_to", "_callbacks"}
)


class PrimitiveJob(BasePrimitiveJob[ResultT, JobStatus]):
    """A call of a function, run in a process that can be ended without harm to any other.

    A job takes no options of its own: they come from the executor it is submitted to.

    Args:
        function: any callable, also of ``__main__``, a lambda or a closure.
        args: its positional arguments; a submitted job among them is waited for first, and arrives finished.
        kwargs: its keyword arguments, all of them.

    Example:
        >>> from jobrunner import InlineExecutor
        >>> job = PrimitiveJob(divmod, 17, 5)
        >>> job.status().name
        'INITIALIZING'
        >>> job.submit(InlineExecutor())
        >>> job.result(), job.done()
        ((3, 2), True)
    """

    def __init__(self, function: Callable[..., ResultT], /, *args: Any, **kwargs: Any) -> None:
        if not callable(function):
            raise TypeError(f"the first argument must be callable, not {function!r}")
        super().__init__()
        self._function: Callable[..., ResultT] | None = function
        self._args = args
        self._kwargs = kwargs
        # None until the job is handed in; a future of its own where it ended before.
        self._future: JobFuture[ResultT] | None = None
        # Whether somebody has begun to submit it.
        self._submitted = False
        # The backend of the executor that took it.
        self._submitted_to: Backend | None = None
        # Callbacks given before there was a future.
        self._callbacks: list[Callable[[concurrent.futures.Future[ResultT]], object]] = []

    def submit(self, executor: concurrent.futures.Executor | None = None) -> None:
        """Serialise the call now, and hand it to an executor.

        Args:
            executor: any `concurrent.futures.Executor`; default: the current default executor (`get_executor`).

        Raises:
            JobError: the job was submitted before, or was cancelled; or a job among the arguments was never submitted.
            SerializationError: the function or an argument can't be serialised; the job is then ERROR.
            ExecutorShutdownError: the executor takes no more jobs; this one can be submitted elsewhere.
            TypeError: `executor` is no executor.
        """
        self._hand_in(executor)

    def _submit(self) -> None:
        """Submit to the default executor; Qiskit's name for it."""
        self._hand_in(None)

    def _hand_in(self, executor: concurrent.futures.Executor | None) -> None:
        engine = as_job_executor(get_executor() if executor is None else executor)
        self._claim()
        backend = engine.backend
        try:
            future = engine.submit_call(self._serialize(backend), self._job_id)
        except SerializationError as error:
            error.job_id = self._job_id
            self._refuse(error)
            return
        except BaseException:
            with _submitting:
                self._submitted = False
            raise
        self._submitted_to = backend
        self._adopt(future)

    def _claim(self) -> None:
        """Be the one who submits the job.

        Raises:
            JobError: somebody else was, or the job was cancelled.
        """
        with _submitting:
            if self._submitted:
                raise self._error("Primitive job has been submitted already.")
            if self._future is not None:
                raise self._error("Primitive job was cancelled before it was submitted.")
            self._submitted = True

    def _error(self, message: str) -> JobError:
        """The error for a wrong use of the job."""
        return JobError(message, job_id=self._job_id)

    def _serialize(self, backend: Backend) -> Call:
        """The call as bytes, for an executor of that backend."""
        assert self._function is not None
        return dump_call(self._function, self._args, self._kwargs)

    def _refuse(self, error: SerializationError) -> None:
        """The call can't be serialised, or not be taken as it is: the job has failed."""
        self._adopt(_finished_future(self._job_id, Settlement(error=error)))
        raise error

    def _adopt(self, future: JobFuture[ResultT]) -> None:
        """Take the future that stands for the job from now on."""
        with _submitting:
            early, callbacks = self._future, self._callbacks
            if early is None:
                self._future = future
            self._callbacks = []
        if early is not None:
            # Cancelled by another thread while it was being handed in.
            future.cancel()
        for callback in callbacks:
            (early or future).add_done_callback(callback)

    def _expect_future(self) -> JobFuture[ResultT]:
        future = self._future
        if future is None:
            raise self._error("Primitive Job has not been submitted yet.")
        return future

    def dependency(self) -> JobFuture[ResultT]:
        """The job's future, for those who wait for the job.

        Raises:
            JobError: the job was never submitted, and would be waited for for ever.
        """
        return self._expect_future()

    def status(self) -> JobStatus:
        """The job's status, read from its future; never blocks, never raises."""
        future = self._future
        return JobStatus.INITIALIZING if future is None else future.status()

    def result(self, timeout: float | None = None) -> ResultT:
        """The job's result, waiting for it.

        Args:
            timeout: seconds to wait; None: as long as it takes.

        Raises:
            JobError: the job was not submitted.
            JobTimeoutError: `timeout` passed first; the job goes on.
            JobCancelledError: the job was cancelled.
            WorkerDiedError, TimeLimitExceeded, SerializationError: see there.
            BaseException: what the job raised, with the worker's traceback as its cause.
        """
        return self._expect_future().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the job raised, or None, waiting for it; raises as `result` does if there is no answer."""
        return self._expect_future().exception(timeout)

    def cancel(self) -> bool:
        """Cancel the job; a running one is ended with all the processes it started.

        Returns:
            True where the job is now cancelled, and none of its processes alive; False once it is DONE or ERROR, where
            its executor can't (see ``backend().capabilities``), or if the kernel has not ended a process after 5
            seconds.  On a thread that runs an event loop, or in a callback, it only requests the end, and returns True.
        """
        callbacks: list[Callable[[concurrent.futures.Future[ResultT]], object]] = []
        with _submitting:
            future = self._future
            if future is None:
                future = self._future = _finished_future(self._job_id, CANCELLED)
                if not self._submitted:
                    callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            future.add_done_callback(callback)
        return future.cancel()

    def done(self) -> bool:
        """Whether the job has run well."""
        return self.status() is JobStatus.DONE

    def running(self) -> bool:
        """Whether the function is running: a worker has told that it started."""
        return self.status() is JobStatus.RUNNING

    def cancelled(self) -> bool:
        """Whether the job was cancelled."""
        return self.status() is JobStatus.CANCELLED

    def in_final_state(self) -> bool:
        """Whether the job is DONE, CANCELLED or ERROR."""
        return self.status() in JOB_FINAL_STATES

    def report(self) -> JobReport:
        """Accounting and post-mortem; never blocks; what is not known yet is None."""
        future = self._future
        if future is None:
            return JobReport(job_id=self._job_id, status=JobStatus.INITIALIZING, name=call_name(self._function))
        return future.report()

    def output(self) -> JobOutput | None:
        """All that is kept of what the job printed, and that so far if it is running; never blocks.

        Returns:
            Its standard output and standard error as text; None where they are not captured, which an executor does
            with ``capture_output=True``, and in a handle that was pickled.
        """
        future = self._future
        return None if future is None else future.output()

    def add_done_callback(self, fn: Callable[[PrimitiveJob[ResultT]], object]) -> None:
        """Have ``fn(job)`` called once the job is final, on a thread of its own; it may call any method.

        Args:
            fn: what to call; what it raises is logged.
        """
        refuse_from_asyncio_wait(fn)

        def call(_: concurrent.futures.Future[ResultT]) -> None:
            run_callback(lambda: fn(self))

        with _submitting:
            future = self._future
            if future is None:
                self._callbacks.append(call)
                return
        future.add_done_callback(call)

    def __await__(self) -> Generator[Any, None, ResultT]:
        """The job's result, in asyncio; cancelling the awaiting task cancels the job."""
        return self._await_result().__await__()

    async def _await_result(self) -> ResultT:
        return await await_final(self._expect_future(), self.cancel)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle the finished job, waiting for it; among the arguments of a call it is a dependency instead."""
        future = self._expect_future()
        index = collect_dependency(self)
        if index is not None:
            return _resolve_dependency, (index,)
        concurrent.futures.wait([future])
        if not handle_is_carried():
            self._check_pickle()
        attributes = {name: value for name, value in self.__dict__.items() if name not in _NOT_CARRIED}
        state = type(self), self._job_id, attributes, self._outcome(future), self.report(), self._submitted_to
        return rebuild_job, state

    def _check_pickle(self) -> None:
        """The user pickles or copies the job, which is final; what this raises is raised there."""

    def _outcome(self, future: JobFuture[ResultT]) -> tuple[bool, bytes | Parcel] | None:
        """What the job, which is final, came to: whether it went well, and the pickle; None: it was cancelled."""
        settlement = future.settlement
        if settlement is not None and settlement.data is not None and settlement.error is None:
            # As it came: the user's code is not run to rebuild it, and to pickle it again.
            return settlement.ok, settlement.data
        if future.cancelled():
            return None
        error = future.exception()
        return (True, dump_result(future.result())) if error is None else (False, dump_exception(error))

    def _repr_html_(self) -> str:
        return job_table(type(self).__name__, self.report())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._job_id} {self.status().name}>"


def rebuild_job(
    cls: type[PrimitiveJob[Any]],
    job_id: str,
    attributes: dict[str, Any],
    outcome: tuple[bool, bytes | Parcel] | None,
    report: JobReport,
    backend: Backend | None,
) -> PrimitiveJob[Any]:
    """A finished job again."""
    job = cls.__new__(cls)
    job.__dict__.update(attributes)
    job._job_id = job_id
    job._function, job._args, job._kwargs = None, (), {}
    job._submitted, job._submitted_to, job._callbacks = True, backend, []
    settlement = CANCELLED if outcome is None else Settlement(ok=outcome[0], data=outcome[1])
    job._future = _finished_future(job_id, settlement, report)
    return job
