"""`JobFuture`: a `concurrent.futures.Future` of a job in a process.

A future is final when its executor says so, once, by `settle`.  What settles it is bytes: they are turned into a result
or an exception by whoever looks first, on that thread, so that no internal thread runs the user's unpickling code.

A queue may hold a million futures, of which most are only ever asked for their result: a condition, and lists of
waiters and callbacks, are made for those futures that need them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from jobrunner.errors import JobCancelledError, JobError, JobRunnerError, JobTimeoutError
from jobrunner.executors.services import run_callback
from jobrunner.html import job_table
from jobrunner.parcel import Parcel
from jobrunner.report import JobOutput, JobReport
from jobrunner.serialization import load_exception, load_result
from jobrunner.status import JobStatus

__all__ = [
    "CANCELLED",
    "JobFuture",
    "JobRecord",
    "Settlement",
    "await_final",
    "in_event_loop",
    "refuse_from_asyncio_wait",
]

T = TypeVar("T")

_PENDING = "PENDING"
_CANCELLED = "CANCELLED_AND_NOTIFIED"
_FINISHED = "FINISHED"

# Held, for a few instructions, while a future becomes final, and while what those who wait for it need is made: who
# finds a future pending under it is told of its end.  Inside it no other lock is taken.
_deciding = threading.Lock()
if hasattr(os, "register_at_fork"):
    # Another thread may have held it at the fork.
    os.register_at_fork(after_in_child=lambda: globals().update(_deciding=threading.Lock()))

# What a later Python's futures have beyond those known here.
_UNKNOWN_FIELDS = vars(concurrent.futures.Future()).keys() - {
    "_condition",
    "_state",
    "_result",
    "_exception",
    "_waiters",
    "_done_callbacks",
}


class Settlement(NamedTuple):
    """What a job came to.

    Exactly one of these: `data` with `ok` (a pickled result), `data` without (a pickled exception), `error` (one of
    ours; `data` may then hold a pickled exception that caused it), or neither: cancelled.
    """

    ok: bool = False
    data: bytes | Parcel | None = None
    error: JobRunnerError | None = None


#: The settlement of a cancelled job.
CANCELLED = Settlement()

# Those of jobs whose result, or exception, has been rebuilt.
_RETURNED, _FAILED = Settlement(ok=True), Settlement(ok=False)


class JobRecord(Protocol):
    """What an executor keeps of a job, as its future sees it."""

    @property
    def job_id(self) -> str:
        """The job's id, UUID4 text."""

    def cancel(self) -> bool:
        """Cancel the job, which is not final; see `JobFuture.cancel`."""

    def live_status(self) -> JobStatus:
        """The status of the job, which is not final; never blocks."""

    def report(self, status: JobStatus) -> JobReport:
        """The job's report; never blocks."""

    def output(self) -> JobOutput | None:
        """All that is kept of what the job printed; None where it is not captured."""

    def forget_future(self) -> None:
        """The future is settled: let go of it, or the two would keep each other, and the result, alive."""

    def attend(self, deadline: float | None) -> None:
        """Do what brings the end of the job nearer while this thread waits for it; returns at any time.

        Args:
            deadline: monotonic seconds after which it must not go on; None: none.
        """

    def check_process(self) -> None:
        """Raise JobError where this process is a fork of the one that can settle the job."""


class JobFuture(concurrent.futures.Future[T]):
    """The future of a job: a `concurrent.futures.Future` that knows more, and whose `cancel` ends a running job.

    Example:
        >>> from jobrunner import InlineExecutor
        >>> future = InlineExecutor().submit(pow, 2, 10)
        >>> future.result(), future.status().name
        (1024, 'DONE')
    """

    # Of the base class, whose stubs leave it out.
    _invoke_callbacks: Callable[[], None]

    # What a new future has; here, so that it need not be set a million times.
    _state: str = _PENDING
    _result: T | None = None
    _exception: BaseException | None = None
    _settlement: Settlement | None = None
    # Made when they are asked for.
    _made_condition: threading.Condition | None = None
    _made_waiters: list[Any] | None = None
    _made_callbacks: list[Callable[[Any], object]] | None = None
    # A lock each of the threads that sleep until the future is final.
    _sleepers: tuple[Any, ...] = ()

    def __init__(self, record: JobRecord) -> None:
        self._record = record
        if _UNKNOWN_FIELDS:
            fresh = vars(concurrent.futures.Future())
            vars(self).update((name, fresh[name]) for name in _UNKNOWN_FIELDS)

    def _make_condition(self) -> threading.Condition:
        """For those parts of the base class, and of `concurrent.futures.wait`, that wait by it."""
        with _deciding:
            if self._made_condition is None:
                self._made_condition = threading.Condition()
            return self._made_condition

    def _make_waiters(self) -> list[Any]:
        if self._made_waiters is None:  # asked for under the condition
            self._made_waiters = []
        return self._made_waiters

    def _make_callbacks(self) -> list[Callable[[Any], object]]:
        if self._made_callbacks is None:  # likewise
            self._made_callbacks = []
        return self._made_callbacks

    # The base class and its stubs know them as attributes.
    _condition: threading.Condition = cast("threading.Condition", property(_make_condition))
    _waiters: list[Any] = cast("list[Any]", property(_make_waiters))
    _done_callbacks: list[Callable[[Any], object]] = cast("list[Any]", property(_make_callbacks))

    @property
    def job_id(self) -> str:
        """The job's id, UUID4 text."""
        return self._record.job_id

    # --- the executor's side: public, as `set_result` of any future is, but nothing that users are promised ---

    @property
    def record(self) -> JobRecord:
        """What the executor keeps of the job."""
        return self._record

    @property
    def settlement(self) -> Settlement | None:
        """What the job came to, as far as it was not opened yet; None: it is not final."""
        return self._settlement

    def settle(self, settlement: Settlement) -> bool:
        """Make the future final; the executor's to call.

        Returns:
            False if it was final already, and stays what it was.
        """
        condition = self._made_condition
        if condition is None:
            with _deciding:
                condition = self._made_condition
                if condition is None and not self._decide(settlement):
                    return False
        if condition is not None:
            with condition:
                with _deciding:
                    if not self._decide(settlement):
                        return False
                self._tell_waiters(settlement)
                condition.notify_all()
        for sleeper in self._sleepers:
            sleeper.release()
        self._record.forget_future()
        if self._made_callbacks:
            run_callback(self._invoke_callbacks)
        return True

    def _decide(self, settlement: Settlement) -> bool:
        """Become final, if it is not yet; under `_deciding`, and under the condition if there is one."""
        if self._state != _PENDING:
            return False
        self._settlement = settlement
        # "Notified" at once: `concurrent.futures.wait` takes a merely cancelled future for unfinished.
        self._state = _CANCELLED if settlement is CANCELLED else _FINISHED
        return True

    def _tell_waiters(self, settlement: Settlement) -> None:
        for waiter in self._made_waiters or ():
            if settlement is CANCELLED:
                waiter.add_cancelled(self)
            else:
                (waiter.add_result if settlement.ok else waiter.add_exception)(self)

    def drop_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Don't call `fn` any more; for finalizers, which may run while their thread holds any lock, and so never wait.

        One stays where another thread has the future in hand, or the future is final.
        """
        condition = self._made_condition  # made when `fn` was added
        if condition is None or not condition.acquire(blocking=False):
            return
        try:
            # Those of a final future are being called, one after another.
            if self._state == _PENDING and fn in self._done_callbacks:
                self._done_callbacks.remove(fn)
        finally:
            condition.release()

    def look_again(self) -> None:
        """Wake those who wait in `cancelled_unless`, to ask their condition again."""
        with self._condition:
            self._condition.notify_all()

    def cancelled_unless(self, given_up: Callable[[], bool]) -> bool:
        """Wait until the future is final, or `given_up()`; whether it is cancelled then."""
        with self._condition:
            self._condition.wait_for(lambda: self._state != _PENDING or given_up())
            return self._state == _CANCELLED

    # --- the user's side ---

    def cancel(self) -> bool:
        """Cancel the job; a running one is ended with all the processes it started.

        Returns:
            True where the job is now cancelled, and none of its processes alive; False once it is done or failed, or
            if the kernel has not ended a process after 5 seconds.  On a thread that runs an event loop, or in a
            callback, it only requests the end, and returns True.
        """
        if self._state == _CANCELLED:
            return True
        if self._state == _FINISHED:
            return False
        self._record.check_process()
        return self._record.cancel()

    def status(self) -> JobStatus:
        """The job's status; never blocks, never raises."""
        state, settlement = self._state, self._settlement
        if state == _PENDING or settlement is None:
            return self._record.live_status()
        if state == _CANCELLED:
            return JobStatus.CANCELLED
        return JobStatus.DONE if settlement.ok else JobStatus.ERROR

    def cancelled(self) -> bool:
        """Whether the job is cancelled."""
        return self._state == _CANCELLED

    def done(self) -> bool:
        """Whether the job is final, however it ended: a future's meaning."""
        return self._state != _PENDING

    def running(self) -> bool:
        """Whether a worker has told that the function started, and it has not ended yet."""
        return self.status() is JobStatus.RUNNING

    def report(self) -> JobReport:
        """Accounting and post-mortem of the job; never blocks; what is not known yet is None."""
        return self._record.report(self.status())

    def output(self) -> JobOutput | None:
        """All that is kept of what the job printed, and that so far if it is running; never blocks.

        Returns:
            Its standard output and standard error; None where they are not captured (``capture_output=True``).
        """
        return self._record.output()

    def result(self, timeout: float | None = None) -> T:
        """The job's result, waiting for it.

        Args:
            timeout: seconds to wait; None: as long as it takes.

        Raises:
            JobTimeoutError: `timeout` passed first; the job goes on.
            JobCancelledError: the job was cancelled.
            BaseException: what the job raised, with the worker's traceback as its cause.
        """
        error = None if self._settlement is _RETURNED else self.exception(timeout)
        if error is None:
            return self._result  # type: ignore[return-value]
        try:
            raise error
        finally:
            # The traceback of the error refers to this frame: do not let it keep the future alive.
            del self, error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the job raised, or None, waiting for it.

        Args:
            timeout: seconds to wait; None: as long as it takes.

        Raises:
            JobTimeoutError: `timeout` passed first; the job goes on.
            JobCancelledError: the job was cancelled.
        """
        self._await_final(timeout)
        if self._state == _CANCELLED:
            raise JobCancelledError(f"job {self.job_id} was cancelled", job_id=self.job_id, report=self.report())
        self._open()
        return self._exception

    def _await_final(self, timeout: float | None) -> None:
        if self._state != _PENDING:
            return
        self._record.check_process()
        deadline = None if timeout is None else time.monotonic() + timeout
        self._record.attend(deadline)
        sleeper = threading.Lock()
        sleeper.acquire()
        with _deciding:
            if self._state != _PENDING:
                return
            self._sleepers += (sleeper,)
        try:
            while self._state == _PENDING:
                # No longer than the lock's own limit.
                left = -1 if deadline is None else min(deadline - time.monotonic(), 1e6)
                if deadline is not None and left <= 0:
                    raise JobTimeoutError(
                        f"job {self.job_id} is not final after {timeout:g} s; it goes on, and can be waited for again",
                        job_id=self.job_id,
                    )
                sleeper.acquire(timeout=left)
        finally:
            with _deciding:
                self._sleepers = tuple(other for other in self._sleepers if other is not sleeper)

    def _open(self) -> None:
        """Turn the bytes of a finished job into its result or exception.

        No lock is held while the user's code unpickles; if two threads do so at once, the first one's object stands.
        """
        settlement = self._settlement
        if settlement is None or (settlement.data is None and settlement.error is None):
            return
        result: Any = None
        error: BaseException | None = settlement.error
        ok = settlement.ok
        if error is not None:
            if isinstance(settlement.data, bytes):
                error.__cause__ = load_exception(settlement.data)
            if isinstance(error, JobRunnerError) and error.report is None:
                error.report = self.report()
        elif settlement.data is not None and ok:
            try:
                result = load_result(settlement.data)
            except JobRunnerError as failure:
                failure.job_id = self.job_id
                error, ok = failure, False
        elif settlement.data is not None:
            assert isinstance(settlement.data, bytes)
            error = load_exception(settlement.data)
        if isinstance(error, JobRunnerError) and error.job_id is None:
            error.job_id = self.job_id
        with _deciding:
            if self._settlement is settlement:
                self._result, self._exception = result, error
                # Nothing left to open: the bytes are freed.
                self._settlement = _RETURNED if ok else _FAILED

    def _get_snapshot(self) -> Any:
        # Python 3.14's asyncio reads the fields of a finished future by this.
        if self._state == _FINISHED:
            self._open()
        return super()._get_snapshot()  # type: ignore[misc]

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Have ``fn(future)`` called once the job is final; see `concurrent.futures.Future`.

        Raises:
            TypeError: it is `asyncio.wait` that asks.
        """
        refuse_from_asyncio_wait(fn)
        super().add_done_callback(fn)

    def __await__(self) -> Generator[Any, None, T]:
        """The job's result, in asyncio; cancelling the awaiting task cancels the job."""
        return await_final(self, self.cancel).__await__()

    def set_running_or_notify_cancel(self) -> bool:
        """Refused: the future's state is its executor's."""
        raise JobError("a JobFuture's state is set by its executor alone", job_id=self.job_id)

    def set_result(self, result: T) -> None:
        """Refused: the future's state is its executor's."""
        raise JobError("a JobFuture's state is set by its executor alone", job_id=self.job_id)

    def set_exception(self, exception: BaseException | None) -> None:
        """Refused: the future's state is its executor's."""
        raise JobError("a JobFuture's state is set by its executor alone", job_id=self.job_id)

    def _repr_html_(self) -> str:
        return job_table("JobFuture", self.report())

    def __repr__(self) -> str:
        return f"<JobFuture {self.job_id} {self.status().name}>"


def refuse_from_asyncio_wait(callback: object) -> None:
    """Refuse a callback of `asyncio.wait`, which takes what it is given for its own loop's, and would wait for ever.

    Raises:
        TypeError: it is one.
    """
    if getattr(callback, "__module__", None) == "asyncio.tasks":
        raise TypeError(
            "asyncio.wait takes tasks, and jobs are none: give it [asyncio.ensure_future(job) for job in jobs]"
        )


async def await_final(future: concurrent.futures.Future[T], cancel: Callable[[], object]) -> T:
    """The result of a future, in asyncio, with no thread that waits.

    Args:
        future: the future.
        cancel: called where the awaiting task is cancelled.

    Raises:
        JobError: the job raised `asyncio.CancelledError`, which here is for the task's own cancellation.
        BaseException: what `future.result()` raises.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    final = loop.create_future()

    def _tell() -> None:
        if not final.done():
            final.set_result(None)

    def _on_done(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_tell)

    future.add_done_callback(_on_done)
    try:
        await final
    except asyncio.CancelledError:
        cancel()
        raise
    try:
        return future.result()
    except asyncio.CancelledError as error:
        told = "the job raised asyncio.CancelledError, though it was not cancelled"
        raise JobError(told, job_id=getattr(future, "job_id", None)) from error


def in_event_loop() -> bool:
    """Whether this thread runs an event loop, which must not be blocked."""
    import sys

    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return True
    sniffio = sys.modules.get("sniffio")
    if sniffio is None:
        return False
    detect: Callable[[], str] = sniffio.current_async_library
    try:
        detect()
    except sniffio.AsyncLibraryNotFoundError:
        return False
    return True
