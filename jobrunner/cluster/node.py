"""A node: the lanes of one caller in a process that the cluster's engine has started, and what is said to them.

Knows nothing of the engine.  What the caller wants comes by `post`, a list of operations at a time, in order; what
happens goes by `collect`, a list of events at a time, as soon as there is any.  Both are tuples of plain values whose
first item says what it is; large buffers stand in them as `pickle.PickleBuffer`, so that an engine need not copy them.

    operations                                          events
    ("job", order, lease, fields, options, body,        ("running", order, fields)  the function has started
            buffers, shared numbers)                    ("outcome", order, ok, data, buffers, error, fields, output,
    ("cancel", order)  end it                                   number of the last that it may have printed)
    ("take back", order)  unless a lane has it          ("cancelled", order, whether nothing of it is alive)
    ("share", number, parts)                            ("back", order)
    ("forget", number)                                  ("refused", order, why)
    ("written", bytes)  of what was printed             ("note", order, body, pid)
                                                        ("evicted", order)  its lease was taken away
                                                        ("too large", order, bytes, why, fields, number)  what it has
                                                                returned
                                                        ("printed", stream, data, number)  see `Forwarder`
"""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import platform
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from jobrunner import __version__
from jobrunner.backend import host_name
from jobrunner.cluster.forwarder import Forwarder
from jobrunner.executors.future import JobFuture
from jobrunner.executors.local import LocalExecutor
from jobrunner.executors.output import OutputWriter
from jobrunner.executors.pool_job import PoolJob
from jobrunner.memory import machine_memory
from jobrunner.messages import unpack_call
from jobrunner.options import default_max_workers
from jobrunner.packages import version_of
from jobrunner.parcel import APART_BYTES, Parcel, unpack_parts
from jobrunner.serialization import load_call
from jobrunner.sharing import Shared
from jobrunner.status import JobStatus

__all__ = ["Node", "begin_with_uploads", "call_packed", "describe_node"]

#: How often it is looked whether jobs that were not seen running are.
_LOOK_S = 0.04
#: The first look after a job has come.
_FIRST_LOOK_S = 0.002

#: Fields of a report that tell of the run, and are known at the node.
_FIELDS = (
    *("host", "pid", "started_at", "finished_at", "run_s", "cpu_s", "peak_rss_bytes", "result_bytes", "exit_code"),
    *("exit_signal", "cause", "oom_likely", "stack", "stdout_head", "stdout_tail", "stderr_head", "stderr_tail"),
)

#: Packages of which a caller and its nodes should have the same version: what is pickled of them crosses.
_PACKAGES = ("cloudpickle", "loky", "numpy", "scipy", "pandas", "qiskit", "qiskit-aer")


def describe_node(cores: int | None = None, memory: int | None = None) -> dict[str, Any]:
    """What a caller wants to know of a node.

    Args:
        cores: that jobs may take up; None: what this process may use.
        memory: bytes that jobs may use together; None: what the machine has.
    """
    return {
        "host": host_name(),
        "pid": os.getpid(),
        "cores": cores or default_max_workers(),
        # What one job may have of them: there may be more places than the machine has cores.
        "threads": min(cores or default_max_workers(), os.cpu_count() or 1),
        "memory": min(memory or sys.maxsize, int(0.9 * machine_memory())),
        "python": platform.python_version(),
        "jobrunner": __version__,
        "packages": {name: version for name in _PACKAGES if (version := version_of(name)) is not None},
        "time": time.time(),
    }


def call_packed(body: bytes) -> None:
    """Call an initializer that its caller has packed; in a worker."""
    head, *buffers = unpack_parts(body)
    payload, handles = unpack_call(head)
    function, args, kwargs = load_call(payload, handles, buffers)
    function(*args, **kwargs)


def begin_with_uploads(
    directory: str, preload: Sequence[str], initializer: Callable[..., object] | None, initargs: Sequence[Any]
) -> None:
    """Begin as a worker that imports from a directory first; in a worker."""
    sys.path.insert(0, directory)
    for module in preload:
        importlib.import_module(module)
    if initializer is not None:
        initializer(*initargs)


class _NodeExecutor(LocalExecutor):
    """A LocalExecutor whose jobs print to the caller of their node."""

    def __init__(self, make_writer: Callable[[], OutputWriter], **options: Any) -> None:
        self._make_writer = make_writer
        super().__init__(**options)


class Node:
    """The lanes of one caller in this process.

    Args:
        description: what `describe_node` has told the caller.
        pool: options of the `LocalExecutor`, but for its size.
        uploads: files for the jobs to import: (name, whether it is an archive to unpack, content).
    """

    def __init__(
        self, description: dict[str, Any], pool: dict[str, Any], uploads: Sequence[tuple[str, bool, bytes]] = ()
    ) -> None:
        self._changed = threading.Condition()
        # All below is guarded by _changed, up to the blank line.
        self._events: list[tuple[Any, ...]] = []
        # What the last collect gave: it may not arrive.
        self._collected: list[tuple[Any, ...]] = []
        # By order: the jobs that are here, and those of them that were not seen running.
        self._jobs: dict[int, JobFuture[Any]] = {}
        self._unseen: dict[int, JobFuture[Any]] = {}
        # The jobs of each lease.
        self._leases: dict[int, set[int]] = {}
        self._pause = _LOOK_S
        self._closed = False

        # For the thread that posts.
        self._shared: dict[int, Shared[Any]] = {}
        self._views: dict[str, LocalExecutor] = {}
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        forwarder = self._forwarder = Forwarder(self.tell)
        self._executor = _NodeExecutor(
            lambda: forwarder,
            max_workers=description["cores"],
            memory_budget=description["memory"],
            **{**pool, **self._unpack(uploads, pool)},
        )

    def _unpack(self, uploads: Sequence[tuple[str, bool, bytes]], pool: dict[str, Any]) -> dict[str, Any]:
        """Put files where the jobs import them from.

        Args:
            uploads: the files.
            pool: options of the workers.

        Returns:
            The options that are others for it.  This process's own path stays as it is: it is that of other callers'
            lanes, too.
        """
        if not uploads:
            return {}
        # Private to this user; workers find it by the path that they are handed.
        self._directory = tempfile.TemporaryDirectory(prefix="jobrunner-upload-")
        directory = Path(self._directory.name)
        for name, is_archive, content in uploads:
            if is_archive:
                with zipfile.ZipFile(BytesIO(content)) as archive:
                    archive.extractall(directory)  # refuses names that lead elsewhere
            else:
                (directory / Path(name).name).write_bytes(content)
        begin = pool.get("preload", ()), pool.get("initializer"), pool.get("initargs", ())
        return {"preload": (), "initializer": begin_with_uploads, "initargs": (str(directory), *begin)}

    # --- what the caller wants; one thread at a time ---

    def post(self, operations: Sequence[tuple[Any, ...]]) -> None:
        """Carry operations out, in order."""
        for kind, *facts in operations:
            if kind == "job":
                self._take(*facts)
            elif kind == "cancel":
                self._cancel(*facts)
            elif kind == "take back":
                self._take_back(*facts)
            elif kind == "share":
                number, parts = facts
                memories = [memoryview(part) for part in parts]
                self._shared[number] = Shared(Parcel(memories[0], memories[1:]), number)
            elif kind == "forget":
                self._shared.pop(facts[0], None)
            elif kind == "written":
                self._forwarder.written(*facts)
            else:
                raise ValueError(f"unknown operation: {kind!r}")

    def _take(
        self,
        order: int,
        lease: int,
        fields: tuple[str, str],
        options: dict[str, Any],
        body: Any,
        buffers: Sequence[Any],
        shared: Sequence[int],
    ) -> None:
        try:
            future = self._view(options).submit_packed(
                bytes(body) if isinstance(body, (bytes, bytearray)) else memoryview(body),
                [memoryview(buffer) for buffer in buffers],
                [self._shared[number] for number in shared],
                job_id=fields[0],
                name=fields[1],
                on_note=lambda note, pid: self.tell(("note", order, note, pid)),
            )
        except Exception as error:
            # What this node can't keep, such as a memory limit above what it has.
            self.tell(("refused", order, f"{type(error).__name__}: {error}"))
            return
        with self._changed:
            self._jobs[order] = self._unseen[order] = future
            self._leases.setdefault(lease, set()).add(order)
            self._pause = _FIRST_LOOK_S
            self._changed.notify_all()
        future.add_done_callback(functools.partial(self._ended, order, lease))

    def _view(self, options: dict[str, Any]) -> LocalExecutor:
        if not options:
            return self._executor
        key = repr(sorted(options.items()))
        view = self._views.get(key)
        if view is None:
            if len(self._views) > 100:
                self._views.clear()
            view = self._views[key] = self._executor.with_options(**options)
        return view

    def _ended(self, order: int, lease: int, future: JobFuture[Any]) -> None:
        settlement = future.settlement
        with self._changed:
            self._jobs.pop(order, None)
            self._unseen.pop(order, None)
            orders = self._leases.get(lease, set())
            orders.discard(order)
            if not orders:
                self._leases.pop(lease, None)
        if settlement is None or future.cancelled():
            return  # whoever has cancelled it tells
        report = future.report()
        fields = {name: value for name in _FIELDS if (value := getattr(report, name)) is not None}
        data: Any = settlement.data
        buffers: list[Any] = []
        if isinstance(data, Parcel):
            buffers = [pickle.PickleBuffer(buffer) for buffer in data.buffers]
            data = data.payload
        if isinstance(data, memoryview):
            data = pickle.PickleBuffer(data)
        error = None if settlement.error is None else pickle.dumps(settlement.error)
        # The whole, where it is more than the report has.
        output = None
        if report.stdout_head is not None and (whole := future.output()) is not None:
            output = tuple(whole)
        record = future.record
        assert isinstance(record, PoolJob)
        self.tell(("outcome", order, settlement.ok, data, buffers, error, fields, output, record.ticket))

    def _cancel(self, order: int) -> None:
        with self._changed:
            future = self._jobs.get(order)
        if future is None:
            return  # its outcome is on its way
        # It returns when the job's processes are gone; meanwhile others can be cancelled.
        threading.Thread(target=self._end, args=(order, future), name=f"jobrunner-cancel-{order}", daemon=True).start()

    def _end(self, order: int, future: JobFuture[Any]) -> None:
        ended = future.cancel()
        if ended or not future.done():
            self.tell(("cancelled", order, ended))

    def evict(self, lease: int) -> None:
        """A lease is at its end, though its caller has not given it back: end its jobs, waiting for that."""
        with self._changed:
            evicted = {order: self._jobs[order] for order in self._leases.get(lease, ()) if order in self._jobs}
        # Told first: none is to take a cancelled one for done.
        for order in evicted:
            self.tell(("evicted", order))
        for future in evicted.values():
            future.cancel()

    def _take_back(self, order: int) -> None:
        with self._changed:
            future = self._jobs.get(order)
        if future is not None and self._executor.take_out(future):
            self.tell(("back", order))

    # --- what happens; any thread ---

    def tell(self, event: tuple[Any, ...]) -> None:
        """Have the caller told of something."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def collect(self, timeout: float) -> list[tuple[Any, ...]] | None:
        """What has happened since the last call, waiting for something.

        Args:
            timeout: seconds after which it comes back with nothing.

        Returns:
            None once the node is closed.
        """
        until = time.monotonic() + timeout
        with self._changed:
            while not self._events and not self._closed:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, self._pause) if self._unseen else left)
                self._pause = min(2 * self._pause, _LOOK_S)
                self._look()
            if self._closed and not self._events:
                return None
            events, self._events = self._events, []
            self._collected = events
        return events

    def undelivered(self, why: str) -> bool:
        """What the last collect gave can't be carried to the caller: tell it again, but for results that are large.

        Args:
            why: what the engine says.

        Returns:
            Whether there is hope: False where nothing of it was large.
        """
        with self._changed:
            before, self._collected = self._collected, []
            told = [_without_result(event, why) for event in before]
            self._events = [*told, *self._events]
            self._changed.notify_all()
        return any(now is not then for now, then in zip(told, before, strict=True))

    def _look(self) -> None:
        """Note which jobs have started; those that came first are looked at."""
        limit = 4 * self._executor.backend.max_workers  # type: ignore[operator]
        started = []
        for order, future in list(self._unseen.items())[:limit]:
            if future.status() is JobStatus.RUNNING:
                report = future.report()
                started.append((order, {"host": report.host, "pid": report.pid, "started_at": report.started_at}))
        for order, fields in started:
            del self._unseen[order]
            self._events.append(("running", order, fields))

    # --- the end ---

    def close(self) -> None:
        """End all jobs, and the lanes; waits for their processes to be gone."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._forwarder.close()
        self._executor.shutdown(wait=True, cancel_futures=True, kill_workers=True)
        if self._directory is not None:
            self._directory.cleanup()


def _without_result(event: tuple[Any, ...], why: str) -> tuple[Any, ...]:
    """An event, or what there is to tell in its place if it carries a large result."""
    if event[0] != "outcome":
        return event
    _, order, _, data, buffers, _, fields, _, number = event
    parts = [*buffers, *([] if data is None else [data])]
    nbytes = sum(memoryview(part).nbytes for part in parts)
    return event if nbytes < APART_BYTES else ("too large", order, nbytes, why, fields, number)
