"""The libraries that are compared: one class each, which says how it is started, given jobs, and cancelled.

Each is used as its documentation recommends for speed, jobrunner with its defaults; the settings are printed with the
results.  A peer's library is imported by `start`, not before.
"""

from __future__ import annotations

import abc
import importlib
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

__all__ = ["PEERS", "Peer", "installed", "settings_of", "version_of"]


class Peer(abc.ABC):
    """A process pool of a library.

    Args:
        workers: how many jobs run at a time.

    Attributes:
        name: what it is called here.
        module: the top-level module that a user imports first.
        executor: the statement that imports the executor itself.
        settings: what matters of how it is set, as text; empty for plain defaults.  See `settings_of`.
        cancels: whether it can end a job that is running.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    executor: ClassVar[str]
    settings: ClassVar[str] = ""
    cancels: ClassVar[bool] = False

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

    def map(self, function: Callable[..., Any], items: range) -> Iterable[Any]:
        """The results of `function` over the items, in order, at the library's best chunk size."""
        return self.pool.map(function, items, chunksize=self.chunksize(len(items)))  # type: ignore[no-any-return]

    def chunksize(self, items: int) -> int:
        """Four chunks a worker, as `multiprocessing.Pool.map` chooses by itself."""
        return max(1, -(-items // (4 * self.workers)))

    def cancel(self, handle: Any) -> None:
        """End a running job, so that its slot is free for another."""
        raise NotImplementedError(f"{self.name} can't")

    def close(self) -> None:
        """End the pool; no job is running."""
        self.pool.shutdown()


class Jobrunner(Peer):
    """jobrunner's `LocalExecutor`, with its defaults: all that it guarantees is on."""

    name = "jobrunner"
    module = "jobrunner"
    executor = "from jobrunner import LocalExecutor"
    cancels = True

    def start(self) -> None:
        from jobrunner import LocalExecutor

        self.pool = LocalExecutor(max_workers=self.workers)

    def map(self, function: Callable[..., Any], items: range) -> Iterable[Any]:
        return self.pool.map(function, items)  # type: ignore[no-any-return]

    def cancel(self, handle: Any) -> None:
        if not handle.cancel():
            raise RuntimeError("the job was not cancelled")


class Loky(Peer):
    """loky's reusable executor.  To end one job it has to kill all its workers."""

    name = "loky"
    module = "loky"
    executor = "from loky import get_reusable_executor"
    settings = "get_reusable_executor; map: 4 chunks a worker; cancel: get_reusable_executor(kill_workers=True)"
    cancels = True

    def start(self) -> None:
        from loky import get_reusable_executor

        self.pool = get_reusable_executor(max_workers=self.workers)

    def cancel(self, handle: Any) -> None:
        from loky import get_reusable_executor

        self.pool = get_reusable_executor(max_workers=self.workers, kill_workers=True, reuse=False)


class ConcurrentFutures(Peer):
    """The standard library's `ProcessPoolExecutor`."""

    name = "concurrent.futures"
    module = "concurrent.futures"
    executor = "from concurrent.futures import ProcessPoolExecutor"
    settings = "forkserver; map: 4 chunks a worker"

    def start(self) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        context = multiprocessing.get_context("forkserver")
        self.pool = ProcessPoolExecutor(self.workers, mp_context=context)


class Pebble(Peer):
    """Pebble's `ProcessPool`."""

    name = "pebble"
    module = "pebble"
    executor = "from pebble import ProcessPool"
    settings = "default start method ({start_method}); map: 4 chunks a worker"
    cancels = True

    def start(self) -> None:
        from pebble import ProcessPool

        self.pool = ProcessPool(max_workers=self.workers)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.pool.schedule(function, args=args)

    def map(self, function: Callable[..., Any], items: range) -> Iterable[Any]:
        return self.pool.map(function, items, chunksize=self.chunksize(len(items))).result()  # type: ignore[no-any-return]

    def cancel(self, handle: Any) -> None:
        if not handle.cancel():
            raise RuntimeError("the job was not cancelled")

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class MultiprocessingPool(Peer):
    """The standard library's `multiprocessing.Pool`."""

    name = "multiprocessing.Pool"
    module = "multiprocessing"
    executor = "from multiprocessing.pool import Pool"
    settings = "default start method ({start_method}); map: its own chunks (4 a worker)"

    def start(self) -> None:
        import multiprocessing

        self.pool = multiprocessing.Pool(self.workers)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.pool.apply_async(function, args)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        return handle.get(timeout)

    def map(self, function: Callable[..., Any], items: range) -> Iterable[Any]:
        return self.pool.map(function, items)  # type: ignore[no-any-return]

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class Mpire(Peer):
    """mpire's `WorkerPool`."""

    name = "mpire"
    module = "mpire"
    executor = "from mpire import WorkerPool"
    settings = "default start method ({start_method}); daemon=False; map: 4 chunks a worker"

    def start(self) -> None:
        # By name: its type hints don't say what it exports, and a checker may not have it installed.
        self.pool = importlib.import_module(self.module).WorkerPool(self.workers, daemon=False)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.pool.apply_async(function, args)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        return handle.get(timeout)

    def map(self, function: Callable[..., Any], items: range) -> Iterable[Any]:
        return self.pool.map(function, items, chunk_size=self.chunksize(len(items)))  # type: ignore[no-any-return]

    def close(self) -> None:
        self.pool.stop_and_join()


#: All of them by name, jobrunner first.
PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Jobrunner, Loky, ConcurrentFutures, Pebble, Mpire, MultiprocessingPool)
}


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

    return peer.settings.format(start_method=multiprocessing.get_start_method()) or "defaults"
