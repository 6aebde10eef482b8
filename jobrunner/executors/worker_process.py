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
from collections.abc import Callable, Mapping
from multiprocessing import process as multiprocessing_process
from multiprocessing import util as multiprocessing_util
from typing import Any, NamedTuple

from loky.backend.context import get_context
from loky.process_executor import ProcessPoolExecutor

from jobrunner.memory import RSS_UNIT, peak_bytes, resident_bytes, tree_of
from jobrunner.processes import (
    ProcessId,
    cpu_seconds,
    end_processes,
    end_with_trackers,
    find_descendants,
    find_tagged,
    is_resource_tracker,
    open_pidfd,
    signal_masks,
    wait_for_exit,
    wait_readable,
)
from jobrunner.streams import working_streams
from jobrunner.worker.process import STACK_SIGNAL, WorkerEnd, become_worker
from jobrunner.worker.serve import serve

# loky imports these when it first starts a process.  Here it is done on the caller's thread: a fork while another
# thread imports leaves the module locked for ever in the child.
if sys.platform != "win32":
    import loky.backend.fork_exec
    import loky.backend.popen_loky_posix
import loky.backend.synchronize  # noqa: F401

__all__ = ["ExitStatus", "Usage", "WorkerProcess"]

#: (exit code, signal number), each None where it does not apply or is not known
ExitStatus = tuple[int | None, int | None]

# How long a worker may take to write its stack.
_STACK_S = 0.05
# How long loky's threads may take to end after their worker.
_LOKY_S = 5.0
# No process has this number: it is above what any kernel gives.
_NO_PID = (1 << 22) + 1
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class Usage(NamedTuple):
    """What processes have used: CPU seconds, and the peak of their memory in bytes."""

    cpu_s: float
    peak_bytes: int


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
        self._status: ExitStatus | None = None
        self._rusage: Any = None
        # What those below it had used when they were found, to be ended.
        self._below = Usage(0.0, 0)
        self._peak = 0
        self._pidfd: int | None = None
        self._watch: socket.socket | None = None
        try:
            # Now, not when the first item is queued: an exiting interpreter (3.12 and later) starts no more threads.
            self._executor._call_queue._start_thread()
            with _may_have_children(), working_streams():
                self._executor.submit(serve)
            (self._process,) = self._executor._processes.values()
            # A user's `multiprocessing.active_children()` reaps what has ended: the pid would be free while we use it.
            multiprocessing_process._children.discard(self._process)  # type: ignore[attr-defined]
            self.pid: int = self._process.pid
            self._pidfd = open_pidfd(self.pid)
            if self._pidfd is None:
                # If it is dead by now and loky's thread has reaped it, this fails, and with it the start.
                self._watch = self._start_watch()
            else:
                # It is reaped by us alone, with the account of what it has used, and not by loky's thread.
                self._process._popen.pid = _NO_PID
        except BaseException:
            self._undo_start()
            raise

    def _undo_start(self) -> None:
        """End what was started, and release it."""
        for process in self._executor._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, _KILL)
            process.join()
        self._executor._call_queue.close()
        self._executor._call_queue.join_thread()
        self.join_loky()

    def _start_watch(self) -> socket.socket:
        """A socket that becomes readable when the process has ended: the fallback for a pidfd."""
        import psutil

        process = psutil.Process(self.pid)
        ours, theirs = socket.socketpair()

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
        trackers: set[ProcessId] = set()
        if not self.wait(0):
            # While it lives, stopped, what it started stays below it (it is a subreaper), and can't grow by its doing.
            if hasattr(signal, "SIGSTOP"):
                self.send_signal(signal.SIGSTOP)
                self._take_account()

            def below() -> list[ProcessId]:
                found = find_descendants(self.pid)
                trackers.update(filter(is_resource_tracker, found))
                return [process for process in found if process not in trackers]

            below_gone = end_processes(below, deadline)
            self.kill()
            gone = self.wait(max(0.0, deadline - time.monotonic()))
            if below_gone and gone and self._pidfd is not None and not trackers:
                return True

        def left() -> list[ProcessId]:
            # It is dead: what it started has moved to another parent, and is known by session and tag.
            found = [process for process in find_tagged(self.tag, [self.pid]) if process.pid != self.pid]
            known = (tracker for tracker in trackers if not wait_for_exit(tracker, 0.0))
            return list({**dict.fromkeys(found), **dict.fromkeys(known)})

        gone = end_with_trackers(left, deadline)
        return gone and below_gone and self.wait(max(0.0, deadline - time.monotonic()))

    def _take_account(self) -> None:
        """Note what the process, stopped, and those below it use; those below are not waited for by anybody."""
        below = tree_of(self.pid)[1:]
        self._peak = peak_bytes(self.pid)
        if below:
            self._below = Usage(cpu_seconds(below), resident_bytes(below))

    def write_stack(self, written: Callable[[], int]) -> None:
        """Have the process write its Python stack, and wait until it has, or can't.

        The writing is done by a signal handler in C, whatever the interpreter is doing, and the signal is blocked
        meanwhile: it is over when something is written and the signal is not blocked any more.

        Args:
            written: how many bytes stand in the file that it writes to.
        """
        if STACK_SIGNAL is None or self.wait(0):
            return
        bit = 1 << (STACK_SIGNAL - 1)
        masks = signal_masks(self.pid)
        if not masks.get("SigCgt", 0) & bit or masks["SigBlk"] & bit:
            return  # no Linux, or it has not got as far, or doesn't want to be asked
        before = written()
        self.send_signal(STACK_SIGNAL)
        self.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + _STACK_S
        while time.monotonic() < deadline:
            if written() > before and not signal_masks(self.pid).get("SigBlk", 0) & bit:
                return
            os.sched_yield()

    def exit_status(self) -> ExitStatus:
        """The exit code or the signal of the process, which is dead."""
        if self._status is None:
            self.reap()
        assert self._status is not None
        return self._status

    def usage(self) -> Usage:
        """What the process, which is dead, and all below it have used; 0 where that is not known."""
        self.exit_status()
        cpu_s, peak = self._below.cpu_s, self._peak
        if self._rusage is not None:
            cpu_s += self._rusage.ru_utime + self._rusage.ru_stime
            peak = max(peak, self._rusage.ru_maxrss * RSS_UNIT)
        return Usage(cpu_s, peak + self._below.peak_bytes)

    @property
    def peak_when_ended(self) -> int:
        """The peak of the process's memory as it was found when it was ended; 0 if it ended by itself."""
        return self._peak + self._below.peak_bytes if self._peak else 0

    def reap(self) -> None:
        """Reap the process, which is dead, and note how it ended and what it has used."""
        if self._status is not None:
            return
        if self._pidfd is None:
            self._status = self._joined_status()
            return
        try:
            _, status, self._rusage = os.wait4(self.pid, 0)
        except ChildProcessError:  # another part of the program has waited for it
            self._status = None, None
            return
        code = os.waitstatus_to_exitcode(status)
        self._process._popen.returncode = code
        self._status = (code, None) if code >= 0 else (None, -code)

    def _joined_status(self) -> ExitStatus:
        """The same where there are no pidfds: loky's thread, or the one that waits, has reaped it."""
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
        for thread in (self._executor._executor_manager_thread, self._executor._call_queue._thread):
            if thread is not None:
                thread.join(_LOKY_S)

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
