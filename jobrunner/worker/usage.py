"""What a job uses, measured in its worker: CPU time and memory, its own also on a worker that has run others.

CPU time is that of the process, and of the children that it has waited for.  The kernel keeps the highest resident
memory of a process, and can be told to begin anew.  To read it costs microseconds, as much as a tiny job: so it is read
only after a job that may have moved it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from jobrunner.handover import ProgressPage
from jobrunner.memory import RSS_UNIT

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["QUICKEST_CHILD_NS", "UsageMeter"]

#: In less time no process can be started: to copy the page tables of an interpreter takes longer.
QUICKEST_CHILD_NS = 20_000
# A shorter job can't have touched so much new memory that it would show: some megabytes at most.
_SHORT_NS = 200_000
# The kernel's peak is begun anew where it stands this far above what is in use.
_SLACK_BYTES = 1 << 20

_HAS_STATUS = sys.platform == "linux" and os.path.exists("/proc/self/status")


class UsageMeter:
    """Measures one job after the other.

    Args:
        words: the words of the worker's progress page, which tell those outside what was used before the job.
    """

    def __init__(self, words: memoryview) -> None:
        self._words = words
        # What the kernel's peak is no less than, though no job since is to blame for it.
        self._floor = 0
        self._measure()
        # What the worker had before it had run any job, and what jobs have left in it since.
        self._fresh = self._rest
        self._left = 0
        #: the size of the shared objects that are mapped: no job has left them
        self.shared_bytes = 0
        self._cpu_ns = 0
        self._children_ns, _ = _children_usage()
        # Between fork and exec the process had its caller's memory, which counts in what is told of it at its end.
        self._system_peak = _system_peak()

    def begin(self) -> None:
        """A job is taken up."""
        self._cpu_ns = time.process_time_ns() + self._children_ns
        words = self._words
        words[ProgressPage.CPU_NS] = self._cpu_ns
        words[ProgressPage.REST_BYTES] = self._rest
        words[ProgressPage.FLOOR_BYTES] = self._system_peak
        words[ProgressPage.LEFT_BYTES] = self._left

    def excuse(self, nbytes: int) -> None:
        """The process has grown by so much, for which the job in work is not to blame, nor those that follow."""
        self._left += nbytes
        self._fresh -= nbytes
        self._words[ProgressPage.LEFT_BYTES] = self._left

    def end(self, lasted_ns: int) -> tuple[int, int, int]:
        """The job that was begun is over, its children that have ended are waited for; it took `lasted_ns`.

        Returns:
            Its CPU time in nanoseconds, that of waited-for children included; the highest resident memory of the
            process while it ran, less what jobs before have left there, and the resident memory after it, in bytes; 0
            where that is not known.
        """
        if lasted_ns >= QUICKEST_CHILD_NS:
            self._children_ns, children_peak = _children_usage()
            self._system_peak = max(self._system_peak, children_peak)
        cpu_ns = time.process_time_ns() + self._children_ns - self._cpu_ns
        peak = self._peak if lasted_ns < _SHORT_NS else self._measure()
        peak, self._left = max(0, peak - self._left), max(0, self._rest - self.shared_bytes - self._fresh)
        return cpu_ns, peak, self._rest

    def _measure(self) -> int:
        """The job's peak, 0 where it is not known; from now on the next job's is measured."""
        peak, self._rest = _read_memory()
        known = peak > self._floor
        if peak - self._rest > _SLACK_BYTES and not _restart_peak():
            self._floor = peak
        self._peak = self._rest if self._floor < peak else 0
        return peak if known else 0


if resource is not None:

    def _children_usage() -> tuple[int, int]:
        """CPU time in nanoseconds, and the largest peak in bytes, of the children that were waited for."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return int((usage.ru_utime + usage.ru_stime) * 1e9), usage.ru_maxrss * RSS_UNIT

    def _system_peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT

else:

    def _children_usage() -> tuple[int, int]:
        return 0, 0

    def _system_peak() -> int:
        return 0


def _read_memory() -> tuple[int, int]:
    """The highest resident memory since it was begun anew, and that of now, in bytes; 0 where not known."""
    if not _HAS_STATUS:
        return _ask_psutil()
    peak = now = 0
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status", "rb", buffering=0) as file:
        text = file.read(8192)
        for mark in (b"VmHWM:", b"VmRSS:"):
            start = text.index(mark) + len(mark)
            value = int(text[start : text.index(b"kB", start)]) * 1024
            peak, now = (value, now) if mark == b"VmHWM:" else (peak, value)
    return max(peak, now), now


def _ask_psutil() -> tuple[int, int]:
    """The same where there is no /proc: the peak is that of the process's whole life, as far as the system tells it."""
    import psutil

    info = psutil.Process().memory_info()
    peak = int(getattr(info, "peak_wset", 0))
    if not peak and resource is not None:
        peak = _system_peak()
    return max(peak, int(info.rss)), int(info.rss)


def _restart_peak() -> bool:
    """Have the kernel begin the peak anew; whether it does."""
    try:
        fd = os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:  # another system, or a sandbox without it: the peak stays that of the process
        return False
    try:
        os.write(fd, b"5")
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
