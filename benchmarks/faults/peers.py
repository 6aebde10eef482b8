"""How each library is driven in the fault matrix: jobs with limits, waiting, the end of a running job.

A pool is started and closed as in `benchmarks.peers`.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from benchmarks.peers import PEERS, Peer

__all__ = ["OURS", "Driver", "driver"]

#: The one that the others are peers of.
OURS = "jobrunner"


class Driver:
    """A peer's pool, as the matrix uses it; the base class is for pools with `concurrent.futures` futures.

    Args:
        peer: the peer, not yet started.

    Attributes:
        limits_time: whether a job can be given a time limit.
    """

    limits_time: ClassVar[bool] = False

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    @property
    def ends_running(self) -> bool:
        """Whether a job that runs, or hangs, can be ended at all."""
        return self.limits_time or self.peer.cancels

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        time_limit: float | None = None,
        memory_limit: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Hand in a job; limits and options are for those that have them."""
        return self.peer.submit(function, *args)

    def wait(self, handle: Any, timeout_s: float) -> bool:
        """Wait for a job; whether it has ended in time."""
        return bool(concurrent.futures.wait([handle], timeout_s).done)

    def result(self, handle: Any) -> Any:
        """The result of a job that has ended; raises what it has raised."""
        return self.peer.result(handle, 0)


class _Jobrunner(Driver):
    limits_time = True

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        time_limit: float | None = None,
        memory_limit: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {"time_limit": time_limit, "memory_limit": memory_limit, **(options or {})}
        chosen = {name: value for name, value in given.items() if value is not None}
        return self.peer.pool.with_options(**chosen).submit(function, *args)


class _Pebble(Driver):
    limits_time = True

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        time_limit: float | None = None,
        memory_limit: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.peer.pool.schedule(function, args=args, timeout=time_limit)


class _Waitable(Driver):
    """For pools with handles as `multiprocessing.Pool` has them."""

    def wait(self, handle: Any, timeout_s: float) -> bool:
        handle.wait(timeout_s)
        return bool(handle.ready())


class _Mpire(_Waitable):
    limits_time = True

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        time_limit: float | None = None,
        memory_limit: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.peer.pool.apply_async(function, args, task_timeout=time_limit)


_DRIVERS: dict[str, type[Driver]] = {
    OURS: _Jobrunner,
    "pebble": _Pebble,
    "mpire": _Mpire,
    "multiprocessing.Pool": _Waitable,
}


def driver(name: str, workers: int) -> Driver:
    """The driver of the peer of that name, its pool not yet started."""
    return _DRIVERS.get(name, Driver)(PEERS[name](workers))
