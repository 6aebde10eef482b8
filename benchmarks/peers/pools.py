"""Process pools of one machine: jobrunner itself, and those that are most like it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.peers.base import Pace, Peer

__all__ = ["POOLS"]


class Jobrunner(Peer):
    """jobrunner's `LocalExecutor`, with its defaults: all that it guarantees is on."""

    name = "jobrunner"
    module = "jobrunner"
    executor = "from jobrunner import LocalExecutor"
    cancels = True
    shares = True

    def start(self) -> None:
        from jobrunner import LocalExecutor

        self.pool = LocalExecutor(max_workers=self.workers)

    def map(self, function: Callable[..., Any], items: range) -> Iterable[Any]:
        return self.pool.map(function, items)  # type: ignore[no-any-return]

    def share(self, value: Any) -> Any:
        return importlib.import_module(self.module).share(value)

    def cancel(self, handle: Any) -> None:
        if not handle.cancel():
            raise RuntimeError("the job was not cancelled")


class Loky(Peer):
    """loky's reusable executor.  To end one job it has to kill all its workers."""

    name = "loky"
    module = "loky"
    executor = "from loky import get_reusable_executor"
    queue_limit = 100_000
    settings = "get_reusable_executor; map: 4 chunks a worker; cancel: get_reusable_executor(kill_workers=True)"
    cancels = True

    def start(self) -> None:
        from loky import get_reusable_executor

        self.pool = get_reusable_executor(max_workers=self.workers)

    def cancel(self, handle: Any) -> None:
        from loky import get_reusable_executor

        self.pool = get_reusable_executor(max_workers=self.workers, kill_workers=True, reuse=False)

    def mend(self) -> bool:
        self.start()
        return True


class ConcurrentFutures(Peer):
    """The standard library's `ProcessPoolExecutor`."""

    name = "concurrent.futures"
    module = "concurrent.futures"
    executor = "from concurrent.futures import ProcessPoolExecutor"
    queue_limit = 100_000
    settings = "forkserver; map: 4 chunks a worker"

    def start(self) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        context = multiprocessing.get_context("forkserver")
        self.pool = ProcessPoolExecutor(self.workers, mp_context=context)

    def mend(self) -> bool:
        self.pool.shutdown(wait=False)
        self.start()
        return True


class Pebble(Peer):
    """Pebble's `ProcessPool`."""

    name = "pebble"
    module = "pebble"
    executor = "from pebble import ProcessPool"
    queue_limit = 100_000
    pace = Pace(items=0.2)
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
    reports_crash = False

    def start(self) -> None:
        import multiprocessing

        self.pool = multiprocessing.Pool(self.workers)
        self._close = self.pool.close

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.pool.apply_async(function, args)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        return handle.get(timeout)

    def map(self, function: Callable[..., Any], items: range) -> Iterable[Any]:
        return self.pool.map(function, items)  # type: ignore[no-any-return]

    def mend(self) -> bool:
        # It mends itself, but would wait for ever for the job that was lost.
        self._close = self.pool.terminate
        return False

    def close(self) -> None:
        self._close()
        self.pool.join()


class Mpire(Peer):
    """mpire's `WorkerPool`."""

    name = "mpire"
    module = "mpire"
    executor = "from mpire import WorkerPool"
    assigns_ahead = True
    queue_limit = 100_000
    pace = Pace(items=0.2)
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

    def mend(self) -> bool:
        self.pool.terminate()
        self.start()
        return True

    def close(self) -> None:
        self.pool.stop_and_join()


#: Jobrunner first.
POOLS: tuple[type[Peer], ...] = (Jobrunner, Loky, ConcurrentFutures, Pebble, Mpire, MultiprocessingPool)
