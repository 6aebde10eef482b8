"""Waiting for several jobs at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from jobrunner.errors import JobTimeoutError
from jobrunner.executors.future import JobFuture
from jobrunner.primitive_job import PrimitiveJob

__all__ = ["Completions", "DoneAndNotDone", "as_completed", "gather", "wait"]

#: What can be waited for: jobs, and the futures of our executors.
JobT = TypeVar("JobT", bound="PrimitiveJob[Any] | JobFuture[Any]")


_RETURN_WHEN = (
    concurrent.futures.ALL_COMPLETED,
    concurrent.futures.FIRST_COMPLETED,
    concurrent.futures.FIRST_EXCEPTION,
)


class DoneAndNotDone(NamedTuple):
    """The answer of `wait`.

    Attributes:
        done: the jobs that are final.
        not_done: the others.
    """

    done: set[Any]
    not_done: set[Any]


def _future(job: Any) -> concurrent.futures.Future[Any]:
    """The future of a job.

    Raises:
        JobError: the job was never submitted.
        TypeError: it is no job.
    """
    if isinstance(job, PrimitiveJob):
        return job.dependency()
    if isinstance(job, concurrent.futures.Future):
        return job
    raise TypeError(f"expected jobs, not {job!r}")


def wait(
    jobs: Iterable[JobT], timeout: float | None = None, return_when: str = concurrent.futures.ALL_COMPLETED
) -> DoneAndNotDone:
    """Wait for jobs, as `concurrent.futures.wait` does for futures.

    Args:
        jobs: jobs or futures; one that stands twice counts once.
        timeout: seconds to wait; None: as long as it takes.
        return_when: ``"ALL_COMPLETED"``, ``"FIRST_COMPLETED"`` or ``"FIRST_EXCEPTION"``.

    Returns:
        The jobs that are final, and the others; a timeout raises nothing.

    Raises:
        JobError: a job was never submitted.
        ValueError: `return_when` is none of these.

    Example:
        >>> from jobrunner import InlineExecutor
        >>> future = InlineExecutor().submit(abs, -1)
        >>> wait([future]).done == {future}
        True
    """
    if return_when not in _RETURN_WHEN:
        raise ValueError(f"return_when must be one of {', '.join(_RETURN_WHEN)}, not {return_when!r}")
    futures = {job: _future(job) for job in jobs}
    done = concurrent.futures.wait(futures.values(), timeout=timeout, return_when=return_when).done
    return DoneAndNotDone(
        {job for job, future in futures.items() if future in done},
        {job for job, future in futures.items() if future not in done},
    )


def as_completed(jobs: Iterable[JobT], timeout: float | None = None) -> Completions[JobT]:
    """Jobs as they become final.

    Args:
        jobs: jobs or futures; one that stands twice is yielded once.
        timeout: seconds from now after which waiting for the next raises; None: never.

    Returns:
        An iterator, for ``for`` and for ``async for`` in asyncio, which waits in no thread.

    Raises:
        JobError: a job was never submitted.
        JobTimeoutError: raised by the iterator when `timeout` passes; the jobs go on.

    Example:
        >>> from jobrunner import InlineExecutor
        >>> executor = InlineExecutor()
        >>> sorted(job.result() for job in as_completed([executor.submit(pow, 2, n) for n in range(4)]))
        [1, 2, 4, 8]
    """
    by_future: dict[concurrent.futures.Future[Any], list[JobT]] = {}
    for job in dict.fromkeys(jobs):
        by_future.setdefault(_future(job), []).append(job)
    return Completions(by_future, timeout)


class Completions(Generic[JobT]):
    """Jobs as they become final: what `as_completed` returns.  Leaving it early changes nothing for the jobs.

    With ``async for``, several tasks may share one, in more than one event loop, and each job goes to one of them.  A
    task that is cancelled while it waits for the next takes none with it.
    """

    def __init__(
        self, by_future: dict[concurrent.futures.Future[Any], list[JobT]], timeout: float | None = None
    ) -> None:
        # What the jobs call once `async for` listens to them; first, since `__del__` looks whatever `timeout` is.
        self._tell: Callable[[concurrent.futures.Future[Any]], object] | None = None
        self._by_future = by_future
        self._total = len(by_future)
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._threaded: Iterator[JobT] | None = None
        # Guards what follows: the final jobs that nobody has yet, and what wakes each task that waits for one.
        self._lock = threading.Lock()
        self._final: deque[JobT] = deque()
        self._wakers: list[Callable[[], object]] = []

    def __iter__(self) -> Iterator[JobT]:
        return self

    def __next__(self) -> JobT:
        if self._threaded is None:
            self._threaded = self._yield_completed()
        try:
            return next(self._threaded)
        except BaseException:
            # It is used up, whatever it raised: who asks again, after a timeout or Ctrl-C, waits again.
            self._threaded = None
            raise

    def __aiter__(self) -> AsyncIterator[JobT]:
        return self

    async def __anext__(self) -> JobT:
        import asyncio

        if self._tell is None:
            self._listen()
        loop = asyncio.get_running_loop()
        while True:
            come = asyncio.Event()
            waker = functools.partial(loop.call_soon_threadsafe, come.set)
            with self._lock:
                if self._final:
                    return self._final.popleft()
                if not self._by_future:
                    raise StopAsyncIteration
                self._wakers.append(waker)
            left = self._left()
            try:
                await asyncio.wait_for(come.wait(), left)
            except asyncio.TimeoutError as error:
                if self._final or left:
                    continue  # one has come meanwhile; or the clock says that there is a moment left
                raise self._too_late() from error
            finally:
                with self._lock, contextlib.suppress(ValueError):
                    self._wakers.remove(waker)

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _too_late(self) -> JobTimeoutError:
        left = len(self._by_future)
        return JobTimeoutError(f"{left} of {self._total} jobs are not final after {self._timeout:g} s; they go on")

    def _listen(self) -> None:
        """Have all jobs tell that they are final; those that are have done so when this returns."""
        # Weakly: a loop that is left early is not to be kept, with its jobs, by those that take long.
        take_final = weakref.WeakMethod(self._take_final)

        def tell(future: concurrent.futures.Future[Any]) -> None:
            if (take := take_final()) is not None:
                take(future)

        self._tell = tell
        for future in list(self._by_future):
            if future.done():
                self._take_final(future)
            else:
                future.add_done_callback(tell)

    def __del__(self) -> None:
        # One after another that is left early would leave a callback each with a job that takes long.
        if self._tell is not None:
            for future in self._by_future:
                if isinstance(future, JobFuture):
                    future.drop_done_callback(self._tell)

    def _take_final(self, future: concurrent.futures.Future[Any]) -> None:
        """A job is final; on any thread."""
        with self._lock:
            self._final += self._by_future.pop(future, ())
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits any more
                wake()

    def _yield_final(self) -> Iterator[JobT]:
        """The final jobs that nobody has yet."""
        while True:
            with self._lock:
                if not self._final:
                    return
                job = self._final.popleft()
            yield job

    def _yield_completed(self) -> Iterator[JobT]:
        """The jobs that are left, on a thread that waits for them."""
        # Listed first: one that becomes final from here on is waited for, whoever else is told of it.
        with self._lock:
            futures = list(self._by_future)
        yield from self._yield_final()  # what `async for` has left
        try:
            for future in concurrent.futures.as_completed(futures, timeout=self._left()):
                with self._lock:
                    self._final += self._by_future.pop(future, ())
                yield from self._yield_final()
        except concurrent.futures.TimeoutError as error:
            raise self._too_late() from error


def gather(jobs: Iterable[JobT], return_exceptions: bool = False, timeout: float | None = None) -> list[Any]:
    """The results of jobs, in their order.

    Args:
        jobs: jobs or futures.
        return_exceptions: put errors in their places, instead of raising the first.
        timeout: seconds to wait for all of them together; None: as long as it takes.

    Raises:
        JobError: a job was never submitted.
        JobTimeoutError: `timeout` passed; the jobs go on.
        BaseException: the first error in the order of `jobs`; the other jobs go on.

    Example:
        >>> from jobrunner import InlineExecutor
        >>> executor = InlineExecutor()
        >>> gather([executor.submit(pow, 2, n) for n in range(4)])
        [1, 2, 4, 8]
    """
    futures = [_future(job) for job in jobs]
    deadline = None if timeout is None else time.monotonic() + timeout
    results: list[Any] = []
    for future in futures:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        # Waited for apart: a result() that times out can't be told from a job that raised a TimeoutError.
        if not concurrent.futures.wait([future], timeout=left).done:
            raise JobTimeoutError(f"not all of {len(futures)} jobs are final after {timeout:g} s; they go on")
        try:
            results.append(future.result())
        except BaseException as error:
            if not return_exceptions or not future.done():
                raise
            results.append(error)
    return results
