"""Watching the memory of jobs that have a limit.

A job is looked at as often as it could get to its limit: the more headroom it has left, the later.  Looking means to
add up the resident memory of its processes.  That counts a page that several map for each of them, so before a job is
ended the proportional memory has the word; what that finds to be shared is taken off until it is looked at anew.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jobrunner.executors.records import Job
from jobrunner.memory import proportional_bytes, resident_bytes, tree_of

__all__ = ["MemoryWatch", "Watched"]

# No job is expected to grow faster than this.
_GROWTH_PER_S = 4e9
# How far beyond its limit a job may get at that rate before it is looked at: a look costs some tenths of a millisecond.
_BEYOND_BYTES = 100e6
# The longest time between two looks.
_LATEST_S = 1.0
# A part of the time that reading proportional memory may take, where a job has more than its limit in shared pages.
_CONFIRM_SHARE = 0.1

_log = logging.getLogger("jobrunner")


class Watched(NamedTuple):
    """A job with a limit that a lane has.

    job: what the pool keeps of it.
    order: the number of its sending, by which it is known whether it still is where it was.
    pid: the lane's worker.
    limit: bytes.
    left: bytes that jobs before have left in the worker, for which it is not to blame.
    running: whether the worker has claimed it.
    """

    job: Job
    order: int
    pid: int
    limit: int
    left: int
    running: bool


class MemoryWatch:
    """The thread that watches one pool's jobs.

    Args:
        jobs: the jobs with a limit that lanes have; called on the thread.
        used: told how much a job uses, in bytes; likewise.
        exceeded: told when that is more than its limit; likewise.
    """

    def __init__(
        self,
        jobs: Callable[[], Sequence[Watched]],
        used: Callable[[Watched, int], None],
        exceeded: Callable[[Watched], None],
    ) -> None:
        self._jobs = jobs
        self._used = used
        self._exceeded = exceeded
        self._changed = threading.Condition()
        # Monotonic seconds at which to look next.
        self._due = math.inf
        self._closed = False
        # By sending: how many bytes were found to be shared, and when to find out anew.
        self._shared: dict[int, tuple[int, float]] = {}
        self._thread = threading.Thread(target=self._work, name="jobrunner-memory", daemon=True)
        self._thread.start()

    def notice(self, limit: int) -> None:
        """A job with such a limit was handed to a lane."""
        due = time.monotonic() + _interval(limit)
        if due < self._due:
            with self._changed:
                self._due = min(self._due, due)
                self._changed.notify()

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _work(self) -> None:
        while self._wait():
            try:
                due = self._look()
            except Exception:
                _log.exception("the memory of jobs could not be looked at")
                due = time.monotonic() + _LATEST_S
            with self._changed:
                self._due = min(self._due, due)

    def _wait(self) -> bool:
        """Wait until it is time to look; False when it is over."""
        with self._changed:
            while not self._closed:
                left = self._due - time.monotonic()
                if left <= 0:
                    self._due = math.inf
                    return True
                self._changed.wait(None if left == math.inf else left)
            return False

    def _look(self) -> float:
        """Look at every job once; when to look again."""
        jobs = self._jobs()
        orders = {job.order for job in jobs}
        self._shared = {order: found for order, found in self._shared.items() if order in orders}
        due = math.inf
        for job in jobs:
            if not job.running:
                due = min(due, time.monotonic() + _interval(job.limit + job.left - resident_bytes([job.pid])))
                continue
            used = self._measure(job)
            self._used(job, used)
            if used > job.limit:
                self._exceeded(job)
            due = min(due, time.monotonic() + _interval(job.limit - used))
        return due

    def _measure(self, job: Watched) -> int:
        """The memory of a job's processes, pages that they share counted once."""
        pids = tree_of(job.pid)
        resident = max(0, resident_bytes(pids) - job.left)
        if resident <= job.limit:
            return resident
        shared, again_at = self._shared.get(job.order, (0, 0.0))
        began = time.monotonic()
        if resident - shared <= job.limit and began < again_at:
            return resident - shared
        used = max(0, min(resident, proportional_bytes(pids) - job.left))
        now = time.monotonic()
        self._shared[job.order] = resident - used, now + (now - began) / _CONFIRM_SHARE
        return used


def _interval(headroom: float) -> float:
    """Seconds in which a job with so much headroom can't get far beyond its limit."""
    return min(_LATEST_S, (max(0.0, headroom) + _BEYOND_BYTES) / _GROWTH_PER_S)
