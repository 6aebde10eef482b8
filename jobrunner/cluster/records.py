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


class KnownNode:
    """A node, as the keeper sees it."""

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
        # The numbers of the shared objects that it has.
        self.shares: set[int] = set()
        # What was printed there and may not be written yet, in order: its number there, and at this process's writer.
        self.printed: deque[tuple[int, int]] = deque()
        # How many bytes of what was printed there it will not be told, so far, that they are written.
        self.printed_bytes = 0

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
        nodes: where they do: the names of the nodes that it could have a place on.
    """

    first: ClusterJob | None
    yielding: frozenset[int] = frozenset()
    nodes: frozenset[str] = frozenset()

    def bars(self, threads: int, node: str) -> bool:
        """Whether jobs of so many threads are not to be sent to a node."""
        return threads in self.yielding and node in self.nodes
