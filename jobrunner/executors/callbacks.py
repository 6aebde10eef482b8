"""Threads for the user's code: done callbacks, and whatever else must not run on the dispatcher.

Guarantees:

- what is handed over is begun in the order of handing over;
- one call at a time runs while calls are short, so that a thousand callbacks cost two threads: one that runs them, and
  one that watches it;
- a call that blocks holds the others up for no longer than `_PATIENCE_S`: then another thread takes over.  A callback
  may therefore wait for anything, another job's callback included;
- a thread with nothing to do goes after `_IDLE_S`, but for the last one, which stays: an exiting interpreter of Python
  3.12 starts no threads.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

__all__ = ["CallbackThreads", "on_callback_thread"]

_PATIENCE_S = 0.01
_IDLE_S = 10.0

_log = logging.getLogger("jobrunner")
_here = threading.local()


def on_callback_thread() -> bool:
    """Whether the calling thread is running a callback."""
    return getattr(_here, "active", False)


class CallbackThreads:
    """Runs calls in order on threads of its own; see the module for the guarantees."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # All below is guarded by _changed.
        self._calls: deque[Callable[[], object]] = deque()
        self._running = 0  # threads inside a call
        self._waiting = 0  # threads that wait for something to do, or for a running call to take too long
        self._begun = 0  # calls begun so far; a waiting thread sees by it whether there is progress

    def run(self, call: Callable[[], object]) -> None:
        """Have `call` called soon; what it raises is logged.  Never waits."""
        with self._changed:
            self._calls.append(call)
            if self._waiting:
                self._changed.notify()
            else:
                # Either there is no thread at all, or all are inside calls that may block.
                self._add_thread()

    def have_thread(self) -> None:
        """See that there is a thread, for a call that comes when none may be started any more."""
        with self._changed:
            if not self._waiting and not self._running:
                self._add_thread()

    def _add_thread(self) -> None:
        """Start a thread that waits; under the lock."""
        try:
            threading.Thread(target=self._work, name="jobrunner-callbacks", daemon=True).start()
        except RuntimeError:
            return  # the interpreter has begun to exit and starts no threads: `drain` sees to the calls
        self._waiting += 1

    def drain(self) -> None:
        """Wait until everything handed over has been run; what no thread is left for is run here."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._running and (not self._calls or not self._waiting))
                if not self._calls:
                    return
                call = self._calls.popleft()
            _run(call)

    def _work(self) -> None:
        _here.active = True
        while (call := self._next()) is not None:
            _run(call)
            # Not kept while waiting for the next one.
            del call
            with self._changed:
                self._running -= 1
                self._waiting += 1
                if not self._calls and not self._running:
                    self._changed.notify_all()

    def _next(self) -> Callable[[], object] | None:
        """The next call to make on this thread; None when the thread is to end."""
        with self._changed:
            while True:
                if self._calls and not self._running:
                    break
                begun = self._begun
                # The last one stays, and sleeps until there is something to do.
                patience = _PATIENCE_S if self._calls else _IDLE_S if self._waiting > 1 else None
                in_time = self._changed.wait(patience)
                if in_time or begun != self._begun:
                    continue
                if self._calls:
                    break  # the running call takes long: do not wait for it
                if self._waiting > 1:
                    self._waiting -= 1
                    return None
            self._waiting -= 1
            self._running += 1
            self._begun += 1
            call = self._calls.popleft()
            if self._calls and not self._waiting:
                self._add_thread()  # to take over if this call blocks
            return call


def _run(call: Callable[[], object]) -> None:
    try:
        call()
    except BaseException:
        _log.exception("exception in a callback")
