"""Ctrl-C and SIGTERM during a batch.

The first asks the run to stop; the second kills.  A Python signal handler runs on the main thread, when that comes to
its next bytecode: never, if the signal arrives in the moment in which the thread is about to wait for a lock.  So the
handlers here do nothing; the interpreter's own, in C, also writes the signal's number to a socket, and a thread reads
it there and does what is to be done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from jobrunner.batch import StopRequest
from jobrunner.cli.exits import INTERRUPTED, TERMINATED

__all__ = ["Interrupts"]

_EXIT_CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}

#: Seconds that the killing may take before the process ends all the same; nothing of it outlives the process anyway.
_KILL_TIME_S = 2.0

_NOTICE = b"\njobrunner: stopping, and ending what runs; once more kills at once\n"


class Interrupts:
    """While entered, the first SIGINT or SIGTERM requests a stop and the second kills the process and its workers.

    To be entered on the main thread.  A signal that the caller had ignored (a background job's SIGINT) stays ignored.
    The handlers that were there before come back on leaving.

    Args:
        stop: where the first signal asks for the stop.
        kill: called at the second, on a thread of its own, just before the process exits.
    """

    def __init__(self, stop: StopRequest, kill: Callable[[], object]) -> None:
        self._stop = stop
        self._kill = kill
        self._received: int | None = None
        self._before: dict[int, Any] = {}
        self._wakeup_before = -1
        # Signal numbers, a byte each, as they arrive.
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._listener = threading.Thread(target=self._listen, name="jobrunner-interrupts", daemon=True)

    @property
    def exit_code(self) -> int | None:
        """The exit code that the first signal asks for; None if there was none."""
        return None if self._received is None else _EXIT_CODES[signal.Signals(self._received)]

    def __enter__(self) -> Interrupts:
        self._listener.start()
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in _EXIT_CODES:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, _leave_to_listener)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._writer.close()
        self._listener.join()
        self._reader.close()

    def _listen(self) -> None:
        while numbers := self._reader.recv(1):
            # Other signals that have handlers come here too.
            if numbers[0] in self._before:
                self._take(numbers[0])

    def _take(self, number: int) -> None:
        if self._received is not None:
            killing = threading.Thread(target=self._kill, name="jobrunner-kill", daemon=True)
            killing.start()
            killing.join(_KILL_TIME_S)
            os._exit(_EXIT_CODES[signal.Signals(number)])
        self._received = number
        self._stop.request()
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, _NOTICE)


def _leave_to_listener(number: int, frame: FrameType | None) -> None:
    """Do nothing here: see the module."""
