"""What an executor of ours offers, to users and to jobs, and what its engines have in common."""

from __future__ import annotations

import abc
import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from jobrunner.backend import Backend, Capabilities
from jobrunner.errors import JobError, JobRunnerError, SerializationError
from jobrunner.executors.future import JobFuture
from jobrunner.executors.services import run_callback, services
from jobrunner.messages import pack_call
from jobrunner.options import JobOptions, check_count, check_seconds
from jobrunner.serialization import Call, call_name, dump_call, dump_handle

__all__ = ["JobExecutor", "check_map", "check_possible", "fail_unsent", "start_when_ready"]

T = TypeVar("T")


class JobExecutor(concurrent.futures.Executor, abc.ABC):
    """A `concurrent.futures.Executor` that knows jobs.

    An engine implements `submit_call`, `submit_failed`, `map`, `with_options`, `shutdown` and `backend`.
    """

    @property
    @abc.abstractmethod
    def backend(self) -> Backend:
        """Where the executor's jobs run, and what it can do."""

    @abc.abstractmethod
    def submit_call(self, call: Call, job_id: str | None = None) -> JobFuture[Any]:
        """Take a serialised call.

        Args:
            call: the call; the jobs it depends on may be unfinished.
            job_id: the id that the job has; None: a new one.

        Raises:
            ExecutorShutdownError: no more jobs are taken.
            JobError: the job can't be taken as it is asked for.
        """

    @abc.abstractmethod
    def submit_failed(self, error: SerializationError, name: str) -> JobFuture[Any]:
        """A future that carries `error`, for a call that could not be serialised."""

    @abc.abstractmethod
    def with_options(self, **options: Any) -> JobExecutor:
        """A light view of the same executor, whose jobs have other options.

        Args:
            options: of `JobOptions`.

        Raises:
            TypeError: there is no such option, or its value is of the wrong type.
            ValueError: its value is out of range.
        """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> JobFuture[T]:
        """Have ``fn(*args, **kwargs)`` run as a job.

        Args:
            fn: any callable, also of ``__main__``, a lambda or a closure.
            args: its positional arguments; a job handle among them is waited for first.
            kwargs: its keyword arguments.

        Returns:
            The job's future.  What can't be serialised doesn't raise here: the future carries the `SerializationError`.

        Raises:
            ExecutorShutdownError: the executor was shut down.
            JobError: a job handle among the arguments was never submitted; or the queue is full and this thread must
                not wait.

        Example:
            >>> from jobrunner import InlineExecutor
            >>> InlineExecutor().submit(sum, [1, 2, 3]).result()
            6
        """
        _check_callable(fn)
        try:
            call = dump_call(fn, args, kwargs)
        except SerializationError as error:
            return self.submit_failed(error, call_name(fn))
        return self.submit_call(call)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: object, traceback: object) -> None:
        # By an exception: nobody is left to use the results.
        failed = exc_type is not None
        self.shutdown(wait=True, cancel_futures=failed, kill_workers=failed)

    @abc.abstractmethod
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False) -> None:
        """Take no more jobs.

        Args:
            wait: return only when all jobs are over and all workers gone.
            cancel_futures: cancel the jobs that have not started.
            kill_workers: cancel the running jobs too.
        """


def _check_callable(fn: object) -> None:
    if not callable(fn):
        raise TypeError(f"the first argument must be callable, not {fn!r}")


def check_map(fn: object, timeout: float | None, chunksize: int | None, buffersize: int | None) -> float | None:
    """Check the arguments of a `map`, except what it iterates over.

    Returns:
        `time.monotonic` after which no result is waited for; None: none.

    Raises:
        TypeError: `fn` can't be called, or another is no number.
        ValueError: the timeout is no duration, or a size below 1.
    """
    for name, size in (("chunksize", chunksize), ("buffersize", buffersize)):
        if size is not None:
            check_count(name, size)
    _check_callable(fn)
    seconds = check_seconds("timeout", timeout, zero=True)
    return None if seconds is None else time.monotonic() + seconds


def check_possible(options: JobOptions, capabilities: Capabilities, why: str, job_id: str | None = None) -> None:
    """Refuse options that an executor can't keep, rather than promise falsely.

    Args:
        options: what is asked for.
        capabilities: what the executor can do; an option that it has to be able to do has the same name there.
        why: why it can't, and what to do about it, for the error.
        job_id: the job concerned, if there is one yet.

    Raises:
        JobError: one is asked for that it can't do.
    """
    asked = {
        "time_limit": options.time_limit is not None,
        "memory_limit": options.memory_limit is not None,
        "capture_output": options.capture_output,
        "grace": options.grace > 0,
    }
    for option, wanted in asked.items():
        if wanted and not getattr(capabilities, option):
            raise JobError(
                f"{option} is not possible here (backend.capabilities.{option} is False): {why}", job_id=job_id
            )


class _Unsent(Protocol):
    """A job that is not handed in yet, as an engine keeps it."""

    future: JobFuture[Any] | None

    @property
    def job_id(self) -> str:
        """The job's id, UUID4 text."""


UnsentT = TypeVar("UnsentT", bound=_Unsent)


def fail_unsent(
    job: UnsentT, error: SerializationError, fail: Callable[[UnsentT, SerializationError], None]
) -> JobFuture[Any]:
    """Let a job fail whose call could not be serialised; its future."""
    future = job.future
    assert future is not None
    error.job_id = job.job_id
    fail(job, error)
    return future


def start_when_ready(
    call: Call,
    *,
    hold: Callable[[], None],
    start: Callable[[bytes], None],
    fail: Callable[[JobRunnerError], None],
) -> None:
    """Start a call as soon as the jobs it depends on are final.

    Args:
        call: the call.
        hold: told first, if it has to wait.
        start: given the body of the call's frame.
        fail: given the error, if a finished job can't be serialised.
    """
    # Nothing here may hold the call itself: its buffers are the caller's memory.
    payload, handles = call.payload, call.dependencies
    if not handles:
        start(pack_call(payload, ()))
        return

    def begin() -> None:
        try:
            states = [dump_handle(handle) for handle in handles]
        except Exception as error:
            failure = SerializationError(f"a finished job among the arguments can't be sent to a worker: {error}")
            failure.__cause__ = error
            fail(failure)
            return
        try:
            start(pack_call(payload, states))
        except JobRunnerError as error:
            fail(error)

    waiting = [handle.dependency() for handle in handles if not handle.dependency().done()]
    if not waiting:
        begin()
        return
    hold()
    services().callbacks.have_thread()
    lock = threading.Lock()
    left = len(waiting)

    def one_final(_: object) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
        if last:
            # Pickling a result is the user's code, and a foreign executor calls this on a thread of its own.
            run_callback(begin)

    for future in waiting:
        future.add_done_callback(one_final)
