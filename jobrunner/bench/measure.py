"""The measuring: rounds of samples in random order, and batches at several widths.

::

    calibrate each series ─▶ round 0: a sample of each, in random order ─▶ round 1 … until each has enough
                         ─▶ scaling round 0: a batch at each width, in random order ─▶ …

One thing runs at a time, so that nothing of ours runs beside what is timed; each sample in a worker of its own, which
is started before and gone after it.  In a round every series has its turn, so that what makes the machine slower for a
while makes all of them slower, and their ratio stays.  Everything that ends is given to the journal at once; what the
journal has already is not measured again.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from jobrunner.batch import StopRequest
from jobrunner.bench import timing
from jobrunner.bench.cores import Cores
from jobrunner.bench.intervals import relative_error
from jobrunner.bench.journal import Journal
from jobrunner.bench.plan import Plan, SeriesPlan
from jobrunner.bench.result import Sample, Scaling, ScalingRun
from jobrunner.bench.settings import SAMPLES_MOST
from jobrunner.bench.timing import Calibration, Failure, Task, Timing
from jobrunner.errors import MemoryLimitExceeded, SerializationError, TimeLimitExceeded, WorkerDiedError
from jobrunner.executors.local import LocalExecutor

__all__ = ["Engine", "Measurement", "Progress", "local_engine"]

T = TypeVar("T")

#: A series, or a width, that has failed so often in a row is given up.
_FAILURES_MOST = 3

#: The least samples of a series whose end is not told by their number.
_SAMPLES_LEAST = 5

#: Samples before a relative error is believed.
_RSE_LEAST = 10

#: Jobs a worker of a batch for scaling.
_JOBS_PER_WORKER = 2

#: A batch has a multiple of every width of jobs, so that none ends with idle workers, if that is no more than so many
#: times as many as it would have otherwise.
_JOBS_TIMES = 4

#: So many tries in a row that reach no new worker of a pool tell that there are no more.
_WARM_TRIES = 3


class Engine(Protocol):
    """Where tasks are run: a `LocalExecutor`, or what a test has in its place."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Have a task run; the future is settled when it is over."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False) -> None:
        """Take no more tasks; with `kill_workers` end those that run."""


def local_engine(plan: Plan, width: int | None) -> Engine:
    """The workers that tasks are run in.

    Args:
        plan: the benchmark.
        width: the number of workers of a batch; None: one at a time, each for one task.
    """
    settings = plan.settings
    return LocalExecutor(
        max_workers=width or 1,
        threads=settings.threads,
        time_limit=settings.time_limit,
        memory_limit=settings.memory_limit,
        max_jobs_per_worker=None if width else 1,
        # None is started beside one that is timed.
        spare_workers=0,
        # What is timed has memory as in a process of its own, not as workers keep it (`executors.allocator`).
        env={"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "")},
        idle_timeout=None,
        # What functions print does not mix with the results, and costs the terminal no time.
        capture_output=True,
        relay_logs=False,
    )


class Progress(Protocol):
    """What is told of the measuring."""

    def __call__(self, done: float, total: float | None, doing: str) -> None:
        """Something is about to be run.

        Args:
            done: how much was, in samples.
            total: how much there is; None where that is not known.
            doing: what is run now.
        """


class _StopError(Exception):
    """A stop was requested."""


class _Problem(NamedTuple):
    """Why a task gave nothing.

    kind: see `Sample.failure`.
    sentence: what to tell of it.
    """

    kind: str
    sentence: str


class Measurement:
    """Measures a plan, as far as its journal does not have it yet.

    Args:
        plan: what is measured.
        journal: has what was measured, and is given what is.
        cores: which cores samples run on.
        order: what the random order of a round comes from.
        engine: makes the workers.
        stop: ends it early.
        progress: is told of it.
    """

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        cores: Cores,
        *,
        order: int,
        engine: Callable[[Plan, int | None], Engine] = local_engine,
        stop: StopRequest | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._plan = plan
        self._journal = journal
        self._cores = cores
        self._order = order
        self._engine = engine
        self._stop = stop or StopRequest()
        self._progress = progress

    def run(self) -> None:
        """Measure, until all was measured and the journal is complete, or a stop is requested.

        Raises:
            StoreError: the journal can't be written.
        """
        try:
            executor = self._engine(self._plan, None)
            try:
                self._calibrate(executor)
                self._sample(executor)
            finally:
                executor.shutdown(wait=True, cancel_futures=True, kill_workers=True)
            self._scale()
        except _StopError:
            return
        self._journal.complete = True

    # --- one at a time ---

    def _calibrate(self, executor: Engine) -> None:
        for series in self._plan.series:
            if series.name in self._journal.calibrations or series.name in self._journal.given_up:
                continue
            self._tell(f"calibrating {series.name}")
            task = dataclasses.replace(series.task, cores=self._cores.reserved)
            for attempt in range(_FAILURES_MOST):
                found: Calibration | _Problem = self._outcome(executor.submit(timing.calibrate, task))
                if not isinstance(found, _Problem):
                    self._journal.calibrated(series.name, found)
                    break
                # What was raised, or took too much, would be again; a crash may have been chance.
                if found.kind != "crashed" or attempt == _FAILURES_MOST - 1:
                    self._journal.give_up(series.name, f"it can't be calibrated: {found.sentence}")
                    break

    def _sample(self, executor: Engine) -> None:
        number = 0
        while any(self._wants(series.name) for series in self._plan.series):
            turns = list(self._plan.series)
            # All are shuffled, whoever is to be sampled: so the order of a round is the same after a resume.
            random.Random(f"{self._order} {number}").shuffle(turns)  # noqa: S311 - an order, no secret
            for series in turns:
                taken = any(sample.round == number for sample in self._journal.samples(series.name))
                if not taken and self._wants(series.name):
                    self._take(executor, series, number)
            number += 1

    def _take(self, executor: Engine, series: SeriesPlan, number: int) -> None:
        """Take one sample."""
        self._tell(series.name)
        calibration = self._journal.calibrations[series.name]
        task = dataclasses.replace(
            series.task, loops=calibration.loops, values=calibration.values, cores=self._cores.reserved
        )
        started = time.time()
        future = executor.submit(timing.take_sample, task)
        found: Timing | _Problem = self._outcome(future)
        report = getattr(future, "report", None)
        sample = Sample(
            round=number,
            loops=calibration.loops,
            started_at=started,
            peak_rss_bytes=report().peak_rss_bytes if report is not None else None,
        )
        if not isinstance(found, _Problem):
            self._journal.sampled(series.name, dataclasses.replace(sample, **vars(found)))
            return
        self._journal.sampled(series.name, dataclasses.replace(sample, failure=found.kind, error=found.sentence))
        latest = self._journal.samples(series.name)[-_FAILURES_MOST:]
        if len(latest) == _FAILURES_MOST and all(each.failure for each in latest):
            self._journal.give_up(series.name, f"its last {_FAILURES_MOST} samples have failed: {found.sentence}")

    def _wants(self, name: str) -> bool:
        """Whether a series needs another sample."""
        if name in self._journal.given_up:
            return False
        settings = self._plan.settings
        samples = self._journal.samples(name)
        if settings.sample_count is not None:
            return len(samples) < settings.sample_count
        good = [sample for sample in samples if sample.failure is None]
        if len(samples) >= SAMPLES_MOST:
            return False
        if settings.min_time is not None:
            timed = sum(sum(sample.values) * sample.loops for sample in good)
            return len(good) < _SAMPLES_LEAST or timed < settings.min_time
        assert settings.target_rse is not None
        if len(good) < _RSE_LEAST:
            return True
        return relative_error([sample.seconds for sample in good]) > settings.target_rse

    # --- several at a time ---

    def _scale(self) -> None:
        widths = self._plan.settings.widths
        if not widths:
            return
        names = [series for series in self._plan.series if series.name not in self._journal.given_up]
        for number in range(self._plan.settings.scaling_rounds):
            todo = [(series, width) for series in names for width in widths]
            random.Random(f"{self._order} scaling {number}").shuffle(todo)  # noqa: S311 - an order, no secret
            for series, width in todo:
                found = self._journal.scaling(series.name) or self._begin_scaling(series)
                known = any(run.round == number and run.width == width for run in found.runs)
                if not known and width not in found.given_up:
                    self._run_batch(series, width, number, found)

    def _begin_scaling(self, series: SeriesPlan) -> Scaling:
        widths = self._plan.settings.widths
        found = Scaling(
            name=series.name,
            widths=widths,
            jobs=batch_size(widths),
            loops=self._journal.calibrations[series.name].loops,
        )
        self._journal.scaling_begun(found)
        return found

    def _run_batch(self, series: SeriesPlan, width: int, number: int, scaling: Scaling) -> None:
        """Run the batch once at one width."""
        self._tell(f"{series.name} with {width} {'worker' if width == 1 else 'workers'}")
        settings = self._plan.settings
        task = dataclasses.replace(
            series.task, loops=scaling.loops, cores=self._cores.for_width(width * settings.threads)
        )
        started = time.time()
        seconds = None
        executor = self._engine(self._plan, width)
        try:
            found = self._warm(executor, task, width)
            if not isinstance(found, _Problem):
                begun = time.perf_counter()
                found = self._batch(executor, [task] * scaling.jobs)
                seconds = time.perf_counter() - begun
        finally:
            executor.shutdown(wait=True, cancel_futures=True, kill_workers=True)
        problem = found if isinstance(found, _Problem) else None
        run = ScalingRun(
            round=number,
            width=width,
            seconds=None if problem else seconds,
            started_at=started,
            error=problem.sentence if problem else None,
        )
        self._journal.scaled(series.name, run)
        known = self._journal.scaling(series.name)
        assert known is not None
        latest = [each for each in known.runs if each.width == width][-_FAILURES_MOST:]
        if problem and len(latest) == _FAILURES_MOST and all(each.error for each in latest):
            reason = f"its last {_FAILURES_MOST} runs have failed: {problem.sentence}"
            self._journal.give_up_width(series.name, width, reason)

    def _warm(self, executor: Engine, task: Task, width: int) -> set[int] | _Problem:
        """Have every worker of a pool set its call up and run it; returns their process ids."""
        seen: set[int] = set()
        in_vain = 0
        while len(seen) < width and in_vain < _WARM_TRIES:
            found = self._batch(executor, [task] * width)
            if isinstance(found, _Problem):
                return found
            in_vain = 0 if found - seen else in_vain + 1
            seen |= found
        return seen

    def _batch(self, executor: Engine, tasks: Sequence[Task]) -> set[int] | _Problem:
        """Run tasks beside one another; returns the process ids of the workers.  At a failure the rest is cancelled."""
        futures = [executor.submit(timing.run_loops, task) for task in tasks]
        pids: set[int] = set()
        problem: _Problem | None = None
        for future in futures:
            found: int | _Problem = self._outcome(future, others=futures)
            if not isinstance(found, _Problem):
                pids.add(found)
            elif problem is None:
                problem = found
                for other in reversed(futures):
                    other.cancel()
        return problem or pids

    # --- waiting ---

    def _outcome(
        self, future: concurrent.futures.Future[Any], others: Sequence[concurrent.futures.Future[Any]] = ()
    ) -> Any:
        """What a task gave, or the `_Problem` that it had.

        Raises:
            _StopError: a stop was requested; what was running has ended.
        """
        self._wait(future, others)
        if future.cancelled():
            return _Problem("cancelled", "it was cancelled")
        error = future.exception()
        if error is not None:
            if isinstance(error, SerializationError):
                said = " ".join(str(error.__cause__ or error).split())
                return _Problem(
                    _kind(error), f"the function, its setup or an argument can't be sent to a worker: {said}"
                )
            report = getattr(future, "report", None)
            cause = report().cause if report is not None else None
            return _Problem(_kind(error), cause or f"{type(error).__name__}: {' '.join(str(error).split())}")
        found = future.result()
        if not isinstance(found, Failure):
            return found
        if found.stage == "clock":
            return _Problem("raised", found.error)
        where = {"setup": "the setup fails", "first call": "its first call fails", "call": "a call fails"}
        return _Problem("raised", f"{where[found.stage]}: {found.error}")

    def _wait(self, future: concurrent.futures.Future[Any], others: Sequence[concurrent.futures.Future[Any]]) -> None:
        events = self._stop.events
        future.add_done_callback(events.put)
        cancelled = False
        while True:
            if self._stop.requested and not cancelled:
                cancelled = True
                for each in (*reversed(others), future):
                    each.cancel()
            if events.get() is future:
                break
        if self._stop.requested:
            raise _StopError

    def _tell(self, doing: str) -> None:
        if self._stop.requested:
            raise _StopError
        if self._progress is None:
            return
        settings = self._plan.settings
        total: float | None = None
        if settings.sample_count is not None:
            lost = len(self._journal.given_up)
            left = len(self._plan.series) - lost
            total = float(left * (settings.sample_count + settings.scaling_rounds * len(settings.widths)))
        self._progress(float(self._journal.count), total, doing)


def _kind(error: BaseException) -> str:
    for kind, name in (
        (MemoryLimitExceeded, "memory limit"),
        (TimeLimitExceeded, "time limit"),
        (WorkerDiedError, "crashed"),
        (SerializationError, "not serialised"),
    ):
        if isinstance(error, kind):
            return name
    return "raised"


def batch_size(widths: Sequence[int]) -> int:
    """How many jobs a batch has that is run at several widths.

    Example:
        >>> batch_size([1, 2, 4]), batch_size([1, 3]), batch_size([5, 7, 9])
        (8, 6, 18)
    """
    least = _JOBS_PER_WORKER * max(widths)
    whole = math.lcm(*widths)
    return -(-least // whole) * whole if whole <= _JOBS_TIMES * least else least
