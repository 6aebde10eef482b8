"""The jobs that wait for a lane."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from jobrunner.executors.records import Job, JobState

__all__ = ["JobQueue"]


class JobQueue:
    """Jobs by priority, larger first, and in order within one."""

    def __init__(self) -> None:
        self._by_priority: dict[float, deque[Job]] = {}
        # The priorities that have a deque, negated, as a heap.
        self._heap: list[float] = []
        #: jobs in it that are still QUEUED
        self.count = 0

    def _deque(self, priority: float) -> deque[Job]:
        found = self._by_priority.get(priority)
        if found is None:
            found = self._by_priority[priority] = deque()
            heapq.heappush(self._heap, -priority)
        return found

    def append(self, job: Job) -> None:
        """Put a job behind those of its priority."""
        jobs = self._by_priority.get(job.options.priority)
        (self._deque(job.options.priority) if jobs is None else jobs).append(job)
        self.count += 1

    def append_front(self, job: Job) -> None:
        """Put a job before those of its priority: it was sent, and had not started."""
        self._deque(job.options.priority).appendleft(job)
        self.count += 1

    def head(self) -> Job | None:
        """The job to be assigned next; it stays."""
        while self._heap:
            jobs = self._by_priority[-self._heap[0]]
            # Cancelled jobs are left where they are until they come to the front.
            while jobs and jobs[0].state is not JobState.QUEUED:
                jobs.popleft()
            if jobs:
                return jobs[0]
            del self._by_priority[-heapq.heappop(self._heap)]
        return None

    def pop(self) -> Job:
        """Take the job that `head` showed."""
        self.count -= 1
        return self._by_priority[-self._heap[0]].popleft()

    def __iter__(self) -> Iterator[Job]:
        for jobs in self._by_priority.values():
            for job in jobs:
                if job.state is JobState.QUEUED:
                    yield job
