"""What a peer is: how a library's pool is started, given jobs, and ended."""

from __future__ import annotations

import abc
import dataclasses
import importlib.metadata
import importlib.util
import math
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

__all__ = ["Pace", "Peer", "installed", "settings_of", "version_of"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pace:
    """What part of the usual number of jobs a slow library is given, so that a run comes to an end.

    round_trips: of those one after the other.
    jobs: of those all at once.
    items: of those of a ``map``.
    """

    round_trips: float = 1.0
    jobs: float = 1.0
    items: float = 1.0

    def round_trips_of(self, number: int) -> int:
        """How many round trips to make instead of so many."""
        return max(min(number, 10), math.ceil(number * self.round_trips))

    def jobs_of(self, number: int, least: int = 50) -> int:
        """How many jobs to run instead of so many."""
        return max(min(number, least), math.ceil(number * self.jobs))

    def items_of(self, number: int) -> int:
        """How many items to map instead of so many."""
        return max(min(number, 1000), math.ceil(number * self.items))

    def __str__(self) -> str:
        parts = [
            f"{part:.3g} of the {name}"
            for part, name in ((self.round_trips, "round trips"), (self.jobs, "jobs"), (self.items, "map's items"))
            if part != 1.0
        ]
        return ", ".join(parts)


class Peer(abc.ABC):
    """A process pool of a library.

    Args:
        workers: how many jobs run at a time.

    Attributes:
        name: what it is called here.
        module: the top-level module that a user imports first.
        executor: the statement that imports the executor itself.
        settings: what matters of how it is set, as text; empty for plain defaults.  See `settings_of`.
        pace: how many jobs it is given.
        cancels: whether it can end a job that is running.
        queues: whether jobs can be handed in while others run.
        queue_limit: how many may wait at a time before it takes too long.
        assigns_ahead: whether a job is bound to a worker when it is handed in, though another may be free first.
        shares: whether an argument of many jobs is sent less than once a job.
        reports_crash: whether a job whose worker dies comes to an end.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    executor: ClassVar[str]
    settings: ClassVar[str] = ""
    pace: ClassVar[Pace] = Pace()
    cancels: ClassVar[bool] = False
    queues: ClassVar[bool] = True
    queue_limit: ClassVar[int] = 1_000_000
    assigns_ahead: ClassVar[bool] = False
    shares: ClassVar[bool] = False
    reports_crash: ClassVar[bool] = True

    def __init__(self, workers: int) -> None:
        self.workers = workers
        #: the library's own pool, once `start` has made it
        self.pool: Any = None

    @abc.abstractmethod
    def start(self) -> None:
        """Make the pool."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Hand in one job; returns what the library returns for it."""
        return self.pool.submit(function, *args)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        """Wait for a job that `submit` has returned; raises what it raised, or a time-out."""
        return handle.result(timeout)

    def results(self, handles: Sequence[Any]) -> list[Any]:
        """Wait for many."""
        return [self.result(handle) for handle in handles]

    def run(self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> list[Any]:
        """The results of many jobs, handed in one by one all at once."""
        return self.results([self.submit(function, *args) for args in arguments])

    def map(self, function: Callable[..., Any], items: range) -> Iterable[Any]:
        """The results of `function` over the items, in order, at the library's best chunk size."""
        return self.pool.map(function, items, chunksize=self.chunksize(len(items)))  # type: ignore[no-any-return]

    def chunksize(self, items: int) -> int:
        """Four chunks a worker, as `multiprocessing.Pool.map` chooses by itself."""
        return max(1, -(-items // (4 * self.workers)))

    def share(self, value: Any) -> Any:
        """What to hand in as the argument instead of a value that many jobs get."""
        return value

    def cancel(self, handle: Any) -> None:
        """End a running job, so that its slot is free for another."""
        raise NotImplementedError(f"{self.name} can't")

    def mend(self) -> bool:
        """Do what its documentation says after a worker has died, so that the pool works; whether it is another."""
        return False

    def close(self) -> None:
        """End the pool; no job is running."""
        self.pool.shutdown()


def installed(peer: type[Peer]) -> bool:
    """Whether the peer's library can be imported here."""
    return importlib.util.find_spec(peer.module) is not None


def version_of(peer: type[Peer]) -> str:
    """The version of the peer's library; for the standard library's, Python's."""
    top = peer.module.partition(".")[0]
    return platform.python_version() if top in sys.stdlib_module_names else importlib.metadata.version(top)


def settings_of(peer: type[Peer]) -> str:
    """How the peer is set, for people."""
    import multiprocessing

    settings = peer.settings.format(start_method=multiprocessing.get_start_method()) or "defaults"
    limit = f"queues of up to {peer.queue_limit:,}" if peer.queue_limit < Peer.queue_limit else ""
    return "; ".join(filter(None, [settings, str(peer.pace), limit]))
