"""Telling futures what their jobs came to, in the right moment: after what the jobs printed, warned of and logged.

A job that did none of that is told at once, by whoever took its outcome in, without any lock held.
"""

from __future__ import annotations

import threading
from collections import deque

from jobrunner.executors.future import CANCELLED, Settlement
from jobrunner.executors.output import OutputWriter
from jobrunner.executors.pool_job import PoolJob
from jobrunner.executors.services import run_callback

__all__ = ["Settler"]


class Settler:
    """Settles the futures of one pool's jobs.

    Args:
        writer: writes what jobs print.
    """

    def __init__(self, writer: OutputWriter) -> None:
        self._writer = writer
        # Jobs that are over and not told yet; filled and emptied by any thread.
        self._jobs: deque[tuple[PoolJob, Settlement]] = deque()
        # How many wait for the writer, or for a callback thread.
        self._waiting = 0
        self._changed = threading.Condition()

    def add(self, job: PoolJob, settlement: Settlement) -> None:
        """Note what a job came to; `settle` follows, when no lock is held."""
        self._jobs.append((job, settlement))

    def settle(self) -> None:
        """Tell the futures of the jobs that were noted."""
        jobs = self._jobs
        while jobs:
            try:
                job, settlement = jobs.popleft()
            except IndexError:  # another thread was quicker
                return
            if (job.noted or job.ticket > self._writer.done) and settlement is not CANCELLED:
                self._settle_later(job, settlement)
            else:
                _tell(job, settlement)

    def _settle_later(self, job: PoolJob, settlement: Settlement) -> None:
        """Tell a job's future when what it printed is written, and what it logged is passed on."""

        def tell() -> None:
            _tell(job, settlement)
            with self._changed:
                self._waiting -= 1
                self._changed.notify_all()

        with self._changed:
            self._waiting += 1
        # Callbacks are begun in order: those that pass on what it logged come before.
        if job.ticket <= self._writer.done:
            run_callback(tell)
        elif job.noted:
            self._writer.put(lambda: run_callback(tell))
        else:
            self._writer.put(tell)

    def join(self) -> None:
        """Wait until all that were noted are told, and all that was printed is written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
        # Jobs that were cancelled had printed something too.
        self._writer.drain()


def _tell(job: PoolJob, settlement: Settlement) -> None:
    """Tell those who hold a job what it came to."""
    future = job.future
    if future is not None:
        future.settle(settlement)
    if job.watcher is not None:
        job.watcher.ended(job, settlement)
