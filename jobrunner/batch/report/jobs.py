"""The jobs of a batch, read from the store once: a few numbers each, so that a million of them fit into memory."""

from __future__ import annotations

import dataclasses
from array import array
from typing import Final

from jobrunner.batch.records import BatchRecord
from jobrunner.batch.store import Store
from jobrunner.storage.connection import store_errors

__all__ = ["DONE", "FAILED", "RETRIED", "STATUSES", "Jobs", "read_jobs"]

#: What `Jobs.status` counts: the status of an outcome.
STATUSES: Final = ("done", "failed", "retried")
DONE, FAILED, RETRIED = range(3)

_QUERY = """
    SELECT o.status, o.started_at, o.finished_at, o.recorded_at, o.run_s, o.cpu_s, o.peak_rss_bytes, o.host, o.pid,
        o.runner, p.place, p.status, p.outcome = o.id
    FROM point p JOIN outcome o ON o.point = p.id
    WHERE p.batch = ? AND p.place IS NOT NULL
"""


@dataclasses.dataclass
class Jobs:
    """The jobs that ran to an end, an entry each in the arrays `start` to `place`, in no order.

    Attributes:
        start, end: when it ran.
        worker: the place of its process in `workers`.
        status: of its outcome, a place in `STATUSES`.
        place: its point's.
        workers: the processes, ``(host, pid)``.
        run_s, rss: what is known of run times, and of peak memory, by status; retried ones count as failed.
        done_at, failed_at: when the points that are so now became so.
        of_runner: by a runner's number its jobs, and when the last of them was recorded.
        total_run_s, total_cpu_s: over all jobs.
        timed, timed_run_s: how many have a known CPU time, and their run time.
    """

    start: array[float] = dataclasses.field(default_factory=lambda: array("d"))
    end: array[float] = dataclasses.field(default_factory=lambda: array("d"))
    worker: array[int] = dataclasses.field(default_factory=lambda: array("L"))
    status: array[int] = dataclasses.field(default_factory=lambda: array("b"))
    place: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    workers: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    run_s: tuple[array[float], array[float]] = dataclasses.field(default_factory=lambda: (array("d"), array("d")))
    rss: tuple[array[float], array[float]] = dataclasses.field(default_factory=lambda: (array("d"), array("d")))
    done_at: array[float] = dataclasses.field(default_factory=lambda: array("d"))
    failed_at: array[float] = dataclasses.field(default_factory=lambda: array("d"))
    of_runner: dict[int, tuple[int, float]] = dataclasses.field(default_factory=dict)
    total_run_s: float = 0.0
    total_cpu_s: float = 0.0
    timed: int = 0
    timed_run_s: float = 0.0
    count: int = 0
    retried: int = 0


def read_jobs(store: Store, batch: BatchRecord) -> Jobs:
    """Every job of the batch that ran to an end."""
    jobs = Jobs()
    workers: dict[tuple[str, int], int] = {}
    with store_errors(store.path):
        for row in store.connection.execute(_QUERY, (batch.id,)):
            outcome, started, finished, recorded, run_s, cpu_s, rss, host, pid, runner, place, now, current = row
            status = STATUSES.index(outcome)
            failed = int(status != DONE)
            jobs.count += 1
            jobs.retried += status == RETRIED
            if run_s is not None:
                jobs.run_s[failed].append(run_s)
                jobs.total_run_s += run_s
            if cpu_s is not None:
                jobs.total_cpu_s += cpu_s
                jobs.timed += 1
                jobs.timed_run_s += run_s or 0.0
            if rss is not None:
                jobs.rss[failed].append(rss)
            count, last = jobs.of_runner.get(runner, (0, recorded))
            jobs.of_runner[runner] = count + 1, max(last, recorded)
            end = finished if finished is not None else recorded
            if current and now == outcome:
                (jobs.failed_at if failed else jobs.done_at).append(end)
            start = started if started is not None else end - run_s if run_s is not None else None
            if start is None:  # it never started
                continue
            worker = (host or "?", pid or 0)
            jobs.start.append(start)
            jobs.end.append(max(start, end))
            jobs.worker.append(workers.setdefault(worker, len(workers)))
            jobs.status.append(status)
            jobs.place.append(place)
    jobs.workers = list(workers)
    return jobs
