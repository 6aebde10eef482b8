"""Libraries for more than one machine, or for batches, as they run on one."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.peers.base import Pace, Peer
from benchmarks.work import call, each

__all__ = ["ENGINES"]

# The libraries are imported by name: a checker may not have them installed, or not know their types.


class _Chunked(Peer):
    """A library whose ``map`` knows no chunks, so that they are made by hand, as its documentation advises."""

    def map(self, function: Callable[..., Any], items: range) -> Iterable[Any]:
        size = self.chunksize(len(items))
        chunks = [(function, items[start : start + size]) for start in range(0, len(items), size)]
        return [result for chunk in self.run(each, chunks) for result in chunk]


class Joblib(Peer):
    """joblib's `Parallel`, one that is reused; a job by itself is a batch of one."""

    name = "joblib"
    module = "joblib"
    executor = "from joblib import Parallel, delayed"
    settings = (
        "loky; Parallel reused; batch_size='auto', map: 4 batches a worker; large arrays memory-mapped (max_nbytes)"
    )
    pace = Pace(round_trips=0.03)
    queues = False
    shares = True

    def start(self) -> None:
        self._joblib = importlib.import_module(self.module)
        self._stack = contextlib.ExitStack()
        self.pool = self._stack.enter_context(self._joblib.Parallel(n_jobs=self.workers))

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        # Nothing can be handed in by itself: it runs when it is waited for.
        return self._joblib.delayed(function)(*args)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        return self.pool([handle])[0]

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return self.pool(handles)  # type: ignore[no-any-return]

    def map(self, function: Callable[..., Any], items: range) -> Iterable[Any]:
        delayed = self._joblib.delayed(function)
        parallel = self._joblib.Parallel(n_jobs=self.workers, batch_size=self.chunksize(len(items)), pre_dispatch="all")
        return parallel(delayed(item) for item in items)  # type: ignore[no-any-return]

    def mend(self) -> bool:
        with contextlib.suppress(Exception):
            self._stack.close()
        self.start()
        return True

    def close(self) -> None:
        self._stack.close()


class Executorlib(_Chunked):
    """executorlib's `SingleNodeExecutor`, its workers kept from job to job."""

    name = "executorlib"
    module = "executorlib"
    executor = "from executorlib import SingleNodeExecutor"
    settings = "block_allocation=True, disable_dependencies=True; map: 4 chunks a worker, made by hand"
    pace = Pace(round_trips=0.15, jobs=0.2)
    queue_limit = 100_000

    def start(self) -> None:
        executor = importlib.import_module(self.module).SingleNodeExecutor
        self.pool = executor(max_workers=self.workers, block_allocation=True, disable_dependencies=True)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        # It asks for the signature, which not every built-in function has.
        return self.pool.submit(call, function, *args)

    def mend(self) -> bool:
        with contextlib.suppress(Exception):
            self.pool.shutdown(wait=False)
        self.start()
        return True


class Dask(_Chunked):
    """Dask's distributed scheduler with a cluster of this machine."""

    name = "dask"
    module = "distributed"
    executor = "from distributed import Client, LocalCluster"
    settings = (
        "LocalCluster(threads_per_worker=1, processes=True, dashboard_address=None), allowed-failures 0; pure=False; "
        "results by gather; map: 4 chunks a worker, made by hand; shared: scatter"
    )
    pace = Pace(round_trips=0.03, jobs=0.05, items=0.1)
    queue_limit = 1_000
    shares = True

    def start(self) -> None:
        distributed = importlib.import_module(self.module)
        importlib.import_module("dask").config.set({"distributed.scheduler.allowed-failures": 0})
        self._cluster = distributed.LocalCluster(
            n_workers=self.workers, threads_per_worker=1, processes=True, dashboard_address=None
        )
        self.pool = distributed.Client(self._cluster)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        # Pure functions with equal arguments would be run once.
        return self.pool.submit(function, *args, pure=False)

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return self.pool.gather(handles)  # type: ignore[no-any-return]

    def share(self, value: Any) -> Any:
        # In a list: the values of a dict by itself would be sent one by one.
        [future] = self.pool.scatter([value], hash=False)
        return future

    def close(self) -> None:
        self.pool.close()
        self._cluster.close()


class Ray(_Chunked):
    """Ray's tasks on a cluster of this machine."""

    name = "ray"
    module = "ray"
    executor = "import ray"
    settings = (
        "init(num_cpus=workers, include_dashboard=False); max_retries=0; results by get of the list; map: 4 chunks a "
        "worker, made by hand; shared: put; cancel: force=True"
    )
    pace = Pace(round_trips=0.1, jobs=0.1)
    queue_limit = 1_000
    cancels = True
    shares = True

    def start(self) -> None:
        self.pool = importlib.import_module(self.module)
        self.pool.init(
            num_cpus=self.workers,
            include_dashboard=False,
            log_to_driver=False,
            # Sockets and logs; gone with the sample.
            _temp_dir=os.path.join(tempfile.gettempdir(), "ray"),
        )
        self._call = self.pool.remote(max_retries=0)(call)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._call.remote(function, *args)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        return self.pool.get(handle, timeout=timeout)

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return self.pool.get(list(handles))  # type: ignore[no-any-return]

    def share(self, value: Any) -> Any:
        return self.pool.put(value)

    def cancel(self, handle: Any) -> None:
        self.pool.cancel(handle, force=True)


#: Those that run across machines last.
ENGINES: tuple[type[Peer], ...] = (Joblib, Executorlib, Dask, Ray)
