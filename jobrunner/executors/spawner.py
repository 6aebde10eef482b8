"""The one thread of a process that starts workers.

A worker must not be started on a thread that may end: a parent-death signal set by anybody fires when the *thread*
ends.  Nor on the dispatcher, which a start would block for milliseconds.  This thread blocks SIGINT, so that a Ctrl-C
in the moment of a start does not kill the newcomer, which sets its own handling up before it unblocks the signal.

Nothing is imported on it: a fork in that moment would leave the module's lock locked for ever in the child.

A fork waits until no worker is being started: it would keep the ends of pipes open that are meant for the newcomer
alone, and whoever waits for their end would wait for the fork's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from multiprocessing import resource_tracker as multiprocessing_tracker
from pathlib import Path

from loky.backend import resource_tracker as loky_tracker

from jobrunner.executors.safe_start import during_start
from jobrunner.processes import LANE_VARIABLE

__all__ = ["Spawner"]

_log = logging.getLogger("jobrunner")

_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])

#: For so many seconds a fork waits for a start: one that hangs is not to hang the program, too.
_PATIENCE_S = 5.0


class _Starting:
    """Held while a worker is being started, and while this process is forked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forking = threading.local()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        """A thread is about to fork."""
        self._forking.holds = self._lock.acquire(timeout=_PATIENCE_S)

    def after_fork(self) -> None:
        """It has forked."""
        if self._forking.holds:
            self._lock.release()

    def in_child(self) -> None:
        """In the fork, where nothing is being started."""
        self._lock = threading.Lock()


_starting = _Starting()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_starting.before_fork, after_in_parent=_starting.after_fork, after_in_child=_starting.in_child
    )


class Spawner:
    """Runs starts in order on its thread, and keeps the guardian.

    Args:
        spool: a directory that the guardian removes if this process does not.

    Attributes:
        tag: what the tags of all workers of this process begin with.
    """

    def __init__(self, spool: str) -> None:
        self._spool = spool
        self.tag = f"{os.environ.get(LANE_VARIABLE, '')}{uuid.uuid4().hex}."
        self._starts: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._guardian: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._work, name="jobrunner-spawner", daemon=True)
        self._thread.start()

    def run(self, start: Callable[[], None]) -> None:
        """Have `start` called on the spawner's thread, after those handed in before."""
        self._starts.put(start)

    def close(self) -> None:
        """End the thread and the guardian; no worker is left."""
        self._starts.put(None)
        self._thread.join()
        if self._guardian is not None:
            _send_away(self._guardian)

    def forsake(self) -> None:
        """In a fork: the guardian is the parent's, and not to be warned about."""
        if self._guardian is not None:
            self._guardian.returncode = 0
            _hang_up(self._guardian)

    def _work(self) -> None:
        _prepare_thread()
        while (start := self._starts.get()) is not None:
            with _starting:
                # Before the first worker: there is no moment in which one could outlive this process.
                if self._guardian is None:
                    self._start_guardian()
                elif self._guardian.poll() is not None:
                    _hang_up(self._guardian)
                    self._start_guardian()
                try:
                    start()
                except Exception:
                    _log.exception("a task of the spawner's has failed")
            del start

    def _start_guardian(self) -> None:
        """Start the process that ends the workers if this one is killed."""
        # Only what guardian.py needs; psutil, its fallback, is found where it was found here.
        paths = [_PACKAGE_ROOT, *(path for path in sys.path if path.endswith("site-packages"))]
        code = f"import sys; sys.path += {paths!r}; from jobrunner.executors.guardian import main; main()"
        environment = {name: value for name, value in os.environ.items() if name != LANE_VARIABLE}
        try:
            self._guardian = subprocess.Popen(  # noqa: S603 (our own interpreter and code)
                [sys.executable, "-I", "-S", "-c", code, str(os.getpid()), self.tag, self._spool],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,
                env=environment,
            )
        except Exception:
            _log.exception("no guardian: workers may outlive this process if it is killed")


def _send_away(guardian: subprocess.Popen[bytes]) -> None:
    """End a guardian, and the process between it and this one; see `guardian`."""
    try:
        if os.name == "posix" and guardian.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it is gone, or was sent away
                guardian.stdin.write(b".")
            guardian.wait(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        _log.debug("the guardian does not answer")
    finally:
        guardian.kill()
        guardian.wait()
        _hang_up(guardian)


def _hang_up(guardian: subprocess.Popen[bytes]) -> None:
    """Close this process's end of what it talks with a guardian by."""
    if guardian.stdin is not None:
        with contextlib.suppress(OSError):
            guardian.stdin.close()


def _prepare_thread() -> None:
    """Have what is started on this thread start with SIGINT blocked."""
    with contextlib.suppress(Exception), _starting, during_start():
        # Starting a tracker unblocks SIGINT: they are started first.
        loky_tracker.ensure_running()
        if os.name == "posix":
            multiprocessing_tracker.ensure_running()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
