"""joblib's backend: tasks of `joblib.Parallel` as jobs.

joblib hands over batches of tasks: one task at a time where they take long, several where they are short.  A batch is a
job.  If that ends its process, or is ended at a limit, its tasks are run again, each as a job of its own: so that what
happens to one happens to no other.  Arrays that joblib would have memory-mapped, those above ``max_nbytes`` (1 MB), are
shared: they cross once to each worker, and arrive read-only.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from joblib import cpu_count, parallel_config
from joblib.parallel import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend

from jobrunner.errors import JobRunnerError, SerializationError
from jobrunner.executors.base import JobExecutor
from jobrunner.joblib.pools import POOLS, split_options
from jobrunner.joblib.scores import ENDED, can_be_scored, score_of_failed
from jobrunner.memory import parse_bytes
from jobrunner.role import is_worker
from jobrunner.serialization import Call, call_name, dump_call
from jobrunner.sharing import Shared, share

__all__ = ["JobrunnerBackend"]

Task = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

#: What joblib says of memory-mapping, whatever the backend.
_MEMMAPPING = ("max_nbytes", "mmap_mode", "temp_folder")
_REFUSED = {
    "temp_folder": "arrays go to the workers in shared memory, and no folder is needed: leave it out",
    "timeout": "say Parallel(timeout=…) for the wait for a result, time_limit=… for each task, or idle_timeout=… for "
    "idle workers",
    "idle_worker_timeout": "say idle_timeout=…",
    "context": "workers are started as jobrunner does: leave it out",
    "max_workers": "say n_jobs=…",
    "max_pending": "joblib bounds what is dispatched: say Parallel(pre_dispatch=…)",
    "inner_max_num_threads": "say threads=…, or parallel_config(backend='jobrunner', inner_max_num_threads=…)",
}


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
        self._executor: JobExecutor | None = None
        self._leave: Callable[[], None] = lambda: None
        # Shared arrays by the id of the array, which is kept with them; for one call of Parallel.
        self._shared: dict[int, tuple[Any, Shared[Any]]] = {}
        self._max_nbytes: int | None = None
        self._lock = threading.Lock()
        # Guarded by the lock: what was submitted and is not over, and whether nothing more is to be.
        self._batches: set[_Batch] = set()
        self._aborted = False

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
        if n_jobs > 0:
            return n_jobs
        executor = self.backend_kwargs.get("executor")
        most = cpu_count() if executor is None else executor.backend.max_workers or 1
        return max(most + 1 + n_jobs, 1)

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **options: Any
    ) -> int:
        """Get workers ready."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        given = {**self.backend_kwargs, **options}
        # Said by joblib itself.
        for name in ("verbose", "context"):
            given.pop(name, None)
        self._check(given)
        self._max_nbytes = self._threshold(*(given.pop(name, None) for name in _MEMMAPPING[:2]))
        given.pop("temp_folder", None)
        if given.get("executor") is None and "threads" not in given:
            given["threads"] = self.inner_max_num_threads or max(cpu_count() // n_jobs, 1)
        elif self.inner_max_num_threads is not None:
            raise TypeError("inner_max_num_threads is said otherwise: by threads=…, or as an option of the executor's")
        self._executor, self._leave = POOLS.enter(n_jobs, given)
        self.parallel = parallel
        return n_jobs

    def start_call(self) -> None:
        """A call of Parallel begins."""
        with self._lock:
            self._aborted = False

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> _Batch:
        """Hand in a batch of tasks."""
        tasks: list[Task] = getattr(func, "items", None) or [(func, (), {})]
        nested = getattr(func, "_backend", None), getattr(func, "_n_jobs", None)
        batch = _Batch(tasks, functools.partial(self._submit_tasks, nested))
        with self._lock:
            aborted = self._aborted
            self._batches.add(batch)

        def over() -> None:
            with self._lock:
                self._batches.discard(batch)
            if callback is not None:
                callback(batch)

        batch.begin(over)
        if aborted:
            # The call ended on another thread meanwhile.
            batch.cancel()
        return batch

    def retrieve_result_callback(self, out: _Batch) -> list[Any]:
        """The results of a batch that is over."""
        return out.results()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what this call has submitted, ending the processes of what runs; other calls' tasks go on."""
        with self._lock:
            self._aborted = True
            batches = list(self._batches)
        for batch in batches:
            batch.cancel()

    def terminate(self) -> None:
        """The call is over; its workers are kept for the next for as long as `idle_timeout` says."""
        self._executor = None
        self._leave()
        self._leave = lambda: None
        self._shared.clear()
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
                "what is computed"
            )
        if max_nbytes is None or mmap_mode != "r":
            return None
        return parse_bytes(f"{max_nbytes}iB") if isinstance(max_nbytes, str) else int(max_nbytes)

    def _submit_tasks(self, nested: tuple[Any, int | None], tasks: list[Task]) -> concurrent.futures.Future[list[Any]]:
        """Some tasks as one job, whose result is a list of theirs."""
        executor = self._executor
        assert executor is not None
        try:
            shared = [
                (function, tuple(map(self._share, args)), {name: self._share(one) for name, one in kwargs.items()})
                for function, args, kwargs in tasks
            ]
            call = self._dump(nested, shared)
            # scikit-learn wraps its functions.
            name = call_name(getattr(tasks[0][0], "function", tasks[0][0]))
            call.name = name if len(tasks) == 1 else f"{name} and {len(tasks) - 1} more"
            return executor.submit_call(call)
        except JobRunnerError as error:
            # joblib also submits in callbacks, where nobody would see it raised.
            failed: concurrent.futures.Future[list[Any]] = concurrent.futures.Future()
            failed.set_exception(error)
            return failed

    def _dump(self, nested: tuple[Any, int | None], tasks: list[Task]) -> Call:
        """Tasks, serialised.

        Raises:
            SerializationError: one can't be; it names the part of that task.
        """
        try:
            return dump_call(_run_tasks, (nested, tasks), {})
        except SerializationError:
            for function, args, kwargs in tasks:
                dump_call(function, args, kwargs)
            raise

    def _share(self, value: Any) -> Any:
        """An argument, or a handle in its place if it is a large array."""
        if self._max_nbytes is None or getattr(value, "nbytes", 0) <= self._max_nbytes:
            return value
        if type(value).__name__ not in ("ndarray", "memmap") or value.dtype.hasobject:
            return value
        known = self._shared.get(id(value))
        if known is None:
            known = self._shared[id(value)] = (value, share(value))
        return known[1]


def _run_tasks(nested: tuple[Any, int | None], tasks: list[Task]) -> list[Any]:
    """Tasks, in a worker, with joblib told what Parallel is to use inside of them."""
    backend, n_jobs = nested
    with contextlib.nullcontext() if backend is None else parallel_config(backend=backend, n_jobs=n_jobs):
        return [function(*args, **kwargs) for function, args, kwargs in tasks]


class _Batch:
    """A batch of tasks, which joblib waits for as a whole.

    Args:
        tasks: the tasks.
        submit: submits some of them as one job.
    """

    def __init__(self, tasks: list[Task], submit: Callable[[list[Task]], concurrent.futures.Future[list[Any]]]) -> None:
        self._tasks = tasks
        self._submit = submit
        self._over: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        # Guarded by the lock: all tasks in one job, or a job for each; and whether they are not wanted any more.
        self._jobs: list[concurrent.futures.Future[list[Any]]] = []
        self._cancelled = False
        # Jobs that were not seen to be over; of whoever was called last.
        self._left: Iterator[int] = iter(())

    def begin(self, over: Callable[[], object]) -> None:
        """Submit the tasks.

        Args:
            over: called when they are over, or the first has failed.
        """
        self._over = over
        self._start([self._tasks])

    def _start(self, parts: list[list[Task]]) -> None:
        jobs = [self._submit(part) for part in parts]
        with self._lock:
            self._jobs = jobs
            cancelled = self._cancelled
        if cancelled:
            self.cancel()
        self._left = iter(range(len(jobs)))
        self._go_on()

    def _go_on(self) -> None:
        """Look at the jobs in order; at the first that is not over, come back when it is."""
        for place in self._left:
            if not self._jobs[place].done():
                self._jobs[place].add_done_callback(lambda _, place=place: self._look(place))  # type: ignore[misc]
                return
            if self._decide(place):
                return
        self._over()

    def _look(self, place: int) -> None:
        if not self._decide(place):
            self._go_on()

    def _decide(self, place: int) -> bool:
        """Look at a job that is over; whether there is nothing more to look at."""
        job = self._jobs[place]
        error = None if job.cancelled() else job.exception()
        if error is None and not job.cancelled():
            return False
        if len(self._jobs) < len(self._tasks) and isinstance(error, ENDED) and not self._cancelled:
            # Which of them has ended the process is not known: each again, by itself.
            self._start([[task] for task in self._tasks])
            return True
        if error is not None and can_be_scored(error, *self._tasks[place]):
            return False
        self._over()
        return True

    def results(self) -> list[Any]:
        """What the tasks have returned.

        Raises:
            BaseException: what the first that failed has raised.
        """
        return [result for place in range(len(self._jobs)) for result in self._results_of(place)]

    def _results_of(self, place: int) -> list[Any]:
        job = self._jobs[place]
        error = job.exception()
        if error is not None and can_be_scored(error, *self._tasks[place]):
            return [score_of_failed(error, *self._tasks[place])]
        return job.result()

    def cancel(self) -> None:
        """Cancel them, the last first: none that waits is to start when one that runs has ended."""
        with self._lock:
            self._cancelled = True
            jobs = list(self._jobs)
        for job in reversed(jobs):
            job.cancel()
