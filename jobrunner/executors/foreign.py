"""Jobs over any other `concurrent.futures.Executor`: loky's own, the standard library's, mpi4py's, Dask's, …

The cloudpickled call goes to that executor, and the job's status is read from its future.  What such an executor can't
do, the backend's capabilities say: a running job is not ended by `cancel`, and nothing limits it.
"""

from __future__ import annotations

import concurrent.futures
import os
import platform
import sys
import time
from typing import Any

from jobrunner.backend import Backend, Capabilities, describe_machine, host_name
from jobrunner.errors import ExecutorShutdownError, JobError, JobRunnerError, SerializationError, WorkerDiedError
from jobrunner.execution import Times, execute, exit_code
from jobrunner.executors.base import JobExecutor, fail_unsent, start_when_ready
from jobrunner.executors.default import use_executor
from jobrunner.executors.future import CANCELLED, JobFuture, Settlement
from jobrunner.executors.inline import InlineExecutor
from jobrunner.job_ids import new_job_id
from jobrunner.messages import unpack_call
from jobrunner.packages import version_of
from jobrunner.parcel import pack_parts, unpack_parts
from jobrunner.report import JobOutput, JobReport
from jobrunner.serialization import Call
from jobrunner.status import JobStatus

__all__ = ["ForeignExecutor", "as_job_executor"]

_EPOCH_OFFSET = time.time() - time.monotonic()

#: (how it ended: "ok", "raised" or "exit"; pickled outcome; exit code; pid; times; what it raised in words)
_Answer = tuple[str, bytes, int, int, Times, str]


def _run(body: bytes, caller: int) -> _Answer:
    """Run a call wherever the foreign executor has brought it."""
    head, *buffers = unpack_parts(body)
    payload, handles = unpack_call(head)
    pid = os.getpid()
    try:
        if pid == caller:
            outcome = execute(payload, handles, buffers)
        else:
            # In a process of the executor's: jobs within the job run in line, as in any worker.
            with use_executor(InlineExecutor()):
                outcome = execute(payload, handles, buffers)
    except SystemExit as error:
        return "exit", b"", exit_code(error), pid, Times(0, 0, 0), ""
    assert isinstance(outcome.data, bytes)  # nothing stands apart unless it is asked for
    return ("ok" if outcome.ok else "raised"), outcome.data, 0, pid, outcome.times, outcome.told


class _ForeignJob:
    """What is kept of a job that a foreign executor runs."""

    def __init__(self, engine: str, job_id: str, name: str, argument_bytes: int, serialize_s: float) -> None:
        self.job_id = job_id
        self._inner: concurrent.futures.Future[_Answer] | None = None
        self._fields: dict[str, Any] = {
            "backend": engine,
            "name": name,
            "argument_bytes": argument_bytes,
            "serialize_s": serialize_s,
            "submitted_at": time.time(),
        }
        # None once it is settled.
        self.future: JobFuture[Any] | None = JobFuture(self)

    def start(self, executor: concurrent.futures.Executor, body: bytes) -> None:
        """Hand the call to the executor."""
        if self.future is None:
            return  # cancelled while it waited for other jobs
        try:
            inner = self._inner = executor.submit(_run, body, os.getpid())
        except concurrent.futures.BrokenExecutor as error:
            raise WorkerDiedError(
                f"the {type(executor).__name__} is broken: {error}. Make a new one.", job_id=self.job_id
            ) from error
        except RuntimeError as error:
            raise ExecutorShutdownError(
                f"the {type(executor).__name__} takes no job: {error}", job_id=self.job_id
            ) from error
        inner.add_done_callback(self._take)

    def _take(self, inner: concurrent.futures.Future[_Answer]) -> None:
        """The executor's future is final; on a thread of the executor's."""
        self._fields["finished_at"] = time.time()
        if inner.cancelled():
            self._fields["cause"] = "it was cancelled"
            self._settle(CANCELLED)
            return
        failure = inner.exception()
        if failure is not None:
            self.fail(_translate(failure, self.job_id))
            return
        how, data, code, pid, times, told = inner.result()
        self._fields.update(pid=pid, attempts=1)
        if times.started_ns and pid == os.getpid():
            self._fields["started_at"] = times.started_ns / 1e9 + _EPOCH_OFFSET
        if times.started_ns:
            self._fields["run_s"] = (times.finished_ns - times.started_ns) / 1e9
        if how == "exit":
            self._fields["exit_code"] = code
            self.fail(
                WorkerDiedError(
                    f"job {self.job_id} raised SystemExit, asking its process to end with exit code {code}",
                    job_id=self.job_id,
                    pid=pid,
                    exit_code=code,
                )
            )
            return
        if how == "ok":
            self._fields["result_bytes"] = len(data)
        else:
            self._fields["cause"] = f"it raised {told}"
        self._settle(Settlement(ok=how == "ok", data=data))

    def fail(self, error: JobRunnerError) -> None:
        """Let the job fail with an error of ours."""
        self._fields["cause"] = str(error)
        self._fields.setdefault("finished_at", time.time())
        self._settle(Settlement(error=error))

    def cancel(self) -> bool:
        """Cancel the job if the executor's future can be."""
        inner = self._inner
        if inner is not None and not inner.cancel():
            return False
        future = self.future
        return future is None or future.settle(CANCELLED) or future.cancelled()

    def _settle(self, settlement: Settlement) -> None:
        future = self.future
        if future is not None:
            future.settle(settlement)

    def forget_future(self) -> None:
        """The future is settled: neither it nor the executor's future is needed any more."""
        self.future = None
        self._inner = None

    def output(self) -> JobOutput | None:
        """Nothing: what is printed by a foreign executor goes where that prints."""
        return None

    def live_status(self) -> JobStatus:
        """What the executor's future says."""
        inner = self._inner
        if inner is None:
            return JobStatus.QUEUED
        return JobStatus.RUNNING if inner.running() or inner.done() else JobStatus.QUEUED

    def attend(self, deadline: float | None) -> None:
        """There is nothing to listen to."""

    def check_process(self) -> None:
        """Nothing is known of what the executor makes of a fork."""

    def report(self, status: JobStatus) -> JobReport:
        """What is known of the job, which is little."""
        return JobReport(job_id=self.job_id, status=status, host=host_name(), **self._fields)


def _translate(failure: BaseException, job_id: str) -> JobRunnerError:
    """The error for a call that the executor itself failed to run."""
    error: JobRunnerError
    if isinstance(failure, concurrent.futures.BrokenExecutor):
        error = WorkerDiedError(
            f"the executor broke while it had job {job_id}, perhaps because of another job: {failure}", job_id=job_id
        )
    else:
        error = JobRunnerError(
            f"the executor could not run job {job_id}: {type(failure).__name__}: {failure}", job_id=job_id
        )
    error.__cause__ = failure
    return error


class ForeignExecutor(JobExecutor):
    """A foreign executor, as jobs see it.

    Args:
        executor: any `concurrent.futures.Executor`; it stays its owner's to shut down.
    """

    def __init__(self, executor: concurrent.futures.Executor) -> None:
        self._executor = executor

    @property
    def backend(self) -> Backend:
        """The executor by its class, and what is not known of it as None."""
        workers = getattr(self._executor, "_max_workers", None)
        return Backend(
            name=type(self._executor).__name__,
            version=_version(type(self._executor).__module__.partition(".")[0]),
            max_workers=workers if isinstance(workers, int) else None,
            capabilities=Capabilities(),
            **describe_machine(),
        )

    def with_options(self, **options: Any) -> JobExecutor:
        """Refused: the executor has no such options."""
        raise JobError(f"a {type(self._executor).__name__} has no job options: use a LocalExecutor")

    def submit_call(self, call: Call, job_id: str | None = None) -> JobFuture[Any]:
        """Take a serialised call; see `JobExecutor.submit_call`."""
        name = type(self._executor).__name__
        if call.shared:
            raise JobError(
                f"a {name} has no shared objects (backend.capabilities.shared_objects is False): pass the object "
                "itself, or use a LocalExecutor",
                job_id=job_id,
            )
        job = _ForeignJob(name, job_id or new_job_id(), call.name, call.nbytes, call.serialize_s)
        future = job.future
        assert future is not None
        # Copies, which later changes of the arguments don't reach.
        buffers = [memoryview(bytes(buffer)) for buffer in call.buffers]

        def start(head: bytes) -> None:
            job.start(self._executor, pack_parts([head, *buffers]))

        start_when_ready(call, hold=lambda: None, start=start, fail=job.fail)
        return future

    def submit_failed(self, error: SerializationError, name: str) -> JobFuture[Any]:
        """A future that carries `error`."""
        job = _ForeignJob(type(self._executor).__name__, new_job_id(), name, 0, 0.0)
        return fail_unsent(job, error, _ForeignJob.fail)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False) -> None:
        """Shut the foreign executor down."""
        self._executor.shutdown(wait=wait, cancel_futures=cancel_futures)


def _version(package: str) -> str | None:
    if package in sys.stdlib_module_names:
        return platform.python_version()
    return version_of(package)


def as_job_executor(executor: concurrent.futures.Executor) -> JobExecutor:
    """`executor` as jobs need it: itself if it is one of ours, else wrapped.

    Raises:
        TypeError: it is no executor.
    """
    if isinstance(executor, JobExecutor):
        return executor
    if isinstance(executor, concurrent.futures.Executor):
        return ForeignExecutor(executor)
    hint = ""
    if hasattr(executor, "get_executor"):
        hint = f"; pass what {type(executor).__name__}.get_executor() returns"
    raise TypeError(f"expected a concurrent.futures.Executor, not {executor!r}{hint}")
