"""Running points on an executor.

::

    source ──Claimed──▶ queue of events ──▶ the calling thread ──submit──▶ executor
       ▲                     ▲   ▲               │                             │
       │     StopRequest ────┘   └── future ─────│───── done callback ◀────────┘
       └───────────ask, record, say──────────────┴──▶ on_outcome

The calling thread does all the work, and sleeps on the queue.  A source is where points come from and where their
outcomes go: a store's `Ledger`, or a sequence in memory.  Only the points that are under way are kept, so that a
million of them need the memory of some thousand.

A point whose worker died is run again after a pause, up to `Policy.retries` times: what killed it may pass (a machine
short of memory, a node that went away).  What its function raises is its outcome.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import heapq
import itertools
import math
import os
import queue
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, Protocol

import psutil

from jobrunner.batch.outcomes import Outcome, OutcomeStatus, Summary
from jobrunner.batch.seeds import Seeding
from jobrunner.batch.work import Beat, Claimed, Fault, Revoked, Whole, Work
from jobrunner.errors import ClusterLostError, MemoryLimitExceeded, SerializationError, WorkerDiedError
from jobrunner.executors.future import JobFuture
from jobrunner.report import JobReport

__all__ = [
    "Activity",
    "Policy",
    "Source",
    "StopRequest",
    "run_points",
    "run_works",
]

#: How many points are under way at a time, at least for each worker and at most.  Between the two, as many as last for
#: some time: fewer would have workers wait for the store, more would leave none for another process.
_AHEAD_PER_WORKER = 2
_AHEAD_MOST = 4000
_AHEAD_SHORT_S = 0.2
_AHEAD_LONG_S = 1.0

#: The first and the longest pause before a point whose worker died is run again; each is twice the one before.
_RETRY_PAUSE_S = 0.5
_RETRY_PAUSE_LONGEST_S = 60.0

#: How many running jobs are told of in detail.
_ACTIVITY_MOST = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """What to do about failures.

    Attributes:
        retries: how often a point is run again after its worker died.
        max_failures: stop after so many points have failed in this run; None: go on.
    """

    retries: int = 0
    max_failures: int | None = None


#: What a run is doing, as `RunnerRecord.activity` has it.
Activity = Mapping[str, Any]


class Source(Protocol):
    """Where the points of a run come from, and where their outcomes go.  Its answers are events."""

    def ask(self, count: int) -> None:
        """Ask for up to `count` points; a `Claimed` is to follow."""

    def prepare(self, value: Any) -> Any:
        """The form in which a result is kept.

        Raises:
            SerializationError: it can't be kept; the point has then failed.
        """

    def record(self, work: Work, outcome: Outcome, prepared: Any) -> None:
        """Keep an outcome, and what `prepare` gave for its value; a cancelled one is not told."""

    def say(self, activity: Activity) -> None:
        """Take note of what the run is doing, after each `Beat`."""


class StopRequest:
    """Asks one run to stop: nothing more is started, and what runs is ended.

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
        self.reason: str | None = None
        # A SimpleQueue's put is reentrant: a signal handler may interrupt another put on the same thread.
        self.events: queue.SimpleQueue[_Event] = queue.SimpleQueue()

    def request(self, reason: str | None = None) -> None:
        """Ask for the stop; of several, the first reason is kept."""
        if not self.requested:
            self.reason = reason
        self.requested = True
        self.events.put(None)


_Event = concurrent.futures.Future[Any] | Claimed | Revoked | Beat | Fault | None


def run_points(
    function: Callable[..., Any],
    points: Sequence[Mapping[str, Any]],
    executor: concurrent.futures.Executor,
    *,
    seeding: Seeding | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
    stop: StopRequest | None = None,
) -> Summary:
    """Call `function` on every point, each call a job of `executor`, and return when all have ended.

    Nothing is stored; `jobrunner.Batch` is for what must survive.  A point that fails doesn't raise, and a
    `KeyboardInterrupt` or `SystemExit` out of a job is that job's failure.

    Args:
        function: called with the point's parameters as keywords.
        points: the parameters of each call.
        executor: where the jobs run; any `concurrent.futures.Executor`.  It stays open.
        seeding: what the function gets for its parameters ``seed`` and ``rng``; default nothing.
        on_outcome: called with each `Outcome` as its job ends, on this thread, in the order of ending.
        stop: a request through it ends the run early.

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
    stop = stop or StopRequest()
    begun = time.monotonic()
    source = _Memory(points, seeding, stop.events.put)
    counts = run_works(function, executor, source, seeding=seeding, on_outcome=on_outcome, stop=stop)
    done, failed = counts[OutcomeStatus.DONE], counts[OutcomeStatus.FAILED]
    return Summary(
        total=len(points),
        done=done,
        failed=failed,
        cancelled=len(points) - done - failed,
        elapsed_s=time.monotonic() - begun,
        stopped=stop.reason,
    )


class _Memory:
    """Points of a sequence, whose outcomes go nowhere."""

    def __init__(
        self, points: Iterable[Mapping[str, Any]], seeding: Seeding | None, tell: Callable[[Claimed], object]
    ) -> None:
        self._waiting = iter(enumerate(points))
        self._seeding = seeding
        self._tell = tell

    def ask(self, count: int) -> None:
        seeding = self._seeding
        self._tell(
            Claimed(
                [
                    Work(index, index, parameters, 0, seeding.seed(parameters) if seeding is not None else None)
                    for index, parameters in itertools.islice(self._waiting, count)
                ]
            )
        )

    def prepare(self, value: Any) -> Any:
        return None

    def record(self, work: Work, outcome: Outcome, prepared: Any) -> None:
        pass

    def say(self, activity: Activity) -> None:
        pass


def run_works(
    function: Callable[..., Any],
    executor: concurrent.futures.Executor,
    source: Source,
    *,
    seeding: Seeding | None = None,
    policy: Policy | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
    on_activity: Callable[[Activity, Whole | None], None] | None = None,
    stop: StopRequest,
) -> Mapping[OutcomeStatus, int]:
    """Run what `source` gives until it has no more, or a stop is requested.

    Args:
        function: called with a point's parameters as keywords.
        executor: where the jobs run.  It stays open.
        source: gives the points, through ``stop.events``.
        seeding: what the function gets for its parameters ``seed`` and ``rng``.
        policy: what to do about failures.
        on_outcome: called with each `Outcome`, on this thread.
        on_activity: called with what the run is doing, and how the whole batch stands where others run it, too, once a
            second if the source has `Beat`s, on this thread.
        stop: ends the run early; its queue has the events of the run.

    Returns:
        How many points ended in each status.

    Raises:
        JobRunnerError: the source has failed.
        Exception: what `executor.submit`, `on_outcome` or `on_activity` raises.  In either case what was running has
            been asked to end.
    """
    return _Run(function, executor, source, seeding, policy or Policy(), on_outcome, on_activity, stop).run()


class _Run:
    def __init__(
        self,
        function: Callable[..., Any],
        executor: concurrent.futures.Executor,
        source: Source,
        seeding: Seeding | None,
        policy: Policy,
        on_outcome: Callable[[Outcome], None] | None,
        on_activity: Callable[[Activity, Whole | None], None] | None,
        stop: StopRequest,
    ) -> None:
        self.function = function
        self.executor = executor
        self.source = source
        self.seeding = seeding
        self.policy = policy
        self.on_outcome = on_outcome
        self.on_activity = on_activity
        self.stop = stop
        self.workers = _workers(executor)
        # Insertion order is the order of submission; a future leaves when its outcome has been told.
        self.pending: dict[concurrent.futures.Future[Any], Work] = {}
        # What waits for its next attempt: when that is due (monotonic), a number to break ties, and the point.
        self.retrying: list[tuple[float, int, Work]] = []
        self.tickets = itertools.count()
        # How often the workers of a point have died in this run; only points of which one did.
        self.deaths: dict[int, int] = {}
        self.revoked: set[int] = set()
        self.asked = False
        self.exhausted = False
        self.stopping = False
        # How many points are to be under way, and when they were asked for last.
        self.least = _AHEAD_PER_WORKER * self.workers + 1
        self.goal = self.least
        self.asked_at = -math.inf
        self.counts = dict.fromkeys(OutcomeStatus, 0)
        # Ended jobs a second, smoothed, and what it is computed from.
        self.rate = 0.0
        self.ended = 0
        self.looked_at = time.monotonic()
        self.looked_ended = 0

    def run(self) -> Mapping[OutcomeStatus, int]:
        try:
            while True:
                self.ask()
                if not self.pending and (self.stop.requested or not (self.asked or self.retrying)):
                    return self.counts
                self.take(self.next_event())
        except BaseException:
            self.cancel_pending()
            raise

    # --- what comes in ---

    def ask(self) -> None:
        if self.asked or self.exhausted or self.stop.requested:
            return
        under_way = len(self.pending) + len(self.retrying)
        if under_way > max(self.goal // 2, self.workers):
            return
        now = time.monotonic()
        if now - self.asked_at < _AHEAD_SHORT_S:
            self.goal = min(2 * self.goal, _AHEAD_MOST)
        elif now - self.asked_at > _AHEAD_LONG_S:
            self.goal = max(self.goal // 2, self.least)
        self.asked_at = now
        self.asked = True
        self.source.ask(max(self.goal - under_way, 1))

    def next_event(self) -> _Event:
        """The next event, or None when a retry is due."""
        if not self.retrying:
            return self.stop.events.get()
        try:
            return self.stop.events.get(timeout=max(0.0, self.retrying[0][0] - time.monotonic()))
        except queue.Empty:
            return None

    def take(self, event: _Event) -> None:
        if isinstance(event, concurrent.futures.Future):
            self.end(event)
        elif isinstance(event, Claimed):
            self.asked = False
            self.exhausted = not event.works
            # What was cancelled, and has been set free and taken up since, is to run.
            self.revoked.difference_update(work.id for work in event.works)
            for work in event.works:
                self.submit(work)
        elif isinstance(event, Revoked):
            self.revoke(event.ids)
            if event.stop:
                self.stop.request("cancelled by another process")
        elif isinstance(event, Beat):
            self.beat(event.whole)
        elif isinstance(event, Fault):
            raise event.error
        while self.retrying and (self.stop.requested or self.retrying[0][0] <= time.monotonic()):
            self.submit(heapq.heappop(self.retrying)[2])
        if self.stop.requested and not self.stopping:
            self.stopping = True
            self.cancel_pending()

    def submit(self, work: Work) -> None:
        if self.stop.requested or work.id in self.revoked:
            return
        drawn = self.seeding.arguments(work.seed) if self.seeding is not None else {}
        future = self.executor.submit(self.function, **work.parameters, **drawn)
        self.pending[future] = work
        future.add_done_callback(self.stop.events.put)

    # --- ends ---

    def revoke(self, ids: Set[int]) -> None:
        self.revoked |= ids
        for future, work in reversed(list(self.pending.items())):
            if work.id in ids:
                future.cancel()

    def cancel_pending(self) -> None:
        # The last first: otherwise each running job that ends would make room for a queued one to start.
        for future in reversed(list(self.pending)):
            future.cancel()

    def end(self, future: concurrent.futures.Future[Any]) -> None:
        work = self.pending.pop(future)
        status, value, error = _ending(future)
        if isinstance(error, ClusterLostError):
            raise error  # no fault of the point: it is run by whoever resumes
        ended = self.stopping or work.id in self.revoked
        if ended and isinstance(error, WorkerDiedError) and not isinstance(error, MemoryLimitExceeded):
            # Its node was lost before it had said that the point has ended: that is run again, too.
            status, error = OutcomeStatus.CANCELLED, None
        prepared = None
        if status is OutcomeStatus.DONE:
            try:
                prepared = self.source.prepare(value)
            except SerializationError as unkept:
                status, value, error = OutcomeStatus.FAILED, None, unkept
        if status is OutcomeStatus.FAILED and self.tries_again(work, error):
            status = OutcomeStatus.RETRIED
        self.counts[status] += 1
        self.ended += 1
        report = getattr(future, "report", None)
        outcome = Outcome(
            index=work.place,
            parameters=work.parameters,
            replicate=work.replicate,
            seed=work.seed,
            status=status,
            value=value,
            error=error,
            report=report() if report is not None else None,
        )
        if isinstance(future, JobFuture) and _printed(outcome.report) and (output := future.output()) is not None:
            outcome = dataclasses.replace(outcome, stdout=output.stdout, stderr=output.stderr)
        if status is not OutcomeStatus.CANCELLED:
            self.source.record(work, outcome, prepared)
        if self.on_outcome is not None:
            self.on_outcome(outcome)
        failures = self.counts[OutcomeStatus.FAILED]
        if self.policy.max_failures is not None and failures >= self.policy.max_failures and not self.stop.requested:
            self.stop.request(f"{failures} {'point has' if failures == 1 else 'points have'} failed")

    def tries_again(self, work: Work, error: BaseException | None) -> bool:
        """Whether a failed point has another attempt, which is then planned."""
        if not isinstance(error, WorkerDiedError) or isinstance(error, MemoryLimitExceeded):
            return False
        deaths = self.deaths[work.id] = self.deaths.get(work.id, 0) + 1
        if deaths > self.policy.retries or self.stop.requested:
            return False
        pause = min(_RETRY_PAUSE_S * 2 ** (deaths - 1), _RETRY_PAUSE_LONGEST_S)
        heapq.heappush(self.retrying, (time.monotonic() + pause, next(self.tickets), work))
        return True

    # --- once a second ---

    def beat(self, whole: Whole | None) -> None:
        now = time.monotonic()
        passed = now - self.looked_at
        if passed > 0:
            latest = (self.ended - self.looked_ended) / passed
            self.rate = latest if not self.rate else 0.5 * self.rate + 0.5 * latest
        self.looked_at, self.looked_ended = now, self.ended
        activity = self.activity()
        self.source.say(activity)
        if self.on_activity is not None:
            self.on_activity(activity, whole)

    def activity(self) -> Activity:
        running: list[dict[str, Any]] = []
        for future, work in self.pending.items():
            if len(running) < _ACTIVITY_MOST and future.running():
                report = getattr(future, "report", None)
                found = report() if report is not None else None
                running.append(
                    {
                        "place": work.place,
                        "parameters": dict(work.parameters),
                        "pid": found.pid if found is not None else None,
                        "since": found.started_at if found is not None else None,
                    }
                )
        pids: set[int] = {job["pid"] for job in running if job["pid"] is not None}
        workers = {pid: _resident(pid) for pid in sorted(pids)}
        return {
            "rate": self.rate,
            "under_way": len(self.pending) + len(self.retrying),
            "running": running,
            "workers": [{"pid": pid, "rss_bytes": size} for pid, size in workers.items()],
            "rss_bytes": _resident(os.getpid()) + sum(workers.values()),
        }


def _workers(executor: concurrent.futures.Executor) -> int:
    """How many jobs an executor runs at a time, as far as it tells."""
    count = getattr(getattr(executor, "backend", None), "max_workers", None) or getattr(executor, "_max_workers", None)
    return count if isinstance(count, int) else (os.cpu_count() or 1)


def _printed(report: JobReport | None) -> bool:
    return report is not None and bool(report.stdout_head or report.stderr_head)


def _resident(pid: int) -> int:
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def _ending(future: concurrent.futures.Future[Any]) -> tuple[OutcomeStatus, Any, BaseException | None]:
    """How a future that is done ended."""
    if future.cancelled():
        return OutcomeStatus.CANCELLED, None, None
    # Asked for rather than caught: a KeyboardInterrupt raised here would be the user's own.
    error = future.exception()
    if error is not None:
        return OutcomeStatus.FAILED, None, error
    return OutcomeStatus.DONE, future.result(), None
