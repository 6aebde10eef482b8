"""A batch of joblib's tasks, as one job or as a job for each."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jobrunner.errors import SerializationError
from jobrunner.joblib.scores import ENDED, can_be_scored, score_of_failed

__all__ = ["Batch", "Sent", "Task"]

Task = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Sent(NamedTuple):
    """Some tasks that were submitted as one job.

    job: its future, of a list of the tasks' results.
    tasks: returns them as they were when they were submitted, whatever has become of their arguments since; raises
        `SerializationError` where that can't be had.
    """

    job: concurrent.futures.Future[list[Any]]
    tasks: Callable[[], list[Task]]


class Batch:
    """A batch of tasks, which joblib waits for as a whole.

    Args:
        tasks: the tasks.
        submit: submits some of them as one job.
        apart: whether each is a job of its own.
    """

    def __init__(self, tasks: list[Task], submit: Callable[[list[Task]], Sent], apart: bool) -> None:
        self._tasks = tasks
        self._submit = submit
        self._apart = apart or len(tasks) == 1
        self._over: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        # Guarded by the lock: all tasks in one job, or a job for each; and whether they are not wanted any more.
        self._jobs: list[concurrent.futures.Future[list[Any]]] = []
        self._cancelled = False
        # The tasks in one job, to be run again apart.
        self._together: Callable[[], list[Task]] | None = None
        # Jobs that were not seen to be over; of whoever was called last.
        self._left: Iterator[int] = iter(())

    def begin(self, over: Callable[[], object]) -> None:
        """Submit the tasks.

        Args:
            over: called when they are over, or the first has failed.
        """
        self._over = over
        if self._apart:
            self._start([self._submit([task]).job for task in self._tasks])
        else:
            job, self._together = self._submit(self._tasks)
            self._start([job])

    def _start(self, jobs: list[concurrent.futures.Future[list[Any]]]) -> None:
        with self._lock:
            self._jobs = jobs
            cancelled = self._cancelled
        if cancelled:
            self.cancel()
        self._left = iter(range(len(jobs)))
        self._go_on()

    def _go_on(self) -> None:
        """Look at the jobs in order; at the first that is not over, come back when it is."""
        for place in self._left:
            if not self._jobs[place].done():
                self._jobs[place].add_done_callback(lambda _, place=place: self._look(place))  # type: ignore[misc]
                return
            if self._decide(place):
                return
        self._end()

    def _look(self, place: int) -> None:
        if not self._decide(place):
            self._go_on()

    def _decide(self, place: int) -> bool:
        """Look at a job that is over; whether there is nothing more to look at."""
        job = self._jobs[place]
        error = None if job.cancelled() else job.exception()
        if error is None and not job.cancelled():
            return False
        if isinstance(error, ENDED) and self._together is not None and not self._cancelled and self._run_apart():
            return True
        if self._is_scored(error, place):
            return False
        self._end()
        return True

    def _end(self) -> None:
        over, self._over = self._over, lambda: None
        over()

    def _run_apart(self) -> bool:
        """Run each task again, by itself, as it is not known which has ended the process; whether that can be done."""
        assert self._together is not None
        try:
            tasks = self._together()
        except SerializationError:
            return False
        self._together = None
        self._apart = True
        self._start([self._submit([task]).job for task in tasks])
        return True

    def _is_scored(self, error: BaseException | None, place: int) -> bool:
        return error is not None and self._apart and can_be_scored(error, *self._tasks[place])

    def results(self) -> list[Any]:
        """What the tasks have returned; to be asked for once.

        Raises:
            BaseException: what the first that failed has raised.
        """
        try:
            return [result for place in range(len(self._jobs)) for result in self._results_of(place)]
        finally:
            # The jobs know of this batch, and it of them: kept until the next garbage collection, with the arguments.
            self._tasks, self._jobs, self._together = [], [], None

    def _results_of(self, place: int) -> list[Any]:
        job = self._jobs[place]
        error = job.exception()
        if error is not None and self._is_scored(error, place):
            return [score_of_failed(error, *self._tasks[place])]
        return job.result()

    def cancel(self) -> None:
        """Cancel them, the last first: none that waits is to start when one that runs has ended."""
        with self._lock:
            self._cancelled = True
            jobs = list(self._jobs)
        for job in reversed(jobs):
            job.cancel()
