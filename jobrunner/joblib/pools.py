"""The executors that joblib's calls run on, kept from one call to the next."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from jobrunner.executors.base import JobExecutor
from jobrunner.executors.local import LocalExecutor
from jobrunner.options import JobOptions

__all__ = ["MAX_PENDING_INSTEAD", "POOLS", "split_options"]

#: What to use in the place of ``max_pending``.
MAX_PENDING_INSTEAD = "joblib bounds what is dispatched: say Parallel(pre_dispatch=…)"

#: What each task needs.  Imported by the first of a worker, it would count towards that one's limit.
_PRELOADED = ("jobrunner.joblib.backend",)

#: So many executors without a call are kept.
_KEPT = 2

_JOB_OPTIONS = frozenset(field.name for field in dataclasses.fields(JobOptions))
#: The others are said to joblib: ``n_jobs``, ``pre_dispatch``.
_OPTIONS = frozenset(inspect.signature(LocalExecutor).parameters) - {"max_workers", "max_pending"} | _JOB_OPTIONS


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a pool, and of its jobs.

    Raises:
        TypeError: one is unknown, or is of a pool where an executor is given; or the executor's queue is bounded.
    """
    given = {name: value for name, value in options.items() if name != "executor" and value is not None}
    unknown = sorted(given.keys() - _OPTIONS)
    if unknown:
        raise TypeError(
            f"backend 'jobrunner' has no option {', '.join(unknown)} (it has executor, {', '.join(sorted(_OPTIONS))})"
        )
    jobs = {name: value for name, value in given.items() if name in _JOB_OPTIONS}
    executor = options.get("executor")
    if executor is None:
        # It says how many cores the pool has, too.
        return {name: value for name, value in given.items() if name not in jobs or name == "threads"}, jobs
    if not isinstance(executor, JobExecutor):
        raise TypeError(
            f"executor must be a LocalExecutor, DaskExecutor or RayExecutor, not {executor!r}; Dask and Ray have "
            "joblib backends of their own"
        )
    if given.keys() - jobs.keys():
        raise TypeError(
            f"{', '.join(sorted(given.keys() - jobs.keys()))}: with executor=…, options of its workers are its "
            "own; give them to it"
        )
    if executor.backend.options.get("max_pending") is not None:
        # joblib submits in callbacks, too, where nothing may wait.
        raise TypeError(f"backend 'jobrunner' takes no executor that has max_pending: {MAX_PENDING_INSTEAD}")
    return {}, jobs


class _Pool:
    def __init__(self, n_jobs: int, options: dict[str, Any]) -> None:
        self.n_jobs = n_jobs
        self.options = options
        preload = options.get("preload", ())
        if not isinstance(preload, str):  # that is refused
            options = {**options, "preload": (*preload, *_PRELOADED)}
        self.executor = LocalExecutor(max_workers=n_jobs, **options)
        self.calls = 0

    def fits(self, n_jobs: int, options: dict[str, Any]) -> bool:
        if self.executor.is_shut_down or self.n_jobs != n_jobs or self.options.keys() != options.keys():
            return False
        # The very same object, or one that says by itself that it is equal: an array among initargs doesn't.
        return all(
            value is self.options[name] or (self.options[name] == value) is True for name, value in options.items()
        )


class _Pools:
    """Local executors by what they were made with; those used last are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._pools: list[_Pool] = []

    def enter(self, n_jobs: int, options: Mapping[str, Any]) -> tuple[JobExecutor, Callable[[], None]]:
        """An executor for a call.

        Args:
            n_jobs: how many workers it is to have.
            options: `executor`, and options of its jobs; or options of a `LocalExecutor`.

        Returns:
            The executor, and what is to be called when the call is over.

        Raises:
            TypeError, ValueError: an option is wrong.
        """
        of_pool, of_jobs = split_options(options)
        executor = options.get("executor")
        if executor is not None:
            return executor.with_options(**of_jobs), lambda: None
        if self._pid != os.getpid():
            # In a fork: the parent's, and their lock, are none of ours.
            self.__init__()  # type: ignore[misc]
        with self._lock:
            pool = next((pool for pool in self._pools if pool.fits(n_jobs, of_pool)), None)
            if pool is None:
                pool = _Pool(n_jobs, of_pool)
            else:
                self._pools.remove(pool)
            self._pools.append(pool)
            # Before the call counts: it may raise.
            view = pool.executor.with_options(**of_jobs)
            pool.calls += 1
            idle = [one for one in self._pools if not one.calls]
            for old in idle[: max(0, len(idle) - _KEPT)]:
                self._pools.remove(old)
                old.executor.shutdown(wait=False)
            return view, functools.partial(self._leave, pool)

    def _leave(self, pool: _Pool) -> None:
        with self._lock:
            pool.calls -= 1


POOLS = _Pools()
