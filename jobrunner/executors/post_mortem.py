"""What became of a job that did not end by itself: the facts, a plain sentence, and the error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from jobrunner.errors import JobRunnerError, MemoryLimitExceeded, TimeLimitExceeded, WorkerDiedError
from jobrunner.executors.records import End
from jobrunner.memory import format_bytes, machine_memory
from jobrunner.processes import signal_name
from jobrunner.worker.process import EXIT_CHANNEL_LOST

if TYPE_CHECKING:
    from jobrunner.executors.pool_job import PoolJob

__all__ = ["Death", "clean_stack", "error_for", "was_out_of_memory"]

# A process killed while it had this part of the machine's memory was killed for that, likely.
_LARGE_SHARE = 0.5

# Frames of ours and of what lies below us, at the outer end of every worker's stack.
_OWN_FRAME = re.compile(
    r'\s+File ".*[/\\]jobrunner[/\\](worker[/\\](serve|chunk|process)|execution|serialization)\.py", line \d+ in '
)


class Death(NamedTuple):
    """How a worker ended, and what is known of the job that it had claimed last.

    exit_code, exit_signal: one of them; neither where it is not known.
    cpu_s: CPU seconds since it claimed that job.
    peak_bytes: the peak of the memory of it, and of what was below it; 0 where it is not known.
    rest_bytes: its memory before it claimed that job.
    stack: its Python stack, if it was written.
    oom_kills: how many processes the kernel killed for want of memory while it lived; None where it doesn't tell.
    distrusted: whether something else than frames came from it, or something for which there was no room.
    short_of_memory: whether it was the latter.
    """

    pid: int
    exit_code: int | None
    exit_signal: int | None
    cpu_s: float
    peak_bytes: int
    rest_bytes: int
    stack: str | None
    oom_kills: int | None
    distrusted: bool
    short_of_memory: bool = False


def was_out_of_memory(death: Death) -> bool:
    """Whether a worker that we did not end was likely killed by the kernel for want of memory."""
    if death.exit_signal is None or signal_name(death.exit_signal) != "SIGKILL":
        return False
    if death.oom_kills is not None:
        return death.oom_kills > 0
    return death.peak_bytes > _LARGE_SHARE * machine_memory()


def clean_stack(text: str) -> str | None:
    """A Python stack as faulthandler has written it, without the frames that are jobrunner's; None where it is empty.

    Example:
        >>> print(clean_stack('''Current thread 0x1 (most recent call first):
        ...   File "/home/me/model.py", line 7 in step
        ...   File "/site/jobrunner/execution.py", line 60 in execute
        ...   File "/site/loky/process_executor.py", line 1 in worker'''))
        Current thread 0x1 (most recent call first):
          File "/home/me/model.py", line 7 in step
    """
    kept = []
    own = False
    for line in text.splitlines():
        if line.startswith("Extension modules:"):
            continue
        if not line.startswith(" "):
            own = False  # another thread's stack begins
        own = own or _OWN_FRAME.match(line) is not None
        if not own:
            kept.append(line)
    return "\n".join(kept).strip() or None


def error_for(job: PoolJob, end: End) -> JobRunnerError:
    """The error of a job that came to such an end; its cause is told to the report as well."""
    title = f"job {job.job_id} ({job.name})"
    if end is End.TIME_LIMIT:
        limit = job.options.time_limit
        job.cause = f"it ran past its time limit of {limit:g} s and was ended"
        return TimeLimitExceeded(
            f"{title} ran past its time limit of {limit:g} s, and its processes were ended. "
            "Give it a larger time_limit, or less to do.",
            job_id=job.job_id,
            pid=job.pid,
            limit=limit,
        )
    if end is End.MEMORY_LIMIT:
        peak, allowed = format_bytes(job.peak_bytes), format_bytes(job.memory)
        job.cause = f"its processes used {peak} of memory, above its limit of {allowed}, and were ended"
        return MemoryLimitExceeded(
            f"the processes of {title} used {peak} of memory, and were ended for its memory limit of {allowed} "
            f"(its worker alone had {format_bytes(job.rest_bytes)} before it began). "
            "Give it a larger memory_limit, or less to do at a time.",
            job_id=job.job_id,
            pid=job.pid,
            limit=job.memory,
            peak=job.peak_bytes,
        )
    if end is End.NO_WORKER:
        job.cause = "no worker could be started for it"
        told = "The error chained to this one, or what the workers wrote to stderr, tells why."
        if job.pid is not None:
            how, _ = _describe_exit(job.exit_code, job.exit_signal)
            job.cause += f": the last one {how}"
            told = f"The last one (pid {job.pid}) {how}; report().stack, or what it wrote to stderr, may tell why."
        return _died(job, f"no worker could be started for {title}, in several tries. {told}")
    how, hint = _describe_exit(job.exit_code, job.exit_signal)
    if job.short_of_memory:
        how = "was ended, because the calling process had no memory for what it sent"
        hint = "Return less at a time, or let go of results that are not used any more."
    elif job.distrusted:
        how = "was ended, because something was written into its channel"
        hint = "Check whether the function writes to descriptors that it did not open."
    elif job.oom_likely:
        how = "was killed by SIGKILL, likely by the system for want of memory"
        hint = (
            f"Its memory's peak was {format_bytes(job.peak_bytes)}. Give jobs a memory_limit, so that the system has "
            "room for those that run at a time, or run fewer at a time."
        )
    job.cause = f"its worker {how}"
    return _died(job, f"the worker (pid {job.pid}) of {title} {how}. {hint}")


def _died(job: PoolJob, message: str) -> WorkerDiedError:
    return WorkerDiedError(message, job_id=job.job_id, pid=job.pid, exit_code=job.exit_code, signal=job.exit_signal)


def _describe_exit(code: int | None, signal_number: int | None) -> tuple[str, str]:
    """What happened to a worker, and what to check."""
    if signal_number is not None:
        name = signal_name(signal_number)
        if name == "SIGKILL":
            return "was killed by SIGKILL", "Check whether somebody killed it, or the system ran out of memory."
        if name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL"):
            return f"crashed with {name}", "Check the compiled code that the function calls; report().stack has where."
        return f"was ended by {name}", "Check who sent the signal."
    if code is None:
        return "ended", "How is not known: another part of the program has waited for it."
    if code == EXIT_CHANNEL_LOST:
        return (
            f"lost its channel and left with exit code {code}",
            "Check whether the function closes descriptors that it did not open.",
        )
    return f"left with exit code {code}", "Check whether the function, or a library it calls, ends its process."
