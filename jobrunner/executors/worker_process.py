"""One worker process, as its caller sees it: held by a loky executor of its own.

loky starts the interpreter, hands it what is pickled while it spawns, and joins it in the end.  Its death is noticed by
a pidfd, not by the end of a pipe, which a process forked by a job may hold open; where there are no pidfds, by a thread
that waits for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing import process as multiprocessing_process
from multiprocessing import util as multiprocessing_util
from typing import Any

from loky.backend.context import get_context
from loky.process_executor import ProcessPoolExecutor

from jobrunner.processes import end_processes, find_descendants, find_tagged, open_pidfd, wait_readable
from jobrunner.streams import working_streams
from jobrunner.worker.process import WorkerEnd, become_worker
from jobrunner.worker.serve import serve

# loky imports these when it first starts a process.  Here it is done on the caller's thread: a fork while another
# thread imports leaves the module locked for ever in the child.
if sys.platform != "win32":
    import loky.backend.fork_exec
    import loky.backend.popen_loky_posix
import loky.backend.synchronize  # noqa: F401

__all__ = ["ExitStatus", "WorkerProcess"]

#: (exit code, signal number), each None where it does not apply or is not known
ExitStatus = tuple[int | None, int | None]

# No process has this number: it is above what any kernel gives.
_NO_PID = (1 << 22) + 1
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class WorkerProcess:
    """A spawned worker; made on the spawner's thread.

    Args:
        end: what the worker is handed.
        env: variables to set for its start.
        tag: the lane's tag, which all that it starts inherits.

    Attributes:
        pid: its process id.
    """

    def __init__(self, end: WorkerEnd, env: Mapping[str, str], tag: str) -> None:
        self.tag = tag
        self._executor = ProcessPoolExecutor(
            max_workers=1, context=get_context("loky"), initializer=become_worker, initargs=(end,), env=dict(env)
        )
        try:
            # Now, not when the first item is queued: an exiting interpreter (3.12 and later) starts no more threads.
            self._executor._call_queue._start_thread()
            with _may_have_children(), working_streams():
                self._executor.submit(serve)
        except BaseException:
            for process in self._executor._processes.values():
                os.kill(process.pid, _KILL)
                process.join()
            self._executor._call_queue.close()
            self._executor._call_queue.join_thread()
            raise
        (self._process,) = self._executor._processes.values()
        # A user's `multiprocessing.active_children()` reaps what has ended: the pid would be free while we use it.
        multiprocessing_process._children.discard(self._process)  # type: ignore[attr-defined]
        self.pid: int = self._process.pid
        self._status: ExitStatus | None = None
        self._pidfd = open_pidfd(self.pid)
        self._watch: socket.socket | None = None
        if self._pidfd is None:
            self._watch = self._start_watch()

    def _start_watch(self) -> socket.socket:
        """A socket that becomes readable when the process has ended: the fallback for a pidfd."""
        import psutil

        ours, theirs = socket.socketpair()
        process = psutil.Process(self.pid)

        def watch() -> None:
            with contextlib.suppress(psutil.Error):
                code = process.wait()
                if code is not None:
                    self._status = (code, None) if code >= 0 else (None, -int(code))
            theirs.close()

        threading.Thread(target=watch, name=f"jobrunner-watch-{self.pid}", daemon=True).start()
        return ours

    def fileno(self) -> int:
        """A descriptor that is readable once the process is dead."""
        if self._pidfd is not None:
            return self._pidfd
        assert self._watch is not None
        return self._watch.fileno()

    def wait(self, timeout: float | None) -> bool:
        """Whether the process is dead, waiting for it at most `timeout` seconds."""
        return wait_readable(self.fileno(), timeout)

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens where the process is dead."""
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)  # type: ignore[attr-defined,unused-ignore]
            elif not self.wait(0):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process at once; what it started is left to `end_tree`."""
        self.send_signal(_KILL)

    def end_tree(self, timeout: float) -> bool:
        """End the process and everything that it started, children first.

        Args:
            timeout: seconds to wait for the kernel.

        Returns:
            Whether none is alive.
        """
        deadline = time.monotonic() + timeout
        below_gone = True
        if not self.wait(0):
            # While it lives, stopped, what it started stays below it (it is a subreaper), and can't grow by its doing.
            if hasattr(signal, "SIGSTOP"):
                self.send_signal(signal.SIGSTOP)
            below_gone = end_processes(lambda: find_descendants(self.pid), deadline)
            self.kill()
            if below_gone and self.wait(max(0.0, deadline - time.monotonic())) and self._pidfd is not None:
                return True
        # It was dead before: what it started has moved to another parent, and is known by session and tag.
        gone = end_processes(
            lambda: [found for found in find_tagged(self.tag, [self.pid]) if found.pid != self.pid], deadline
        )
        return gone and below_gone and self.wait(max(0.0, deadline - time.monotonic()))

    def exit_status(self) -> ExitStatus:
        """The exit code or the signal of the process, which is dead."""
        if self._status is None:
            self._status = self._peek() or self._reap()
        return self._status

    def reap(self) -> None:
        """Reap the process, which is dead; loky's thread would, only later."""
        self.exit_status()
        self._process.join()
        # The number is free now, and loky's thread is about to look for what is left below it.
        self._process._popen.pid = _NO_PID

    def _peek(self) -> ExitStatus | None:
        """The status of the zombie; None where it was reaped already."""
        if self._pidfd is None or not hasattr(os, "waitid") or not hasattr(os, "P_PIDFD"):
            return None
        try:
            info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except OSError:
            return None
        if info is None:
            return None
        return (info.si_status, None) if info.si_code == os.CLD_EXITED else (None, info.si_status)

    def _reap(self) -> ExitStatus:
        self.join_loky()
        code = self._process.exitcode
        if code is None:
            return None, None
        return (code, None) if code >= 0 else (None, -code)

    def unlink_semaphores(self) -> None:
        """Unlink the names of loky's semaphores; for a worker that serves.

        It has opened them, and nobody else will.  With their names gone nothing is left to leak, or to be warned of,
        however this process ends.
        """
        with contextlib.suppress(AttributeError):  # the worker has ended meanwhile, or loky keeps them elsewhere
            queues = self._executor._call_queue, self._executor._result_queue
            locks = [getattr(queue, name, None) for queue in queues for name in ("_rlock", "_wlock", "_sem")]
            locks += [self._executor._processes_management_lock, self._process._worker_exit_lock]
            names = {lock._semlock.name for lock in locks if lock is not None}
            for finalizer in list(multiprocessing_util._finalizer_registry.values()):  # type: ignore[attr-defined]
                if finalizer._args and isinstance(finalizer._args[0], str) and finalizer._args[0] in names:
                    finalizer()

    def join_loky(self) -> None:
        """Wait until loky has put away what it kept of the process, which is dead."""
        manager = self._executor._executor_manager_thread
        if manager is not None:
            manager.join(5.0)

    def close(self) -> None:
        """Release what is held of the process, which is dead."""
        self.exit_status()
        self.join_loky()
        # Freed here and now: its semaphores are unlinked by finalizers, and were one to begin on a thread that an
        # exiting interpreter freezes, loky's resource tracker would warn of a leak.
        del self._executor, self._process
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._watch is not None:
            self._watch.close()


@contextlib.contextmanager
def _may_have_children() -> Any:
    """Let a daemonic process (a Dask nanny's worker, a multiprocessing child) have a child.

    Only the spawner's thread does this, so that two never do it at once.
    """
    config = multiprocessing_process.current_process()._config  # type: ignore[attr-defined]
    daemonic = config.pop("daemon", None)
    try:
        yield
    finally:
        if daemonic is not None:
            config["daemon"] = daemonic
