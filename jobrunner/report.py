"""What became of a job: accounting and post-mortem."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from jobrunner.status import JobStatus

__all__ = ["JobOutput", "JobReport"]


class JobOutput(NamedTuple):
    """All that is kept of what a job printed, as text; where some was left out, a line in brackets says how much.

    Attributes:
        stdout: its standard output.
        stderr: its standard error.
    """

    stdout: str
    stderr: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobReport:
    """Accounting and post-mortem of one job.  What is not known, or not known yet, is None.

    Attributes:
        job_id: the job's id, UUID4 text.
        name: the job's name; the function's qualified name unless an option says otherwise.
        status: the `JobStatus` at the moment of the report.
        backend: the engine's name, as `Backend.name`.
        host: the host name of the machine that ran it.
        pid: process id of the (last) worker that took it up.
        attempts: how often it was handed to a worker that took it up.
        submitted_at: UTC epoch seconds at submit.
        started_at: UTC epoch seconds at which the function (last) started.
        finished_at: UTC epoch seconds at which it became final.
        queue_s: seconds from submit to the last start.
        run_s: seconds from the last start to the end of the function, or of its process.
        cpu_s: CPU seconds of the job's processes, those that it started and waited for included.
        serialize_s: seconds spent on serialising the function and its arguments.
        peak_rss_bytes: peak resident memory of the job's process, in bytes, less what jobs before have left in it; of
            all its processes together where they were watched (`memory_limit`).  Of a worker that died, what is known
            of it from outside.
        argument_bytes: size of the serialised function and arguments, in bytes.
        result_bytes: size of the serialised result, in bytes.
        threads: cores that the job took up.
        exit_code: exit code of the worker that died under the job.
        exit_signal: number of the signal that ended that worker.
        cause: one plain sentence on why the job did not end well.
        oom_likely: whether the kernel's out-of-memory killer is the likely cause.
        stack: the worker's last Python stack, where it was ended or crashed; None where it had no chance to write it.
        stdout_head: the beginning of the job's captured standard output, some kilobytes at most.
        stdout_tail: its end, likewise; both hold the whole where it is short.
        stderr_head: the beginning of the job's captured standard error.
        stderr_tail: its end.
    """

    job_id: str
    name: str | None = None
    status: JobStatus
    backend: str | None = None
    host: str | None = None
    pid: int | None = None
    attempts: int = 0
    submitted_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    queue_s: float | None = None
    run_s: float | None = None
    cpu_s: float | None = None
    serialize_s: float | None = None
    peak_rss_bytes: int | None = None
    argument_bytes: int | None = None
    result_bytes: int | None = None
    threads: int | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    cause: str | None = None
    oom_likely: bool | None = None
    stack: str | None = dataclasses.field(default=None, repr=False)
    stdout_head: str | None = dataclasses.field(default=None, repr=False)
    stdout_tail: str | None = dataclasses.field(default=None, repr=False)
    stderr_head: str | None = dataclasses.field(default=None, repr=False)
    stderr_tail: str | None = dataclasses.field(default=None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The report as a dict that `json.dumps` takes; the status stands as its name.

        Example:
            >>> JobReport(job_id="42", status=JobStatus.DONE).as_dict()["status"]
            'DONE'
        """
        # All fields are plain values: `dataclasses.asdict` would copy each, at thirty times the cost.
        return {**vars(self), "status": self.status.name}
