"""The guardian: a small process that outlives its caller by a moment, and ends what that leaves behind.

Run as a program with the caller's pid, the beginning of the caller's lane tags, and a directory to remove.  It waits
for the caller's death, by whatever cause, then ends every process that carries such a tag, with all below it, children
first.  A worker stuck in C code that holds the interpreter lock could not do so itself, and a signal at the parent's
death would leave its children.

    caller ── doorkeeper ── guardian        waits for the caller's death
              waits for a byte from the caller, which ends both; or for the guardian's end

The guardian is no child of the caller's, since some that end a process end its children with it: Ray does so with its
workers, and what the jobs have started would be left.  What is between them, the doorkeeper, is the caller's child, and
the guardian's parent: neither stays as a zombie, whoever reaps orphans there, and the caller sees if one is gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from typing import NoReturn

from jobrunner.processes import end_with_trackers, find_tagged, open_pidfd, wait_readable

__all__ = ["main"]

_KERNEL_S = 60.0


def main() -> None:
    """Guard the caller named on the command line."""
    caller, tag, spool = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    pidfd = open_pidfd(caller)
    if os.name != "posix":
        _await_death(caller, pidfd)
    # Else it is dead already, and its pid perhaps another's.
    elif os.getppid() == caller:
        # Without another process it guards all the same, as long as nobody ends the caller's children.
        with contextlib.suppress(OSError):
            _leave_doorkeeper()
        _await_death(caller, pidfd)
    end_with_trackers(lambda: find_tagged(tag), time.monotonic() + _KERNEL_S)
    # Output of jobs that was captured and is nobody's any more.
    shutil.rmtree(spool, ignore_errors=True)


if sys.platform != "win32":

    def _leave_doorkeeper() -> None:
        """Go on in a process of its own; what was started by the caller stays behind as the doorkeeper.

        Raises:
            OSError: there can't be another process.
        """
        signal.signal(signal.SIGCHLD, _follow)
        # It may have been blocked where this was started.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        guardian = os.fork()
        if guardian:
            _keep_door(guardian)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # What the caller says is for the doorkeeper.
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)

    def _follow(*_: object) -> None:
        """The guardian has ended: the caller is dead, or needs another one."""
        os.wait()
        os._exit(0)

    def _keep_door(guardian: int) -> NoReturn:
        """Wait until the caller sends the guardian away, or either of them is gone."""
        if os.read(0, 1):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.kill(guardian, signal.SIGKILL)
            os.waitpid(guardian, 0)
        os._exit(0)


def _await_death(caller: int, pidfd: int | None) -> None:
    if pidfd is not None:
        wait_readable(pidfd, None)
        return
    import psutil

    try:
        psutil.Process(caller).wait()
    except psutil.Error:
        return
