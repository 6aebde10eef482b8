"""Ctrl-C and SIGTERM during a batch.

The first asks the run to stop; the second kills.  A signal handler runs between two bytecodes of the main thread, which
may hold any lock at that moment, so a handler here only puts into `SimpleQueue`s (their `put` is reentrant), writes to
a descriptor, and leaves the killing to a thread that waits for it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
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
        self._deaths: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # an exit code; None: nobody died
        self._killer = threading.Thread(target=self._wait_to_kill, name="jobrunner-killer", daemon=True)

    @property
    def exit_code(self) -> int | None:
        """The exit code that the first signal asks for; None if there was none."""
        return None if self._received is None else _EXIT_CODES[signal.Signals(self._received)]

    def __enter__(self) -> Interrupts:
        self._killer.start()
        for number in _EXIT_CODES:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._deaths.put(None)
        self._killer.join()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            self._deaths.put(_EXIT_CODES[signal.Signals(number)])
            return
        self._received = number
        self._stop.request()
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, _NOTICE)

    def _wait_to_kill(self) -> None:
        code = self._deaths.get()
        if code is None:
            return
        killing = threading.Thread(target=self._kill, name="jobrunner-kill", daemon=True)
        killing.start()
        killing.join(_KILL_TIME_S)
        os._exit(code)
