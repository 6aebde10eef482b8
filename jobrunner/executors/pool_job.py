"""A job of a pool: what the scheduler keeps of it, and what its caller is told."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from jobrunner.backend import host_name
from jobrunner.errors import JobError, SerializationError
from jobrunner.executors.freight import Shipment
from jobrunner.executors.future import JobFuture, Settlement
from jobrunner.executors.output import Capture
from jobrunner.executors.post_mortem import Death, was_out_of_memory
from jobrunner.executors.records import End, Job, JobState
from jobrunner.executors.services import services
from jobrunner.job_ids import new_job_id
from jobrunner.messages import Kind, unpack_failure
from jobrunner.options import JobOptions
from jobrunner.parcel import APART_BYTES, Parcel
from jobrunner.report import JobOutput, JobReport
from jobrunner.serialization import Call
from jobrunner.status import JobStatus

if TYPE_CHECKING:
    from jobrunner.executors.pool import Pool

__all__ = ["ChunkWatcher", "Feeder", "PoolJob"]

_making_id = threading.Lock()

# Workers stamp with the monotonic clock, which all processes of a machine share; reports tell UTC.
_EPOCH_OFFSET = time.time() - time.monotonic()


class ChunkWatcher(Protocol):
    """Takes the pieces of a chunk as they come; called on internal threads, and must not block."""

    def piece(self, job: PoolJob, data: bytes | Parcel | SerializationError) -> None:
        """Some of the chunk's items are done; an error where what they came to could not be taken in."""

    def ended(self, job: PoolJob, settlement: Settlement) -> None:
        """The chunk has come to its end."""


class Feeder(Protocol):
    """Hands in, piece by piece, the jobs of a call made before."""

    def close(self) -> None:
        """Hand in what was taken from the caller, and nothing beyond."""

    def stop(self) -> None:
        """Hand in nothing more; what was not handed in is cancelled."""


class PoolJob(Job):
    """A job of a pool: what the scheduler keeps, and what the caller is told.

    Attributes:
        future: what the caller holds; None once it is settled.
        body: what is sent to the worker; None once the job is final.
    """

    __slots__ = (
        "argument_bytes",
        "body",
        "capture",
        "cause",
        "cpu_ns",
        "distrusted",
        "exit_code",
        "exit_signal",
        "finished",
        "flags",
        "future",
        "given_id",
        "item",
        "kind",
        "name",
        "noted",
        "on_note",
        "oom_likely",
        "order",
        "peak_bytes",
        "pid",
        "pool",
        "raised",
        "rest_bytes",
        "result_bytes",
        "serialize_s",
        "shared",
        "shipment",
        "short_of_memory",
        "stack",
        "started",
        "stuck",
        "submitted",
        "ticket",
        "was_cancelled",
        "watcher",
    )

    def __init__(
        self,
        pool: Pool,
        seq: int,
        options: JobOptions,
        job_id: str | None,
        name: str,
        argument_bytes: int,
        serialize_s: float,
    ) -> None:
        Job.__init__(self, seq, options, argument_bytes)
        self.pool = pool
        self.given_id = job_id
        self.name = options.name or name
        self.kind = Kind.JOB
        self.body: bytes | None = None
        self.flags = 0
        # Its large data, and the shared objects that it needs.
        self.shipment: Shipment | None = None
        self.shared: tuple[Any, ...] = ()
        self.argument_bytes = argument_bytes
        self.serialize_s = serialize_s
        # The number of its last sending, by which the worker knows it.
        self.order = 0
        # Monotonic seconds; 0 where not (yet) known.
        self.submitted = time.monotonic()
        self.started = 0.0
        self.finished = 0.0
        self.pid: int | None = None
        self.exit_code: int | None = None
        self.exit_signal: int | None = None
        self.cause: str | None = None
        self.cpu_ns: int | None = None
        # Bytes; 0 where not (yet) known.  What its processes used at most, and what its worker had before it.
        self.peak_bytes = 0
        self.rest_bytes = 0
        self.stack: str | None = None
        self.oom_likely: bool | None = None
        # What it prints, if that is captured.
        self.capture: Capture | None = None
        # What it has printed is written when the writer of outputs has done so many things.
        self.ticket = 0
        # Whether a warning or log record of it is being passed on.
        self.noted = False
        # Takes its warnings and log records, with its worker's pid; None: this process's own `warnings` and `logging`.
        self.on_note: Callable[[bytes, int], None] | None = None
        self.result_bytes: int | None = None
        # The settlement of an outcome for which it is being found out whether to retry.
        self.raised: Settlement | None = None
        # Its function wrote into the worker's channel.
        self.distrusted = False
        # The caller had no memory for what it sent.
        self.short_of_memory = False
        # The kernel is slow to end its processes: a cancel waits no longer.
        self.stuck = False
        # It ended by being cancelled, whether its future was told yet or not.
        self.was_cancelled = False
        # Of a chunk: who takes its pieces, and the item that was in work when the worker died.
        self.watcher: ChunkWatcher | None = None
        self.item: int | None = None
        self.future: JobFuture[Any] | None = JobFuture(self)

    @property
    def job_id(self) -> str:
        """The job's id; made when it is first asked for, since most jobs' is never, and a UUID costs a system call."""
        if self.given_id is None:
            with _making_id:
                if self.given_id is None:
                    self.given_id = new_job_id()
        return self.given_id

    # --- what becomes of it; under the pool's lock ---

    def begin_attempt(self, order: int) -> None:
        """It is sent to a worker, as number `order`."""
        if self.order:
            # What was measured was of the attempt before.
            self.started = self.finished = 0.0
            self.cpu_ns = None
            self.peak_bytes = self.rest_bytes = 0
        self.order = order
        if self.alone:
            self.capture = Capture(services().spool)

    def take_outcome(self, ok: bool, data: bytes | Parcel | SerializationError) -> None:
        """Note what its function came to; whether that is final is still to be found out.

        Args:
            ok: whether it returned.
            data: the result, or what stands in the frame of a failure; an error where it could not be taken in.
        """
        self.result_bytes = None
        if isinstance(data, SerializationError):
            self.cause = str(data)
            data.job_id = self.job_id
            self.raised = Settlement(error=data)
            return
        if ok:
            self.result_bytes = data.nbytes if isinstance(data, Parcel) else len(data)
        else:
            assert isinstance(data, bytes)
            told, data = unpack_failure(data)
            self.cause = f"it raised {told}"
        self.raised = Settlement(ok, data)

    def take_death(self, death: Death) -> None:
        """Note how its worker ended."""
        self.pid, self.exit_code, self.exit_signal = death.pid, death.exit_code, death.exit_signal
        self.cpu_ns = int(death.cpu_s * 1e9)
        self.peak_bytes = max(self.peak_bytes, death.peak_bytes)
        self.rest_bytes = death.rest_bytes
        self.stack = death.stack
        self.distrusted = death.distrusted
        self.short_of_memory = death.short_of_memory
        # Where it was we who ended it, nobody else did.
        self.oom_likely = self.end in (None, End.DIED) and was_out_of_memory(death)

    # --- as the future sees it ---

    def forget_future(self) -> None:
        """The future is settled: let go of it."""
        self.future = None

    def check_process(self) -> None:
        """Raise JobError where this process is a fork of the one that submitted the job."""
        if self.pool.pid != os.getpid():
            raise JobError(
                f"job {self.job_id} belongs to process {self.pool.pid}, of which this one is a fork: wait for it there",
                job_id=self.job_id,
            )

    def load(self, call: Call) -> None:
        """Take what of a call travels beside its frame; `unload` follows, or `Pool.submit` or `fail`."""
        self.shared = call.shared
        if call.buffers or len(call.payload) >= APART_BYTES:
            self.shipment = self.pool.freight.load(call)

    def unload(self) -> None:
        """It is not to be sent any more; under the pool's lock."""
        self.shared = ()
        shipment, self.shipment = self.shipment, None
        if shipment is not None:
            shipment.arrive()

    def attend(self, deadline: float | None) -> None:
        """Listen to its lane, where it is alone there."""
        if self.state is JobState.SENT:
            self.pool.attend(self, deadline)

    def cancel(self) -> bool:
        """See `JobFuture.cancel`."""
        return self.pool.cancel(self)

    def output(self) -> JobOutput | None:
        """See `JobFuture.output`."""
        capture = self.capture
        return None if capture is None else capture.output()

    def live_status(self) -> JobStatus:
        """The status while the future is not settled; reads what the worker says in its page."""
        lane = self.pool.lane_of(self.slot) if self.state in (JobState.SENT, JobState.ENDING) else None
        if lane is None:
            # Where it has run already, it is about to be settled, or to be tried again.
            return JobStatus.RUNNING if self.started and self.state is not JobState.QUEUED else JobStatus.QUEUED
        # The function started; or its worker is at the next one already, and the outcome is on its way.
        # The worker may go on between two reads.
        if lane.started() >= self.order or (claimed := lane.claimed()) > self.order:
            return JobStatus.RUNNING
        return JobStatus.VALIDATING if claimed == self.order else JobStatus.QUEUED

    def report(self, status: JobStatus) -> JobReport:
        """Accounting and post-mortem; never blocks."""
        started, pid, attempts = self.started, self.pid, self.attempts
        lane = self.pool.lane_of(self.slot) if self.state in (JobState.SENT, JobState.ENDING) else None
        if lane is not None and lane.claimed() == self.order:
            pid, attempts = lane.pid, attempts + 1
            started = lane.started_at() if lane.started() == self.order else 0.0
        end = self.finished or None
        return JobReport(
            job_id=self.job_id,
            name=self.name,
            status=status,
            backend="local",
            host=host_name(),
            pid=pid,
            attempts=attempts,
            submitted_at=self.submitted + _EPOCH_OFFSET,
            started_at=started + _EPOCH_OFFSET if started else None,
            finished_at=end + _EPOCH_OFFSET if end else None,
            queue_s=max(0.0, started - self.submitted) if started else None,
            run_s=max(0.0, end - started) if started and end else None,
            cpu_s=None if self.cpu_ns is None else self.cpu_ns / 1e9,
            serialize_s=self.serialize_s,
            peak_rss_bytes=self.peak_bytes or None,
            argument_bytes=self.argument_bytes,
            result_bytes=self.result_bytes,
            threads=self.options.threads,
            exit_code=self.exit_code,
            exit_signal=self.exit_signal,
            cause=self.cause,
            oom_likely=self.oom_likely,
            stack=self.stack,
            **({} if self.capture is None else self.capture.fields()),
        )
