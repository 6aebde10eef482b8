"""joblib's backend: tasks of `joblib.Parallel` as jobs.

joblib hands over batches of tasks: one task at a time where they take long, several where they are short.  A batch is a
job.  If that ends its process, its tasks are run again, each as a job of its own: so that what happens to one happens
to no other.  With limits or retries, each is a job of its own from the start.  Arrays that joblib would have
memory-mapped, those above ``max_nbytes`` (1 MB), are shared: they cross once to each worker, and arrive read-only.
Those that lie in a memory-mapped file are not sent: the task's process maps the file.

joblib has one instance serve all calls under a `parallel_config`.  That one only says how many workers there are; each
Parallel gets one of its own, by the way on which backends fall back to others, and that is where the rest happens.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import queue
import threading
from collections.abc import Callable
from typing import Any

from joblib import cpu_count, parallel_config
from joblib.parallel import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend

from jobrunner.errors import JobRunnerError, SerializationError
from jobrunner.executors.base import JobExecutor
from jobrunner.joblib import register_joblib
from jobrunner.joblib.arrays import SharedArrays
from jobrunner.joblib.batches import Batch, Sent, Task
from jobrunner.joblib.pools import MAX_PENDING_INSTEAD, POOLS, split_options
from jobrunner.memory import parse_bytes
from jobrunner.role import is_worker
from jobrunner.serialization import Call, call_name, dump_call, dump_handle, load_call

__all__ = ["JobrunnerBackend"]

#: What joblib says of memory-mapping, whatever the backend.
_MEMMAPPING = ("max_nbytes", "mmap_mode", "temp_folder")
_REFUSED = {
    "temp_folder": "arrays go to the workers in shared memory, and no folder is needed: leave it out",
    "timeout": "say Parallel(timeout=…) for the wait for a result, time_limit=… for each task, or idle_timeout=… for "
    "idle workers",
    "idle_worker_timeout": "say idle_timeout=…",
    "context": "workers are started as jobrunner does: leave it out",
    "max_workers": "say n_jobs=…",
    "max_pending": MAX_PENDING_INSTEAD,
    "inner_max_num_threads": "say threads=…, or parallel_config(backend='jobrunner', inner_max_num_threads=…)",
}

#: Options that hold for each task, so that each is a job.
_OF_EACH_TASK = ("time_limit", "memory_limit", "retries")


class _OneWorker(int):
    """1, for joblib's every purpose but one: told ``n_jobs == 1``, it runs the tasks itself, in the caller."""

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


class JobrunnerBackend(AutoBatchingMixin, ParallelBackendBase):
    """Runs the tasks of `joblib.Parallel` as jobs; registered by `jobrunner.register_joblib`.

    Args:
        nesting_level: as of every backend of joblib's.
        inner_max_num_threads: BLAS/OpenMP threads of a task; default: the CPUs divided by the workers.
        options: `executor`, a `LocalExecutor`, `DaskExecutor` or `RayExecutor`, and options of its jobs; or options of
            `LocalExecutor`.

    Raises:
        TypeError: an option is unknown, or one of joblib's that has no meaning here; it says what to use instead.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    # Who names this backend wants to use it.
    default_n_jobs = -1

    # A batch is to take so many seconds.
    MIN_IDEAL_BATCH_DURATION = 0.02
    MAX_IDEAL_BATCH_DURATION = 0.2

    def __init__(
        self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **options: Any
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **options)
        self._check(options)
        # The Parallel that this instance is for; None: it is the one by which all are configured.
        self.parallel: Any = None
        self._executor: JobExecutor | None = None
        self._leave: Callable[[], None] = lambda: None
        # Whether each task is a job, whatever joblib's batches are.
        self._apart = False
        self._arrays = SharedArrays()
        self._lock = threading.Lock()
        # Guarded by the lock: what was submitted and is not over, and whether nothing more is to be.
        self._batches: set[Batch] = set()
        self._aborted = False
        self._told = _Told()

    def _check(self, options: dict[str, Any]) -> None:
        for name, instead in _REFUSED.items():
            if options.get(name) is not None:
                raise TypeError(f"backend 'jobrunner' takes no {name}: {instead}")
        split_options({name: value for name, value in options.items() if name not in _MEMMAPPING})

    # --- what joblib calls ---

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers there are; in a worker of ours 1: a job doesn't multiply processes."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if is_worker():
            return 1
        if n_jobs is None:
            n_jobs = self.default_n_jobs
        if n_jobs < 0:
            executor = self.backend_kwargs.get("executor")
            most = cpu_count() if executor is None else executor.backend.max_workers or 1
            n_jobs = max(most + 1 + n_jobs, 1)
        return _OneWorker(1) if n_jobs == 1 and self.parallel is not None else n_jobs

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **options: Any
    ) -> int:
        """Get workers ready."""
        given = {**self.backend_kwargs, **options}
        # Said by joblib itself.
        for name in ("verbose", "context"):
            given.pop(name, None)
        self._check(given)
        if self.inner_max_num_threads is not None and self.inner_max_num_threads < 1:
            raise ValueError(f"inner_max_num_threads must be at least 1, not {self.inner_max_num_threads}")
        above = self._threshold(*(given.pop(name, None) for name in _MEMMAPPING[:2]))
        given.pop("temp_folder", None)
        if is_worker() or (n_jobs == 1 and not self._asks_for_a_job(given, parallel)):
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if parallel is not None and self.parallel is not parallel:
            raise FallbackToBackend(self._for_one(parallel))
        n_jobs = self.effective_n_jobs(n_jobs)
        if given.get("executor") is None and "threads" not in given:
            given["threads"] = self.inner_max_num_threads or max(cpu_count() // n_jobs, 1)
        elif self.inner_max_num_threads is not None:
            raise TypeError("inner_max_num_threads is said otherwise: by threads=…, or as an option of the executor's")
        self._leave()
        self._executor, self._leave = POOLS.enter(int(n_jobs), given)
        engine = self._executor.backend
        self._apart = any(engine.options.get(name) for name in _OF_EACH_TASK)
        # On a node of a cluster, another file may have the name, or none.
        self._arrays = SharedArrays(above, by_name=engine.name in ("local", "inline"))
        return n_jobs

    def _asks_for_a_job(self, given: dict[str, Any], parallel: Any) -> bool:
        """Whether a call with one worker asks for what only a process of its own can give."""
        asked = self.inner_max_num_threads, getattr(parallel, "timeout", None), *given.values()
        return any(value is not None for value in asked)

    def _for_one(self, parallel: Any) -> JobrunnerBackend:
        """A backend for that Parallel alone."""
        own = type(self)(self.nesting_level, self.inner_max_num_threads, **self.backend_kwargs)
        own.parallel = parallel
        return own

    def compute_batch_size(self) -> int:
        """How many tasks make a batch."""
        return 1 if self._apart else int(super().compute_batch_size())

    def start_call(self) -> None:
        """A call of Parallel begins."""
        self._arrays.begin_call()
        # What joblib had cut into batches and not dispatched when the call before was ended, it would dispatch now.
        with contextlib.suppress(AttributeError, queue.Empty):
            while True:
                self.parallel._ready_batches.get_nowait()
        with self._lock:
            self._aborted = False

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> Batch:
        """Hand in a batch of tasks."""
        tasks: list[Task] = getattr(func, "items", None) or [(func, (), {})]
        nested = getattr(func, "_backend", None), getattr(func, "_n_jobs", None)
        batch = Batch(tasks, functools.partial(self._submit_tasks, nested), self._apart)
        with self._lock:
            aborted = self._aborted
            if not aborted:
                self._batches.add(batch)

        def tell() -> None:
            # joblib's own lock: between two calls of one Parallel, it takes what is told for the second call's.
            with self.parallel._lock:
                with self._lock:
                    wanted = batch in self._batches
                    self._batches.discard(batch)
                if wanted and callback is not None:
                    callback(batch)

        batch.begin(lambda: self._told.tell(tell))
        if aborted:
            # The call ended on another thread meanwhile.
            batch.cancel()
        return batch

    def retrieve_result_callback(self, out: Batch) -> list[Any]:
        """The results of a batch that is over."""
        return out.results()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what this call has submitted, ending the processes of what runs; other calls' tasks go on.

        Nothing more is told of it.
        """
        with self.parallel._lock, self._lock:
            self._aborted = True
            batches = list(self._batches)
            self._batches.clear()
        for batch in batches:
            batch.cancel()

    def terminate(self) -> None:
        """The call is over; its workers are kept for the next for as long as `idle_timeout` says."""
        self._executor = None
        self._leave()
        self._leave = lambda: None
        self._arrays.clear()
        self.reset_batch_stats()

    # --- tasks ---

    def _threshold(self, max_nbytes: Any, mmap_mode: str | None) -> int | None:
        """From which size on arrays are shared; None: none is.

        Raises:
            ValueError: jobs would have to write to an array of the caller's.
        """
        if mmap_mode in ("r+", "w+"):
            raise ValueError(
                f"mmap_mode={mmap_mode!r} would have tasks write to the caller's arrays, which they can't here: return "
                "what is computed, or pass a numpy.memmap of mode 'r+'"
            )
        if mmap_mode not in (None, "r", "c"):
            raise ValueError(f"mmap_mode must be 'r', 'c' or None, not {mmap_mode!r}")
        if max_nbytes is None or mmap_mode != "r":
            return None
        return parse_bytes(f"{max_nbytes}iB") if isinstance(max_nbytes, str) else int(max_nbytes)

    def _submit_tasks(self, nested: tuple[Any, int | None], tasks: list[Task]) -> Sent:
        """Some tasks as one job, whose result is a list of theirs."""
        executor = self._executor
        never: concurrent.futures.Future[list[Any]] = concurrent.futures.Future()
        sent = Sent(never, lambda: tasks)
        if executor is None:
            # The call ended on another thread meanwhile.
            never.cancel()
            return sent
        try:
            call = self._dump(nested, tasks)
            # scikit-learn wraps its functions.
            name = call_name(getattr(tasks[0][0], "function", tasks[0][0]))
            call.name = name if len(tasks) == 1 else f"{name} and {len(tasks) - 1} more"
            if len(tasks) > 1:
                # They may be run again, when the caller has gone on to change its buffers.
                call.buffers = tuple(memoryview(bytes(one) if one.readonly else bytearray(one)) for one in call.buffers)
                sent = Sent(never, functools.partial(_load_tasks, call, self._arrays))
            return sent._replace(job=executor.submit_call(call))
        except JobRunnerError as error:
            # joblib also submits in callbacks, where nobody would see it raised.
            never.set_exception(error)
            return sent

    def _dump(self, nested: tuple[Any, int | None], tasks: list[Task]) -> Call:
        """Tasks, serialised.

        Raises:
            SerializationError: one can't be; it names the part of that task.
        """
        try:
            return dump_call(_run_tasks, (nested, tasks), {}, self._arrays.substitute)
        except SerializationError:
            for function, args, kwargs in tasks:
                dump_call(function, args, kwargs)
            raise


class _Told(threading.local):
    """Tells joblib what is over, in turn: told within a call by which it submits more, it would go ever deeper."""

    def __init__(self) -> None:
        self._telling = False
        self._left: collections.deque[Callable[[], object]] = collections.deque()

    def tell(self, tell: Callable[[], object]) -> None:
        """Call `tell` now, or as soon as what this thread is telling is told."""
        self._left.append(tell)
        if self._telling:
            return
        self._telling = True
        try:
            while self._left:
                self._left.popleft()()
        finally:
            self._telling = False


def _load_tasks(call: Call, arrays: SharedArrays) -> list[Task]:
    """The tasks of a call, with the arrays that were shared, at which what is built around them may look.

    Raises:
        SerializationError: they can't be rebuilt in this process.
    """
    shared = {one.number: one for one in call.shared}
    handles = [dump_handle(handle) for handle in call.dependencies]
    _, (_, tasks), _ = load_call(call.payload, handles, call.buffers, lambda number: arrays.copy_of(shared[number]))
    return tasks  # type: ignore[no-any-return]


def _run_tasks(nested: tuple[Any, int | None], tasks: list[Task]) -> list[Any]:
    """Tasks, in a worker, with joblib told what Parallel is to use inside of them."""
    if is_worker():
        # Where nobody else has: a task may name the backend, too.
        register_joblib()
    backend, n_jobs = nested
    with contextlib.nullcontext() if backend is None else parallel_config(backend=backend, n_jobs=n_jobs):
        return [function(*args, **kwargs) for function, args, kwargs in tasks]
