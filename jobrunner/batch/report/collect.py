"""Reads all of a report from a store, as it is at one moment."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence

from jobrunner import __version__
from jobrunner.batch.records import BatchRecord, RunnerRecord
from jobrunner.batch.report.distributions import histogram
from jobrunner.batch.report.failures import read_failures
from jobrunner.batch.report.jobs import Jobs, read_jobs
from jobrunner.batch.report.model import ReportData, Run, Summary
from jobrunner.batch.report.parameters import read_parameters
from jobrunner.batch.report.results import read_results
from jobrunner.batch.report.timeline import make_axis, progress, timeline
from jobrunner.batch.store import Store
from jobrunner.storage.connection import store_errors
from jobrunner.storage.owners import SILENT_S, Owner

__all__ = ["collect"]

_RUNS = 100
_NOTES = 200
_NOTE = 2_000
#: Jobs that ran for less than this together, in seconds, tell nothing about their use of the CPU.
_LEAST_RUN_S = 1.0
#: CPU time of a job beyond its run time that may be what is around the function, in seconds.
_AROUND_S = 0.02
#: How far CPU time may exceed run time where all is right: the two come from different clocks.
_SLACK = 0.02


def collect(store: Store, batch: BatchRecord) -> ReportData:
    """Everything that the report of a batch tells.

    Args:
        store: the store, open.
        batch: one of its batches.

    Raises:
        StoreError: the store can't be read.
    """
    now = time.time()
    with _one_moment(store):
        jobs = read_jobs(store, batch)
        runs = [_run(runner, jobs, now) for runner in store.runners(batch)]
        summary = _summary(store, batch, jobs, runs)
        # A run belongs to the axis as a whole: what lies between two jobs of it is no pause.
        spans = [*zip(jobs.start, jobs.end, strict=True), *((run.started_at, run.ended_at) for run in runs if run.jobs)]
        axis = make_axis(spans) if jobs.start else None
        histograms = [
            histogram(name, *values) for name, values in (("run_s", jobs.run_s), ("peak_rss_bytes", jobs.rss))
        ]
        parameters = read_parameters(store, batch)
        return ReportData(
            made_at=now,
            version=__version__,
            store=str(store.path),
            summary=summary,
            timeline=timeline(jobs, axis) if axis is not None else None,
            progress=progress(jobs, axis, summary.total) if axis is not None else None,
            histograms=tuple(found for found in histograms if found is not None),
            failures=read_failures(store, batch),
            results=read_results(store, batch, parameters),
            parameters=parameters,
            notes=tuple((note.at, note.kind, note.text[:_NOTE]) for note in store.notes(batch)[-_NOTES:]),
            code=batch.code,
            machine=batch.machine,
        )


@contextlib.contextmanager
def _one_moment(store: Store) -> Iterator[None]:
    """Have all that is read in here be of one moment, where that holds up nobody who writes."""
    journal = store.rows("PRAGMA journal_mode")[0][0]
    if journal != "wal":
        yield
        return
    store.rows("BEGIN")
    try:
        yield
    finally:
        with store_errors(store.path):
            store.connection.rollback()


def _run(runner: RunnerRecord, jobs: Jobs, now: float) -> Run:
    count, last = jobs.of_runner.get(runner.id, (0, runner.started_at))
    state = "ended"
    if runner.ended_at is None:
        owner = Owner(host=runner.host, machine=runner.machine, pid=runner.pid, started=runner.pid_started)
        alive = owner.alive() if owner.visible() else now - runner.seen_at < SILENT_S
        state = "running" if alive else "lost"
    ended = runner.ended_at if runner.ended_at is not None else max(runner.seen_at, last)
    return Run(
        host=runner.host,
        pid=runner.pid,
        workers=runner.workers,
        started_at=runner.started_at,
        ended_at=max(runner.started_at, ended),
        state=state,
        jobs=count,
    )


def _summary(store: Store, batch: BatchRecord, jobs: Jobs, runs: Sequence[Run]) -> Summary:
    counts = store.counts(batch)
    active_s = _covered([(run.started_at, run.ended_at) for run in runs])
    worker_s = sum(run.workers * (run.ended_at - run.started_at) for run in runs)
    final = len(jobs.done_at) + len(jobs.failed_at)
    threads = _threads(batch)
    return Summary(
        name=batch.name,
        target=batch.target,
        created_at=batch.created_at,
        seed=batch.seed,
        seed_drawn=batch.seed_drawn,
        replicates=batch.replicates,
        options=batch.options,
        policy=batch.policy,
        total=counts.total,
        pending=counts.pending,
        leased=counts.leased,
        done=counts.done,
        failed=counts.failed,
        cancelled=counts.cancelled,
        removed=store.removed(batch),
        retried=jobs.retried,
        jobs=jobs.count,
        running=any(run.state == "running" for run in runs),
        began_at=min((run.started_at for run in runs), default=None),
        ended_at=max((run.ended_at for run in runs), default=None),
        workers=_most_workers(runs),
        active_s=active_s,
        run_s=jobs.total_run_s,
        cpu_s=jobs.total_cpu_s,
        worker_s=worker_s,
        rate=final / active_s if active_s > 0 and final else None,
        threads=threads,
        cpu_efficiency=_cpu_efficiency(jobs, threads),
        busy=jobs.total_run_s / worker_s if worker_s > 0 and jobs.count else None,
        hosts=tuple(sorted({host for host, _ in jobs.workers})),
        runs=tuple(runs[-_RUNS:]),
        runs_total=len(runs),
    )


def _threads(batch: BatchRecord) -> int:
    threads = batch.options.get("threads")
    return threads if isinstance(threads, int) and threads > 0 else 1


def _cpu_efficiency(jobs: Jobs, threads: int) -> float | None:
    """CPU time a second and thread of run time; None where jobs are too short for it to mean something."""
    if jobs.timed_run_s < _LEAST_RUN_S:
        return None
    may_s = jobs.timed_run_s * threads
    if jobs.total_cpu_s <= may_s * (1 + _SLACK):
        return min(1.0, jobs.total_cpu_s / may_s)
    # A job's CPU time has what is around the function as well, such as reading arguments: of short jobs it may be most.
    if jobs.total_cpu_s - may_s < _AROUND_S * jobs.timed:
        return None
    return jobs.total_cpu_s / may_s


def _most_workers(runs: Sequence[Run]) -> int:
    """How many workers all runs had together, when these were most."""
    changes = sorted(
        change for run in runs for change in ((run.started_at, run.workers), (run.ended_at, -run.workers))
    )  # of one moment, ends come first
    return max(itertools.accumulate(number for _, number in changes), default=0)


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """How much time lies in at least one of the spans."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
