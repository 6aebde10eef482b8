"""Running points on an executor.

::

    points ──▶ fill: at most `look_ahead` futures ──submit──▶ executor
                                                                │ done callback, on any thread
    on_outcome ◀── the calling thread ◀── queue of events ◀─────┘
                                             ▲
                          StopRequest.request()  (another thread, or a signal handler)

The calling thread does all the work, and sleeps on the queue.  Only futures that are under way are kept, so that a
million points need the memory of `look_ahead` of them.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import enum
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jobrunner.batch.seeds import Seeding
from jobrunner.report import JobReport

__all__ = ["Outcome", "OutcomeStatus", "StopRequest", "Summary", "run_points"]


class OutcomeStatus(enum.Enum):
    """How a point ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one point.

    Attributes:
        index: the point's place in the batch, from 0.
        parameters: the point.
        seed: what the point's random numbers came from; None if the function takes none.
        status: done, failed or cancelled.
        value: what the function returned, when done.
        error: what the job ended with, when failed.
        report: the job's report, from executors that give one.
    """

    index: int
    parameters: Mapping[str, Any]
    seed: int | None = None
    status: OutcomeStatus
    value: Any = dataclasses.field(default=None, repr=False)
    error: BaseException | None = None
    report: JobReport | None = dataclasses.field(default=None, repr=False)

    @property
    def cause(self) -> str | None:
        """One line on why the point failed; None when it did not."""
        if self.error is None:
            return None
        text = " ".join(str(self.error).split())
        return f"{type(self.error).__name__}: {text}" if text else type(self.error).__name__


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """How a run ended.

    Attributes:
        total: points in the batch.
        done: points whose function returned.
        failed: points whose job failed.
        cancelled: points that were ended or never started, because a stop was requested.
        elapsed_s: wall-clock seconds from the first submit to the last end.
    """

    total: int
    done: int
    failed: int
    cancelled: int
    elapsed_s: float


class StopRequest:
    """Asks one `run_points` to stop: nothing more is started, and what runs is ended.

    `request` may be called at any time, from any thread and from a signal handler.

    Example:
        >>> import concurrent.futures
        >>> stop = StopRequest()
        >>> stop.request()
        >>> with concurrent.futures.ThreadPoolExecutor() as executor:
        ...     run_points(abs, [{}, {}], executor, stop=stop).cancelled
        2
    """

    def __init__(self) -> None:
        self.requested = False
        # A SimpleQueue's put is reentrant: a signal handler may interrupt another put on the same thread.
        self._events: queue.SimpleQueue[concurrent.futures.Future[Any] | None] = queue.SimpleQueue()

    def request(self) -> None:
        """Ask for the stop; further calls change nothing."""
        self.requested = True
        self._events.put(None)


def run_points(
    function: Callable[..., Any],
    points: Sequence[Mapping[str, Any]],
    executor: concurrent.futures.Executor,
    *,
    seeding: Seeding | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
    stop: StopRequest | None = None,
    look_ahead: int = 1000,
) -> Summary:
    """Call `function` on every point, each call a job of `executor`, and return when all have ended.

    A point that fails doesn't raise, and a `KeyboardInterrupt` or `SystemExit` out of a job is that job's failure.

    Args:
        function: called with the point's parameters as keywords.
        points: the parameters of each call.
        executor: where the jobs run; any `concurrent.futures.Executor`.  It stays open.
        seeding: what the function gets for its parameters ``seed`` and ``rng``; default nothing.
        on_outcome: called with each `Outcome` as its job ends, on this thread, in the order of ending.
        stop: a request through it ends the run early.
        look_ahead: how many jobs are handed to the executor at a time, at most.

    Raises:
        Exception: what `executor.submit` or `on_outcome` raises, after what was running has been ended.

    Example:
        >>> import concurrent.futures
        >>> from jobrunner.batch.points import sweep
        >>> def inverse(x):
        ...     return 1 / x
        >>> with concurrent.futures.ThreadPoolExecutor() as executor:
        ...     summary = run_points(inverse, sweep(x=[0, 1, 2]), executor)
        >>> summary.done, summary.failed
        (2, 1)
    """
    return _Run(function, points, executor, seeding, on_outcome, stop or StopRequest(), look_ahead).run()


@dataclasses.dataclass(frozen=True)
class _Pending:
    index: int
    parameters: Mapping[str, Any]
    seed: int | None


class _Run:
    def __init__(
        self,
        function: Callable[..., Any],
        points: Sequence[Mapping[str, Any]],
        executor: concurrent.futures.Executor,
        seeding: Seeding | None,
        on_outcome: Callable[[Outcome], None] | None,
        stop: StopRequest,
        look_ahead: int,
    ) -> None:
        self.function = function
        self.points = points
        self.executor = executor
        self.seeding = seeding
        self.on_outcome = on_outcome
        self.stop = stop
        self.look_ahead = look_ahead
        # Insertion order is the order of submission; a future leaves when its outcome has been told.
        self.pending: dict[concurrent.futures.Future[Any], _Pending] = {}
        self.counts = dict.fromkeys(OutcomeStatus, 0)

    def run(self) -> Summary:
        begun = time.monotonic()
        try:
            waiting = iter(enumerate(self.points))
            self.fill(waiting)
            while self.pending:
                self.tell(self.next_ended())
                self.fill(waiting)
        except BaseException:
            self.cancel_pending()
            raise
        done, failed = self.counts[OutcomeStatus.DONE], self.counts[OutcomeStatus.FAILED]
        return Summary(
            total=len(self.points),
            done=done,
            failed=failed,
            cancelled=len(self.points) - done - failed,
            elapsed_s=time.monotonic() - begun,
        )

    def fill(self, waiting: Iterator[tuple[int, Mapping[str, Any]]]) -> None:
        while not self.stop.requested and len(self.pending) < self.look_ahead:
            following = next(waiting, None)
            if following is None:
                return
            index, parameters = following
            seed = self.seeding.seed(parameters) if self.seeding is not None else None
            drawn = self.seeding.arguments(seed) if self.seeding is not None else {}
            future = self.executor.submit(self.function, **parameters, **drawn)
            self.pending[future] = _Pending(index, parameters, seed)
            future.add_done_callback(self.stop._events.put)

    def next_ended(self) -> concurrent.futures.Future[Any]:
        while True:
            ended = self.stop._events.get()
            if ended is not None:
                return ended
            self.cancel_pending()

    def cancel_pending(self) -> None:
        # The last first: otherwise each running job that ends would make room for a queued one to start.
        for future in reversed(list(self.pending)):
            future.cancel()

    def tell(self, future: concurrent.futures.Future[Any]) -> None:
        pending = self.pending.pop(future)
        status, value, error = _ending(future)
        self.counts[status] += 1
        if self.on_outcome is None:
            return
        report = getattr(future, "report", None)
        self.on_outcome(
            Outcome(
                index=pending.index,
                parameters=pending.parameters,
                seed=pending.seed,
                status=status,
                value=value,
                error=error,
                report=report() if report is not None else None,
            )
        )


def _ending(future: concurrent.futures.Future[Any]) -> tuple[OutcomeStatus, Any, BaseException | None]:
    """How a future that is done ended."""
    if future.cancelled():
        return OutcomeStatus.CANCELLED, None, None
    # Asked for rather than caught: a KeyboardInterrupt raised here would be the user's own.
    error = future.exception()
    if error is not None:
        return OutcomeStatus.FAILED, None, error
    return OutcomeStatus.DONE, future.result(), None
