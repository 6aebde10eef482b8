"""`InlineExecutor`: jobs in the calling process, for debugging and inside workers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from jobrunner import __version__
from jobrunner.backend import Backend, Capabilities, describe_machine, host_name
from jobrunner.errors import (
    ExecutorShutdownError,
    JobRunnerError,
    SerializationError,
    WorkerDiedError,
)
from jobrunner.execution import execute, exit_code
from jobrunner.executors.base import JobExecutor, check_map, check_possible, fail_unsent, start_when_ready
from jobrunner.executors.future import CANCELLED, JobFuture, Settlement
from jobrunner.html import facts_table
from jobrunner.job_ids import new_job_id
from jobrunner.messages import unpack_call
from jobrunner.options import JobOptions
from jobrunner.report import JobOutput, JobReport
from jobrunner.serialization import Call, load_exception
from jobrunner.sharing import find_among
from jobrunner.status import JobStatus

__all__ = ["InlineExecutor"]

T = TypeVar("T")

_CAPABILITIES = Capabilities(true_running_status=True, shared_objects=True)
_EPOCH_OFFSET = time.time() - time.monotonic()


class _InlineJob:
    """What is kept of a job that runs, or ran, in this process."""

    def __init__(self, job_id: str, name: str, options: JobOptions, argument_bytes: int, serialize_s: float) -> None:
        self.job_id = job_id
        self._fields: dict[str, Any] = {
            "name": options.name or name,
            "threads": options.threads,
            "argument_bytes": argument_bytes,
            "serialize_s": serialize_s,
            "submitted_at": time.monotonic() + _EPOCH_OFFSET,
            "pid": os.getpid(),
        }
        self._status = JobStatus.QUEUED
        # None once it is settled.
        self.future: JobFuture[Any] | None = JobFuture(self)

    def cancel(self) -> bool:
        """Only a job that has not started can be cancelled: there is one process, and it is the caller's."""
        return self._status is JobStatus.QUEUED and self._settle(CANCELLED)

    def _settle(self, settlement: Settlement) -> bool:
        future = self.future
        return future is not None and future.settle(settlement)

    def forget_future(self) -> None:
        self.future = None

    def output(self) -> JobOutput | None:
        """Nothing: what is printed in this process goes where that prints."""
        return None

    def live_status(self) -> JobStatus:
        return self._status

    def attend(self, deadline: float | None) -> None:
        """There is nothing to listen to."""

    def check_process(self) -> None:
        """A job in this process is settled by it."""

    def report(self, status: JobStatus) -> JobReport:
        return JobReport(job_id=self.job_id, status=status, backend="inline", host=host_name(), **self._fields)

    def run(self, body: bytes, call: Call, options: JobOptions) -> None:
        """Run the call, as often as it is to be tried."""
        payload, handles = unpack_call(body)
        find_shared = find_among(call.shared)
        fields = self._fields
        while self.future is not None:
            fields["attempts"] = fields.get("attempts", 0) + 1
            self._status = JobStatus.VALIDATING
            try:
                # Each attempt has buffers of its own, to be written to where the caller's can be.
                buffers = [memoryview(bytes(one) if one.readonly else bytearray(one)) for one in call.buffers]
                outcome = execute(payload, handles, buffers, find_shared=find_shared, on_start=self._started)
            except SystemExit as error:
                self._status = JobStatus.QUEUED
                code = exit_code(error)
                if fields["attempts"] > options.retries:
                    self.fail(_exit_error(self.job_id, code))
                    return
                continue
            times = outcome.times
            started = times.started_ns / 1e9
            fields["finished_at"] = times.finished_ns / 1e9 + _EPOCH_OFFSET
            if started:
                fields["started_at"] = started + _EPOCH_OFFSET
                fields["queue_s"] = fields["started_at"] - fields["submitted_at"]
                fields["run_s"] = times.finished_ns / 1e9 - started
            may_retry = not outcome.ok and options.retry_on and fields["attempts"] <= options.retries
            data = outcome.data
            assert isinstance(data, bytes)  # nothing stands apart unless it is asked for
            if may_retry and isinstance(load_exception(data), options.retry_on):
                continue
            if outcome.ok:
                fields["result_bytes"] = len(data)
            else:
                fields["cause"] = f"it raised {outcome.told}"
            self._settle(Settlement(ok=outcome.ok, data=data))
            return

    def _started(self) -> None:
        self._status = JobStatus.RUNNING

    def fail(self, error: JobRunnerError) -> None:
        """Let the job fail with an error of ours."""
        self._fields["cause"] = str(error)
        self._fields["finished_at"] = time.monotonic() + _EPOCH_OFFSET
        self._settle(Settlement(error=error))


def _exit_error(job_id: str, code: int) -> WorkerDiedError:
    return WorkerDiedError(
        f"job {job_id} raised SystemExit: in a worker it would have ended its process with exit code {code}",
        job_id=job_id,
        pid=os.getpid(),
        exit_code=code,
    )


class InlineExecutor(JobExecutor):
    """Runs each job in the calling process, in `submit` itself.

    Calls are serialised and rebuilt all the same, so that what works here works in a worker.  A running job can't be
    cancelled, and nothing limits it: `backend.capabilities` says so, and a job that asks for a limit is refused.

    Args:
        options: of `JobOptions`.

    Example:
        >>> with InlineExecutor() as executor:
        ...     executor.submit(pow, 2, 5).result()
        32
    """

    def __init__(self, **options: Any) -> None:
        self._options = JobOptions().replace(**options)
        self._state = {"shut_down": False}

    @property
    def backend(self) -> Backend:
        """The calling process."""
        return Backend(
            name="inline",
            version=__version__,
            max_workers=1,
            capabilities=_CAPABILITIES,
            options=self._options.non_default(),
            **describe_machine(),
        )

    def with_options(self, **options: Any) -> InlineExecutor:
        """A view of this executor whose jobs have other options; see `JobExecutor.with_options`."""
        view = type(self).__new__(type(self))
        view._options = self._options.replace(**options)
        view._state = self._state
        return view

    def submit_call(self, call: Call, job_id: str | None = None) -> JobFuture[Any]:
        """Run a serialised call now; the jobs it depends on are waited for."""
        self._check_open()
        options = self._options
        why = "an InlineExecutor runs jobs in this process, which it can't end or redirect; use a LocalExecutor"
        check_possible(options, _CAPABILITIES, why, job_id)
        job = _InlineJob(job_id or new_job_id(), call.name, options, call.nbytes, call.serialize_s)
        future = job.future
        assert future is not None
        for handle in call.dependencies:
            _await_final(handle)
        start_when_ready(call, hold=lambda: None, start=lambda body: job.run(body, call, options), fail=job.fail)
        return future

    def _check_open(self) -> None:
        if self._state["shut_down"]:
            raise ExecutorShutdownError("the executor was shut down: make a new one, or submit before the shutdown")

    def submit_failed(self, error: SerializationError, name: str) -> JobFuture[Any]:
        """A future that carries `error`."""
        return fail_unsent(_InlineJob(new_job_id(), name, self._options, 0, 0.0), error, _InlineJob.fail)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
    ) -> Iterator[T]:
        """The results of `fn` over the items, in order, each computed when it is asked for.

        Args:
            fn: what to call.
            iterables: its arguments, as for the built-in `map`.
            timeout: accepted for the interface; nothing runs beside the caller that could be waited for.
            chunksize: likewise; at least 1.
            buffersize: likewise; at least 1.
            return_exceptions: yield errors in their places instead of raising the first.

        Raises:
            ValueError: a size is below 1.
        """
        check_map(fn, timeout, chunksize, buffersize)
        self._check_open()
        return self._results(fn, zip(*iterables, strict=False), return_exceptions)

    def _results(self, fn: Callable[..., T], items: Iterable[Any], return_exceptions: bool) -> Iterator[Any]:
        for item in items:
            future = self.submit(fn, *item)
            error = future.exception()
            if error is None:
                yield future.result()
            elif return_exceptions:
                yield error
            else:
                raise error

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False) -> None:
        """Take no more jobs; there is nothing to wait for."""
        self._state["shut_down"] = True

    def __reduce__(self) -> tuple[type[InlineExecutor], tuple[()]]:
        return InlineExecutor, ()

    def _repr_html_(self) -> str:
        return facts_table("InlineExecutor", {"jobs run": "in this process"})

    def __repr__(self) -> str:
        return "<InlineExecutor>"


def _await_final(handle: Any) -> None:
    """Wait until a job handle is final, whatever it came to."""
    over = threading.Event()
    handle.dependency().add_done_callback(lambda _: over.set())
    over.wait()
