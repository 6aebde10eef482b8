"""How many jobs may wait to be sent to a cluster, and who waits for room."""

from __future__ import annotations

import threading

from jobrunner.errors import ExecutorShutdownError, JobError
from jobrunner.executors.callbacks import on_callback_thread
from jobrunner.executors.future import in_event_loop

__all__ = ["Room"]


class Room:
    """Room for jobs that wait; any thread may call it.

    Args:
        limit: for how many; None: any number, and nothing is counted.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        # How many there are, and whether no more come; guarded by _changed.
        self._waiting = 0
        self._closed = False

    def enter(self, *, at_once: bool) -> None:
        """One more waits; blocks until there is room for it.

        Args:
            at_once: whether there is room or not.

        Raises:
            JobError: there is no room, and this thread must not wait.
            ExecutorShutdownError: it was closed before there was.
        """
        limit = self._limit
        if limit is None:
            return
        with self._changed:
            if not at_once and self._waiting >= limit:
                if in_event_loop() or on_callback_thread():
                    raise JobError(
                        f"the queue is full ({limit} jobs wait: max_pending), and submit can't wait in an event loop "
                        "or a callback: submit from another thread, or later"
                    )
                self._changed.wait_for(lambda: self._waiting < limit or self._closed)
                if self._waiting >= limit:
                    raise ExecutorShutdownError("the executor was shut down while submit waited for room in its queue")
            self._waiting += 1

    def leave(self) -> None:
        """One waits no more."""
        if self._limit is not None:
            with self._changed:
                self._waiting -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Nobody is to wait for room any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
