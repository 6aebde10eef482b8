"""Waiting for several jobs at once."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from jobrunner.errors import JobTimeoutError
from jobrunner.executors.future import JobFuture
from jobrunner.primitive_job import PrimitiveJob

__all__ = ["DoneAndNotDone", "as_completed", "gather", "wait"]

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


def as_completed(jobs: Iterable[JobT], timeout: float | None = None) -> Iterator[JobT]:
    """Jobs as they become final.

    Args:
        jobs: jobs or futures; one that stands twice is yielded once.
        timeout: seconds from now after which waiting for the next raises; None: never.

    Raises:
        JobError: a job was never submitted.
        JobTimeoutError: raised by the iterator when `timeout` passes; the jobs go on.
    """
    by_future: dict[concurrent.futures.Future[Any], list[JobT]] = {}
    for job in dict.fromkeys(jobs):
        by_future.setdefault(_future(job), []).append(job)
    return _yield_completed(by_future, timeout)


def _yield_completed(
    by_future: dict[concurrent.futures.Future[Any], list[JobT]], timeout: float | None
) -> Iterator[JobT]:
    total = len(by_future)
    left = total
    try:
        for future in concurrent.futures.as_completed(list(by_future), timeout=timeout):
            left -= 1
            yield from by_future.pop(future)
    except concurrent.futures.TimeoutError as error:
        raise JobTimeoutError(f"{left} of {total} jobs are not final after {timeout:g} s; they go on") from error


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
