"""Jobs that wait to be sent to a node; those of one number of threads are a queue.  The keeper's thread alone."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable

from jobrunner.cluster.job import ClusterJob, State

__all__ = ["FAIR_S", "Entry", "Queues"]

#: For how long the first of all jobs waits before jobs of another number of threads make room for it.
FAIR_S = 1.0

#: (-priority, in which order they came, job): the least is the next.
Entry = tuple[float, int, ClusterJob]


class Queues:
    """The queues, by numbers of threads.

    A job that is over is left in its queue, and passed over when its turn comes; it counts no more.
    """

    def __init__(self) -> None:
        self._heaps: dict[int, list[Entry]] = {}
        # How many wait, by the bytes that they need.
        self._needs: dict[int, Counter[int]] = {}

    def push(self, job: ClusterJob) -> None:
        """Have a job wait, in its place: a second time, too."""
        threads = job.options.threads
        heapq.heappush(self._heaps.setdefault(threads, []), (-job.options.priority, job.seq, job))
        self._needs.setdefault(threads, Counter())[job.options.memory_bytes] += 1

    def left(self, job: ClusterJob) -> None:
        """A job waits no more: it was sent, or is over."""
        needs = self._needs[job.options.threads]
        needs[job.options.memory_bytes] -= 1
        if not needs[job.options.memory_bytes]:
            del needs[job.options.memory_bytes]

    def kinds(self) -> list[int]:
        """The numbers of threads of which jobs wait: that of the next job is the first."""
        for threads in list(self._heaps):
            if self.head(threads) is None:
                del self._heaps[threads]
        return sorted(self._heaps, key=lambda threads: self._heaps[threads][0][:2])

    def count(self, threads: int) -> int:
        """How many wait."""
        return self.needs(threads).total()

    def needs(self, threads: int) -> Counter[int]:
        """How many wait, by the bytes of memory that they need."""
        return self._needs.get(threads, Counter())

    def head(self, threads: int) -> ClusterJob | None:
        """The next job of a queue, which stays there."""
        heap = self._heaps.get(threads)
        while heap:
            if heap[0][2].state is State.QUEUED:
                return heap[0][2]
            heapq.heappop(heap)
        return None

    def pop(self, threads: int) -> Entry:
        """Take out the next, which `head` has found."""
        return heapq.heappop(self._heaps[threads])

    def put_back(self, threads: int, entries: Iterable[Entry]) -> None:
        """What was taken out waits again where it did."""
        for entry in entries:
            heapq.heappush(self._heaps[threads], entry)

    def waiting(self, threads: int, memory: int | None = None) -> list[ClusterJob]:
        """All that wait in a queue, or those of them that need so much memory; in no order."""
        return [
            job
            for _, _, job in self._heaps.get(threads, ())
            if job.state is State.QUEUED and memory in (None, job.options.memory_bytes)
        ]

    def clear(self) -> None:
        """Forget all."""
        self._heaps.clear()
        self._needs.clear()

    def first(self, runs_anywhere: Callable[[ClusterJob], bool]) -> ClusterJob | None:
        """The next of all jobs for which there is a node.

        Args:
            runs_anywhere: whether there is a node for a job.
        """
        heads = (self._heaps[threads][0][2] for threads in self.kinds())
        return next((job for job in heads if runs_anywhere(job)), None)

    def yielding(self, first: ClusterJob, others: Iterable[int]) -> set[int]:
        """The numbers of threads whose jobs make room for the first of all, which is of another number.

        Args:
            first: that job.
            others: numbers of threads that something is there for, though no jobs wait.
        """
        overdue = time.time() - first.submitted > FAIR_S
        heads = {threads: self._heaps[threads][0][0] for threads in self.kinds()}
        kinds = {*heads, *others} - {first.options.threads}
        return {kind for kind in kinds if kind not in heads or heads[kind] > -first.options.priority or overdue}
