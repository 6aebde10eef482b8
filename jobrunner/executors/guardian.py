"""The guardian: a small process that outlives its caller by a moment, and ends what that leaves behind.

Run as a program with the caller's pid, the beginning of the caller's lane tags, and a directory to remove.  It waits
for the caller's death, by whatever cause, then ends every process that carries such a tag, with all below it, children
first.  A worker stuck in C code that holds the interpreter lock could not do so itself, and a signal at the parent's
death would leave its children.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

from jobrunner.processes import end_with_trackers, find_tagged, open_pidfd, wait_readable

__all__ = ["main"]

_KERNEL_S = 60.0


def main() -> None:
    """Guard the caller named on the command line."""
    caller, tag, spool = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _await_death(caller)
    end_with_trackers(lambda: find_tagged(tag), time.monotonic() + _KERNEL_S)
    # Output of jobs that was captured and is nobody's any more.
    shutil.rmtree(spool, ignore_errors=True)


def _await_death(caller: int) -> None:
    pidfd = open_pidfd(caller)
    if os.name == "posix" and os.getppid() != caller:
        return  # it is dead already, and its pid perhaps another's
    if pidfd is not None:
        wait_readable(pidfd, None)
        return
    import psutil

    try:
        psutil.Process(caller).wait()
    except psutil.Error:
        return
