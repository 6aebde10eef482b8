"""What a keeper has of the nodes and of the leases on them; its thread alone."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from jobrunner.cluster.job import ClusterJob
from jobrunner.options import JobOptions

__all__ = ["KnownNode", "Lease", "Precedence"]


class _Use:
    """What the jobs of one lease take up of a node: they are one after another, as far as there is no room beside them.

    Attributes:
        jobs: how many there are.
        memory: bytes of the largest that there was.
    """

    __slots__ = ("jobs", "memory")

    def __init__(self) -> None:
        self.jobs = self.memory = 0


class KnownNode:
    """A node, as the keeper sees it.

    Its lanes run a job as soon as there are cores and memory for it, in the order in which they come: one for which
    there is none waits there, and so do those that come after it.
    """

    def __init__(self, name: str, description: Mapping[str, Any]) -> None:
        self.name = name
        self.description = description
        self.host: str = description["host"]
        self.cores: int = description["cores"]
        self.memory: int = description["memory"]
        self.threads: int = description["threads"]
        # By how much its clock is ahead; what is less comes from the message's way.
        ahead = description["time"] - time.time()
        self.ahead = ahead if abs(ahead) > 0.5 else 0.0
        self.outbox: list[tuple[Any, ...]] = []
        self.posting = False
        # How many operations the next message may have, where one before was too large; None: all that there are.
        self.most: int | None = None
        self.jobs: dict[int, ClusterJob] = {}
        # What they take up, by lease, and what that leaves; how many cores those have that were seen to run.
        self._uses: dict[int | None, _Use] = {}
        self.free_cores: int = self.cores
        self.free_memory: int = self.memory
        self.cores_at_work = 0
        # The numbers of the shared objects that it has.
        self.shares: set[int] = set()
        # What was printed there and may not be written yet, in order: its number there, and at this process's writer.
        self.printed: deque[tuple[int, int]] = deque()
        # How many bytes of what was printed there it will not be told, so far, that they are written.
        self.printed_bytes = 0

    def add(self, job: ClusterJob) -> None:
        """A job is sent there, for its lease."""
        self.jobs[job.order] = job
        use = self._uses.get(job.lease)
        if use is None:
            use = self._uses[job.lease] = _Use()
            self.free_cores -= job.options.threads
        use.jobs += 1
        more = job.options.memory_bytes - use.memory
        if more > 0:
            use.memory += more
            self.free_memory -= more

    def saw_running(self, job: ClusterJob) -> None:
        """One of its jobs has started."""
        if not job.seen_running:
            self.cores_at_work += job.options.threads

    def remove(self, job: ClusterJob) -> None:
        """A job is there no more."""
        del self.jobs[job.order]
        if job.seen_running:
            self.cores_at_work -= job.options.threads
        use = self._uses[job.lease]
        use.jobs -= 1
        if not use.jobs:
            del self._uses[job.lease]
            self.free_cores += job.options.threads
            self.free_memory += use.memory

    def has_room(self, threads: int, memory: int, lease: int | None = None) -> bool:
        """Whether a job of so many threads and bytes would wait there for none but those of its own lease."""
        use = self._uses.get(lease)
        if use is not None:
            return threads <= self.threads and memory <= self.free_memory + use.memory
        return threads <= min(self.threads, self.free_cores) and memory <= self.free_memory

    def is_at_work(self, threads: int) -> bool:
        """Whether what was seen to run there leaves less than so many cores."""
        return self.cores_at_work + threads > self.cores

    def fits(self, threads: int, memory: int) -> bool:
        """Whether a job of so many threads and bytes could run there."""
        return threads <= self.threads and memory <= self.memory

    def takes(self, options: JobOptions) -> bool:
        """Whether a job of such options could run there."""
        return self.fits(options.threads, options.memory_bytes)

    def __str__(self) -> str:
        return f"{self.name} on {self.host}"


class Lease:
    """A slot of a node that the engine has given, or is to give.

    Args:
        number: its number.
        threads: the cores that it is to have.
        memory: the bytes that a job for it needs.
        places: the names of the nodes that will do; None: all.
    """

    def __init__(self, number: int, threads: int, memory: int, places: frozenset[str] | None) -> None:
        self.number = number
        self.threads = threads
        self.memory = memory
        self.places = places
        self.asked = time.monotonic()
        # When it is to be given back; from when it has its place.
        self.until = math.inf
        self.node: KnownNode | None = None
        # Where it is, and since when, though that node has not told of itself yet.
        self.place: str | None = None
        self.placed = math.inf
        # What it was sent, and what of that was seen to run; how many it may have beside these.
        self.jobs: set[ClusterJob] = set()
        self.running: set[ClusterJob] = set()
        self.depth: float = math.inf
        self.idle_since = self.asked

    @property
    def waits(self) -> bool:
        """Whether the engine has not given it a place yet."""
        return self.node is None and self.place is None

    def remove(self, job: ClusterJob) -> None:
        """A job is at its node no more."""
        self.jobs.discard(job)
        self.running.discard(job)
        if not self.jobs:
            self.depth = math.inf
            self.idle_since = time.monotonic()

    def is_held_up(self, now: float, seconds: float) -> bool:
        """Whether a job of its has been running for so long."""
        return any(now - job.seen > seconds for job in self.running)


class Precedence(NamedTuple):
    """What the next of all jobs has before those of other numbers of threads.

    Attributes:
        first: that job, the next for which there is a node; None: there is none.
        yielding: the numbers of threads that make room for it.
        nodes: where they do: the names of the nodes that it could have a place on; or that of the one where it has a
            place already, and waits for room.
    """

    first: ClusterJob | None
    yielding: frozenset[int] = frozenset()
    nodes: frozenset[str] = frozenset()

    def bars(self, threads: int, node: str) -> bool:
        """Whether jobs of so many threads are not to be sent to a node."""
        return threads in self.yielding and node in self.nodes

    def keeps(self, node: KnownNode, job: ClusterJob) -> bool:
        """Whether a node is kept for a job, though there is no room yet, from those behind it."""
        return job is self.first and node.name in self.nodes and node.takes(job.options)
