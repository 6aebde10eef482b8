"""`ClusterExecutor`: what `DaskExecutor` and `RayExecutor` have in common."""

from __future__ import annotations

import os
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from jobrunner.backend import Backend, Capabilities, describe_machine
from jobrunner.cluster.keeper import Keeper
from jobrunner.cluster.link import Link, NodeConfig
from jobrunner.cluster.node import call_packed
from jobrunner.cluster.uploads import pack_uploads
from jobrunner.errors import JobError, SerializationError
from jobrunner.executors.base import JobExecutor, check_map, fail_unsent, start_when_ready
from jobrunner.executors.future import JobFuture
from jobrunner.executors.inline import InlineExecutor
from jobrunner.html import facts_table
from jobrunner.job_ids import new_job_id
from jobrunner.memory import format_bytes
from jobrunner.messages import pack_call
from jobrunner.options import JobOptions, PoolOptions, UnboundedJobOptions
from jobrunner.packages import version_of
from jobrunner.parcel import pack_parts
from jobrunner.serialization import Call, dump_call

__all__ = ["ClusterExecutor"]

T = TypeVar("T")

_CAPABILITIES = Capabilities(
    cancel_running=True,
    time_limit=True,
    memory_limit=True,
    true_running_status=True,
    shared_objects=True,
    grace=True,
    capture_output=True,
)

# The options by their owners: of jobs, of the lanes on each node, and what is left.
_JOB_OPTIONS: dict[str, Any] = {
    "time_limit": None,
    "memory_limit": None,
    "retries": 0,
    "retry_on": (),
    "threads": 1,
    "grace": 0.0,
    "capture_output": False,
    "relay_logs": True,
}
_NODE_OPTIONS: dict[str, Any] = {
    "idle_timeout": 60,
    "max_jobs_per_worker": None,
    "spare_workers": 1,
    "env": None,
    "preload": (),
    "max_worker_growth": "1GiB",
}
_DEFAULTS: dict[str, Any] = {
    **_JOB_OPTIONS,
    **_NODE_OPTIONS,
    "max_workers": None,
    "max_pending": None,
    "upload": (),
    "initializer": None,
    "initargs": (),
}

#: How many jobs of a `map` are under way at a time, where that is not said.
_MAP_AHEAD = 10_000


class _KeeperHolder:
    """The keeper that an executor and its views share; when nobody has it, it ends once what was submitted is over."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        # Not at exit: the keeper's own hook runs what was submitted first.
        weakref.finalize(self, keeper.abandon).atexit = False


class ClusterExecutor(JobExecutor):
    """Runs jobs on the nodes of a cluster; see `DaskExecutor` and `RayExecutor`."""

    _holder: _KeeperHolder
    _options: JobOptions
    _pool: PoolOptions

    @property
    def _keeper(self) -> Keeper:
        return self._holder.keeper

    def _configure(self, options: dict[str, Any]) -> NodeConfig:
        """Check the options, and say what nodes are to be made with.

        Raises:
            TypeError, ValueError: an option is not what it must be.
            SerializationError: the initializer can't be sent.
            OSError: what is to be uploaded can't be read.
        """
        unknown = sorted(set(options) - set(_DEFAULTS))
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no option {', '.join(unknown)} (it has {', '.join(sorted(_DEFAULTS))})"
            )
        given = {**_DEFAULTS, **options}
        self._options = UnboundedJobOptions().replace(**{name: given[name] for name in _JOB_OPTIONS})
        pool = {name: given[name] for name in (*_NODE_OPTIONS, "initializer", "initargs")}
        max_workers, max_pending, upload = given["max_workers"], given["max_pending"], given["upload"]
        preload = pool["preload"]
        pool["preload"] = preload if isinstance(preload, str) else tuple(preload)
        self._pool = PoolOptions(max_workers=max_workers, max_pending=max_pending, **pool)
        told = {name: getattr(self._pool, name) for name in _NODE_OPTIONS}
        told["env"] = None if self._pool.env is None else dict(self._pool.env)
        if self._pool.initializer is not None:
            call = dump_call(self._pool.initializer, self._pool.initargs, {})
            if call.shared or call.dependencies:
                raise JobError("the initializer's arguments must be objects themselves, not shared ones or jobs")
            body = pack_parts([pack_call(call.payload, ()), *call.buffers])
            told.update(initializer=call_packed, initargs=(body,))
        paths = [upload] if isinstance(upload, (str, os.PathLike)) else list(upload)
        return NodeConfig(told, pack_uploads([Path(path) for path in paths]))

    def _check_resources(self, resources: Any) -> Mapping[str, float]:
        """What each job is to take up.

        Raises:
            TypeError, ValueError: they are no resources.
        """
        if resources is None:
            return {}
        if not isinstance(resources, Mapping):
            raise TypeError(f"resources must map names to numbers, not {resources!r}")
        for name, amount in resources.items():
            number = isinstance(amount, (int, float)) and not isinstance(amount, bool)
            if not isinstance(name, str) or not number or not amount > 0:
                raise ValueError(f"resources must map names to numbers above 0, not {name!r} to {amount!r}")

        return dict(resources)

    def _begin(self, link: Link, resources: Mapping[str, float]) -> None:
        self._holder = _KeeperHolder(Keeper(link, self._pool.max_workers, self._pool.max_pending))
        try:
            self._check_possible()
        except ValueError:
            self.shutdown()
            raise
        there = [node["resources"] for node in self.nodes.values()]
        if resources and not any(
            all(node.get(name, 0) >= amount for name, amount in resources.items()) for node in there
        ):
            wanted = ", ".join(f"{name}={amount:g}" for name, amount in resources.items())
            warnings.warn(
                f"no node of the {self._keeper.engine} cluster at {self.address} has {wanted} now: jobs wait until one "
                "that has comes",
                stacklevel=3,
            )

    @property
    def backend(self) -> Backend:
        """The cluster, as its nodes are now; the machine is the calling one."""
        nodes = self._keeper.nodes
        cores = sum(node["cores"] for node in nodes.values()) // self._options.threads
        return Backend(
            name=self._keeper.engine,
            version=version_of("distributed" if self._keeper.engine == "dask" else self._keeper.engine),
            max_workers=min(filter(None, (cores, self._pool.max_workers)), default=None),
            capabilities=_CAPABILITIES,
            options={**self._pool.non_default(), **self._options.non_default()},
            **describe_machine(),
        )

    @property
    def address(self) -> str:
        """Where the cluster is."""
        return self._keeper.address

    @property
    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """The nodes that are there now, by the engine's name for them: host, cores, memory, versions."""
        return dict(self._keeper.nodes)

    def with_options(self, **options: Any) -> Any:
        """A light view of the same executor whose jobs have other options; see `LocalExecutor.with_options`.

        Raises:
            TypeError, ValueError: an option is not what it must be; or more than any node has.
        """
        view = object.__new__(type(self))
        view._options = self._options.replace(**options)
        view._holder, view._pool = self._holder, self._pool
        view._check_possible()
        return view

    def _check_possible(self) -> None:
        """Refuse what no node could keep that is there, or was and may come back.

        Raises:
            ValueError: memory or cores above what any node has.
        """
        nodes = self._keeper.sizes
        if not nodes:
            return
        options = self._options
        most = max(nodes, key=lambda node: node["memory"])
        if options.memory_bytes > most["memory"]:
            raise ValueError(
                f"memory_limit must be at most {most['memory']} bytes ({format_bytes(most['memory'])}, what the "
                f"largest node, {most['name']}, has), not {options.memory_bytes} "
                f"({format_bytes(options.memory_bytes)}): such a job could never start"
            )
        most = max(nodes, key=lambda node: node["threads"])
        if options.threads > most["threads"]:
            raise ValueError(
                f"threads={options.threads} is more than the {most['threads']} cores of the largest node, "
                f"{most['name']}: such a job could never start"
            )
        if not self._keeper.has_fitted(options.threads, options.memory_bytes):
            memory = format_bytes(options.memory_bytes)
            raise ValueError(
                f"no node has both threads={options.threads} and a memory_limit of {memory}: such a job could never "
                "start"
            )

    def submit_call(self, call: Call, job_id: str | None = None) -> JobFuture[Any]:
        """Take a serialised call; see `JobExecutor.submit_call`."""
        keeper = self._keeper
        keeper.check_open()
        job = keeper.new_job(self._options, job_id or new_job_id(), call.name, call.nbytes, call.serialize_s)
        future = job.future
        assert future is not None
        # Copies, which later changes of the arguments don't reach.
        job.buffers = [bytes(buffer) for buffer in call.buffers]
        job.shared = call.shared
        start_when_ready(
            call,
            hold=lambda: keeper.hold(job),
            start=lambda body: keeper.submit(job, body),
            fail=lambda error: keeper.fail(job, error),
        )
        return future

    def submit_failed(self, error: SerializationError, name: str) -> JobFuture[Any]:
        """A future that carries `error`."""
        keeper = self._keeper
        return fail_unsent(keeper.new_job(self._options, new_job_id(), name, 0, 0.0), error, keeper.fail)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
    ) -> Iterator[T]:
        """The results of `fn` over the items, in order; each item is a job.

        Args:
            fn: what to call.
            iterables: its arguments, as for the built-in `map`.
            timeout: seconds from now after which waiting for a result raises; None: none.
            chunksize: accepted for the interface: how many items a node is sent at a time follows from their length.
            buffersize: how many items are taken from `iterables` before their results are; None: ten thousand.
            return_exceptions: yield errors in their places instead of raising the first.

        Returns:
            An iterator.  Closing it, or an error that it raises, cancels what is left.

        Raises:
            ValueError, TypeError: a size or the timeout is not what it must be.
            ExecutorShutdownError: the executor was shut down.
            JobTimeoutError: raised by the iterator when `timeout` passes.
        """
        deadline = check_map(fn, timeout, chunksize, buffersize)
        self._keeper.check_open()
        items = zip(*iterables, strict=False)
        ahead: deque[JobFuture[Any]] = deque()
        for item in items:
            ahead.append(self.submit(fn, *item))
            if len(ahead) >= (buffersize or _MAP_AHEAD):
                break
        results = self._results(fn, items, ahead, deadline, return_exceptions)
        next(results)  # begun, so that closing it cancels
        return results

    def _results(
        self,
        fn: Callable[..., T],
        items: Iterator[tuple[Any, ...]],
        ahead: deque[JobFuture[Any]],
        deadline: float | None,
        return_exceptions: bool,
    ) -> Iterator[Any]:
        try:
            yield None
            while ahead:
                future = ahead.popleft()
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                error = None
                try:
                    error = future.exception(left)
                except BaseException:
                    ahead.appendleft(future)
                    raise
                for item in items:
                    ahead.append(self.submit(fn, *item))
                    break
                if error is not None and not return_exceptions:
                    raise error
                yield future.result() if error is None else error
        finally:
            for future in reversed(ahead):
                future.cancel()

    def stats(self) -> dict[str, int]:
        """Numbers of jobs (queued, running, done, failed, cancelled), of leases that have their place (workers), of
        nodes, and of nodes that were lost (restarts)."""
        return self._keeper.stats()

    @property
    def is_shut_down(self) -> bool:
        """Whether no more jobs are taken."""
        return self._keeper.closing

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False) -> None:
        """Take no more jobs; those of all views are meant.  The cluster itself goes on.

        Args:
            wait: return only when all jobs are over and the nodes' lanes gone.
            cancel_futures: cancel the jobs that have not started.
            kill_workers: cancel the running jobs too, ending their processes.
        """
        self._keeper.shut_down(cancel_waiting=cancel_futures, cancel_all=kill_workers)
        if wait:
            self._keeper.join()

    def __reduce__(self) -> tuple[type[InlineExecutor], tuple[()]]:
        # In a worker, where it arrives, jobs are run in line.
        return InlineExecutor, ()

    def _repr_html_(self) -> str:
        return facts_table(type(self).__name__, {"address": self._keeper.address, **self.stats()})

    def __repr__(self) -> str:
        stats = self.stats()
        numbers = ", ".join(f"{stats[name]} {name}" for name in ("running", "queued", "done", "failed", "cancelled"))
        return f"<{type(self).__name__} {self._keeper.address}: {stats['nodes']} nodes; {numbers}>"
