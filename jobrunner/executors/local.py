"""`LocalExecutor`: jobs in processes of this machine, each alone with its worker."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from jobrunner.backend import Backend, Capabilities, describe_machine
from jobrunner.errors import SerializationError
from jobrunner.executors.base import JobExecutor, check_map, check_possible, fail_unsent, start_when_ready
from jobrunner.executors.chunked_map import ChunkedMap
from jobrunner.executors.descriptors import reserve_descriptors
from jobrunner.executors.future import JobFuture
from jobrunner.executors.inline import InlineExecutor
from jobrunner.executors.output import CAN_REDIRECT, OutputWriter
from jobrunner.executors.pool import Pool
from jobrunner.executors.pool_job import PoolJob
from jobrunner.executors.services import services
from jobrunner.html import facts_table
from jobrunner.memory import format_bytes
from jobrunner.messages import pack_call
from jobrunner.options import JobOptions, PoolOptions, default_max_workers
from jobrunner.parcel import APART_BYTES
from jobrunner.serialization import Call
from jobrunner.sharing import Shared

__all__ = ["LocalExecutor"]

T = TypeVar("T")

_CAPABILITIES = Capabilities(
    cancel_running=True,
    time_limit=True,
    memory_limit=True,
    true_running_status=True,
    shared_objects=True,
    # An interrupt is a signal, and pipes are listened to: Windows has neither.
    grace=os.name == "posix",
    capture_output=CAN_REDIRECT,
)


def _check_options(options: JobOptions, budget: int) -> None:
    """Refuse options with which a job could not be run here.

    Raises:
        ValueError: the memory limit is above the executor's memory budget.
        JobError: this platform can't do what an option asks for.
    """
    if options.memory_bytes > budget:
        raise ValueError(
            f"memory_limit must be above 0 and at most {budget} bytes ({format_bytes(budget)}, the executor's "
            f"memory_budget), not {options.memory_bytes} ({format_bytes(options.memory_bytes)}): such a job could "
            "never start"
        )
    check_possible(options, _CAPABILITIES, f"{sys.platform} has no means for it; leave it out")


class _PoolHolder:
    """The pool that an executor and its views share.

    A fork of the process can't use the pool it came with: there, the holder makes one of its own at the first use.
    When nobody holds it any more, the pool ends as soon as what was submitted is over.
    """

    def __init__(
        self, options: PoolOptions, max_workers: int, threads: int, writer: Callable[[], OutputWriter]
    ) -> None:
        self.options = options
        self.max_workers = max_workers
        self._threads = threads
        self._writer = writer
        self._pool = self._make()

    def _make(self) -> Pool:
        pool = Pool(self.options, self.max_workers, self._threads, self._writer())
        # Not at exit: the pool's own hook runs what was submitted first.
        weakref.finalize(self, pool.abandon).atexit = False
        return pool

    @property
    def pool(self) -> Pool:
        if self._pool.pid != os.getpid():
            self._pool = self._make()
        return self._pool


class LocalExecutor(JobExecutor):
    """Runs jobs in worker processes, each held by a loky executor of its own.

    A job's death, cancellation or time limit is that job's alone; its worker is replaced, and no other job notices.
    Works from any thread, from a notebook or a prompt, and without an ``if __name__ == "__main__"`` guard.

    Args:
        max_workers: how many jobs run at a time; default: the CPUs this process may use (affinity and cgroup quota
            respected) divided by `threads`.
        time_limit: seconds that a job may take, from when a worker takes it up until its result has arrived; then its
            processes are ended, and it fails with `TimeLimitExceeded`.
        memory_limit: bytes, or text such as ``"2GiB"``: memory that the job's processes may use together, pages that
            they share counted once; above it they are ended, and the job fails with `MemoryLimitExceeded`.
        retries: further attempts after the worker died, and after the exception types in `retry_on`.
        retry_on: exception types that are retried too, of the function's own, `TimeLimitExceeded` or
            `MemoryLimitExceeded`.
        threads: BLAS/OpenMP threads that a job may use, and cores that it takes up.
        grace: seconds between a polite interrupt inside the job (a KeyboardInterrupt, so that its ``finally`` blocks
            run) and the end of its processes; 0: ended at once, as above a memory limit always.
        capture_output: whether what the job and its processes print goes to its report (`JobReport.stdout_tail`,
            `JobFuture.output`) instead of the caller's own streams.
        idle_timeout: seconds after which an idle worker leaves; None: never.
        max_jobs_per_worker: jobs after which a worker is replaced; None: never.
        max_pending: how many jobs may wait before `submit` blocks; None: no bound.
        spare_workers: idle workers kept ready beside those in use, to take the place of one that is ended.
        initializer: called in each worker before its first job.
        initargs: its arguments.
        env: environment variables of the workers, on top of the caller's.
        preload: names of modules that workers import before their first job.
        relay_logs: whether a job's warnings and log records reach the caller's `warnings` and `logging`, marked with
            the job's id.
        memory_budget: bytes, or text: what the memory limits of the jobs that run at a time may add up to; a job waits
            until its limit fits.  Default: 90 % of what the machine, or this process's control group, has.
        max_worker_growth: bytes, or text: a worker whose memory at rest has grown by more since its first job is
            replaced when it has no job; None: never.

    Raises:
        TypeError, ValueError: an option is not what it must be; the message names it.
        SerializationError: the initializer or its arguments can't be sent to a worker.

    Example:
        >>> with LocalExecutor(max_workers=1, spare_workers=0) as executor:
        ...     executor.submit(pow, 2, 10).result()
        1024
    """

    # Makes what takes that which jobs print and is not captured.
    _make_writer: Callable[[], OutputWriter] = staticmethod(lambda: services().writer)

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        time_limit: float | None = None,
        memory_limit: int | str | None = None,
        retries: int = 0,
        retry_on: type[BaseException] | Sequence[type[BaseException]] = (),
        threads: int = 1,
        grace: float = 0.0,
        capture_output: bool = False,
        idle_timeout: float | None = 60,
        max_jobs_per_worker: int | None = None,
        max_pending: int | None = None,
        spare_workers: int = 1,
        initializer: Callable[..., object] | None = None,
        initargs: Sequence[Any] = (),
        env: Mapping[str, str] | None = None,
        preload: Sequence[str] = (),
        relay_logs: bool = True,
        memory_budget: int | str | None = None,
        max_worker_growth: int | str | None = "1GiB",
    ) -> None:
        self._options = JobOptions().replace(
            time_limit=time_limit,
            memory_limit=memory_limit,
            retries=retries,
            retry_on=retry_on,
            threads=threads,
            grace=grace,
            capture_output=capture_output,
            relay_logs=relay_logs,
        )
        options = PoolOptions(
            max_workers=max_workers,
            idle_timeout=idle_timeout,
            max_jobs_per_worker=max_jobs_per_worker,
            max_pending=max_pending,
            spare_workers=spare_workers,
            initializer=initializer,
            initargs=initargs,  # type: ignore[arg-type]
            env=env,
            preload=preload if isinstance(preload, str) else tuple(preload),  # type: ignore[arg-type]
            memory_budget=memory_budget,
            max_worker_growth=max_worker_growth,
        )
        _check_options(self._options, options.budget_bytes)
        workers = options.max_workers or default_max_workers(self._options.threads)
        reserve_descriptors(workers + options.spare_workers)
        self._holder = _PoolHolder(options, workers, self._options.threads, self._make_writer)

    @property
    def backend(self) -> Backend:
        """This machine, through loky."""
        import loky

        return Backend(
            name="local",
            version=loky.__version__,
            max_workers=self._holder.max_workers,
            capabilities=_CAPABILITIES,
            options={**self._holder.options.non_default(), **self._options.non_default()},
            **describe_machine(),
        )

    def with_options(self, **options: Any) -> LocalExecutor:
        """A light view of the same pool whose jobs have other options.

        Args:
            options: `time_limit`, `memory_limit`, `retries`, `retry_on`, `threads`, `grace`, `capture_output`,
                `relay_logs`, `priority`, `name`.

        Raises:
            TypeError, ValueError: an option is not what it must be.

        Example:
            >>> with LocalExecutor(max_workers=1, spare_workers=0) as executor:
            ...     executor.with_options(name="cube", time_limit=10).submit(pow, 3, 3).report().name
            'cube'
        """
        view = object.__new__(type(self))
        view._options = self._options.replace(**options)
        view._holder = self._holder
        _check_options(view._options, self._holder.options.budget_bytes)
        if view._options.threads > self._holder.pool.cores:
            raise ValueError(
                f"threads={view._options.threads} is more than the executor's {self._holder.pool.cores} cores "
                "(max_workers × threads): such a job could never start"
            )
        return view

    def submit_call(self, call: Call, job_id: str | None = None) -> JobFuture[Any]:
        """Take a serialised call; see `JobExecutor.submit_call`."""
        pool = self._holder.pool
        job = pool.new_job(self._options, job_id, call.name, len(call.payload), call.serialize_s)
        future = job.future
        assert future is not None
        if not call.dependencies and not call.shared and len(call.payload) < APART_BYTES and not call.buffers:
            pool.submit(job, pack_call(call.payload, ()))
            return future
        job.argument_bytes = call.nbytes
        job.load(call)
        try:
            start_when_ready(
                call,
                hold=lambda: pool.hold(job),
                start=lambda body: pool.submit(job, body),
                fail=lambda error: pool.fail(job, error),
            )
        except BaseException:
            pool.turn_away(job)
            raise
        return future

    def submit_packed(
        self,
        body: bytes | memoryview,
        buffers: Sequence[memoryview],
        shared: Sequence[Shared[Any]],
        *,
        job_id: str,
        name: str,
        on_note: Callable[[bytes, int], None],
    ) -> JobFuture[Any]:
        """Take a call that another process has packed.

        Args:
            body: of the call's frame (`messages.pack_call`), with the finished jobs that it depends on.
            buffers: the large buffers among its arguments.
            shared: the shared objects among them.
            job_id: the job's id.
            name: the function's name.
            on_note: takes the job's warnings and log records, with its worker's pid.

        Raises:
            ExecutorShutdownError: no more jobs are taken.
        """
        pool = self._holder.pool
        job = pool.new_job(self._options, job_id, name, len(body), 0.0)
        future = job.future
        assert future is not None
        job.on_note = on_note
        job.shared = tuple(shared)
        job.shipment = pool.freight.load_packed(body, buffers)
        try:
            pool.submit(job, bytes(body) if job.shipment is None else b"")
        except BaseException:
            pool.turn_away(job)
            raise
        return future

    def take_out(self, future: JobFuture[Any]) -> bool:
        """Cancel a job if no worker has begun it; whether that was so."""
        job = future.record
        return isinstance(job, PoolJob) and job.pool.take_out(job)

    def submit_failed(self, error: SerializationError, name: str) -> JobFuture[Any]:
        """A future that carries `error`."""
        pool = self._holder.pool
        return fail_unsent(pool.new_job(self._options, None, name, 0, 0.0), error, pool.fail)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
    ) -> Iterator[T]:
        """The results of `fn` over the items, in order.

        Args:
            fn: what to call.
            iterables: its arguments, as for the built-in `map`.
            timeout: seconds from now after which waiting for a result raises; None: none.
            chunksize: items that are sent to a worker at a time; None: chosen by measured item length.
            buffersize: how many items are taken from `iterables` before their results are; None: all, at once.
            return_exceptions: yield errors in their places instead of raising the first.

        With ``capture_output`` what the items print is kept from the terminal, but has no report.

        Returns:
            An iterator.  Closing it, or an error that it raises, cancels what is left.

        Raises:
            ValueError, TypeError: a size or the timeout is not what it must be.
            ExecutorShutdownError: the executor was shut down.
            JobTimeoutError: raised by the iterator when `timeout` passes.

        Example:
            >>> with LocalExecutor(max_workers=1, spare_workers=0) as executor:
            ...     list(executor.map(pow, [1, 2, 3], [2, 2, 2]))
            [1, 4, 9]
        """
        deadline = check_map(fn, timeout, chunksize, buffersize)
        call = ChunkedMap(
            self._holder.pool,
            self._options,
            fn,
            iterables,
            workers=self._holder.max_workers,
            chunksize=chunksize,
            buffersize=buffersize,
            deadline=deadline,
        )
        return call.results(return_exceptions)

    def stats(self) -> dict[str, int]:
        """Numbers of jobs (queued, running, done, failed, cancelled), of workers, and of workers replaced."""
        return self._holder.pool.stats()

    @property
    def is_shut_down(self) -> bool:
        """Whether no more jobs are taken."""
        return self._holder.pool.closing

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False) -> None:
        """Take no more jobs; those of all views of the pool are meant.

        Args:
            wait: return only when all jobs are over and all workers gone.
            cancel_futures: cancel the jobs that have not started.
            kill_workers: cancel the running jobs too, ending their processes.
        """
        pool = self._holder.pool
        pool.shut_down(cancel_waiting=cancel_futures, cancel_all=kill_workers)
        if wait:
            pool.join()

    def __reduce__(self) -> tuple[type[InlineExecutor], tuple[()]]:
        # In a worker, where it arrives, jobs are run in line.
        return InlineExecutor, ()

    def _repr_html_(self) -> str:
        return facts_table("LocalExecutor", {"max_workers": self._holder.max_workers, **self.stats()})

    def __repr__(self) -> str:
        stats = self.stats()
        numbers = ", ".join(f"{stats[name]} {name}" for name in ("running", "queued", "done", "failed", "cancelled"))
        return f"<LocalExecutor max_workers={self._holder.max_workers}: {stats['workers']} workers; {numbers}>"
