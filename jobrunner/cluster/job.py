"""A job of a cluster: what its keeper has of it, and what its caller is told."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobrunner.errors import JobError
from jobrunner.executors.future import JobFuture
from jobrunner.options import JobOptions
from jobrunner.report import JobOutput, JobReport
from jobrunner.status import JobStatus

if TYPE_CHECKING:
    from jobrunner.cluster.keeper import Keeper

__all__ = ["ClusterJob", "State"]


class State(enum.Enum):
    """Where a job is; see the package."""

    NEW = "not handed in"
    HELD = "waits for other jobs"
    QUEUED = "waits for a lease"
    SENT = "sent to a node"
    DECIDING = "failed; it is being found out whether to retry"
    FINAL = "over"


class ClusterJob:
    """A job of a cluster.

    Written by the keeper's thread, once it was handed in; read by any.
    """

    __slots__ = (
        "admitted",
        "argument_bytes",
        "asked_back",
        "attempts",
        "body",
        "buffers",
        "cancelling",
        "cause",
        "fields",
        "finished",
        "future",
        "job_id",
        "keeper",
        "lease",
        "name",
        "node",
        "options",
        "order",
        "printed",
        "reruns",
        "seen",
        "seen_running",
        "sent",
        "seq",
        "serialize_s",
        "shared",
        "spoke",
        "state",
        "stuck",
        "submitted",
        "ticket",
    )

    def __init__(
        self,
        keeper: Keeper,
        seq: int,
        options: JobOptions,
        job_id: str,
        name: str,
        argument_bytes: int,
        serialize_s: float,
    ) -> None:
        self.keeper = keeper
        self.seq = seq
        self.options = options
        self.job_id = job_id
        self.name = options.name or name
        self.argument_bytes = argument_bytes
        self.serialize_s = serialize_s
        self.submitted = time.time()
        self.finished: float | None = None
        # What is sent, until the job is final.
        self.body: bytes = b""
        self.buffers: Sequence[bytes] = ()
        self.shared: Sequence[Any] = ()
        self.state = State.NEW
        #: where it is: the node's name, its lease, the number of this sending, and when it was sent (monotonic)
        self.node: str | None = None
        self.lease: int | None = None
        self.order = 0
        self.sent = 0.0
        self.attempts = 0
        #: whether it was taken before it could be handed in
        self.admitted = False
        #: whether, and when (monotonic), it was seen to run
        self.seen = 0.0
        self.seen_running = False
        self.asked_back = False
        #: the writer's number of the last thing that it has printed; 0: nothing, as far as is known
        self.ticket = 0
        #: whether something that it has logged is being passed on
        self.spoke = False
        self.cancelling = False
        #: its processes can't be ended: a cancel waits no longer
        self.stuck = False
        #: fields of the report that the node has told
        self.fields: dict[str, Any] = {}
        self.cause: str | None = None
        #: why it was run again
        self.reruns: list[str] = []
        self.printed: JobOutput | None = None
        self.future: JobFuture[Any] | None = JobFuture(self)

    # --- as the future sees it ---

    def forget_future(self) -> None:
        """The future is settled: let go of it."""
        self.future = None

    def attend(self, deadline: float | None) -> None:
        """There is nothing to listen to."""

    def check_process(self) -> None:
        """Raise JobError where this process is a fork of the one that submitted the job."""
        if self.keeper.pid != os.getpid():
            raise JobError(
                f"job {self.job_id} belongs to process {self.keeper.pid}, of which this one is a fork: "
                "wait for it there",
                job_id=self.job_id,
            )

    def cancel(self) -> bool:
        """See `JobFuture.cancel`."""
        return self.keeper.cancel(self)

    def live_status(self) -> JobStatus:
        """The status while the future is not settled."""
        running = self.seen_running and self.state in (State.SENT, State.DECIDING)
        return JobStatus.RUNNING if running else JobStatus.QUEUED

    def output(self) -> JobOutput | None:
        """See `JobFuture.output`; known when the job is over."""
        if self.printed is None and self.options.capture_output:
            return JobOutput("", "")
        return self.printed

    def report(self, status: JobStatus) -> JobReport:
        """Accounting and post-mortem; never blocks."""
        fields = dict(self.fields)
        started = fields.get("started_at")
        cause = self.cause or fields.pop("cause", None)
        fields.pop("cause", None)
        if self.reruns:
            cause = "; ".join([*self.reruns, *([cause] if cause else [])])
        return JobReport(
            job_id=self.job_id,
            name=self.name,
            status=status,
            backend=self.keeper.engine,
            attempts=self.attempts,
            submitted_at=self.submitted,
            queue_s=None if started is None else max(0.0, started - self.submitted),
            serialize_s=self.serialize_s,
            argument_bytes=self.argument_bytes,
            threads=self.options.threads,
            cause=cause,
            **{"finished_at": self.finished, **fields},
        )
