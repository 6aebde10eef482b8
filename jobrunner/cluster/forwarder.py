"""What jobs print at a node, on its way to the caller's process, which writes it.

::

    pipes ══▶ LaneOutput ──▶ Forwarder ──▶ the node's events ··collect··▶ Ledger ──▶ OutputWriter ──▶ the caller's fds
                                 ▲                                          │
                                 └──── ("written", bytes) ◀····post····─────┘

Guarantees:

- no more than `AHEAD_BYTES`, and a piece, are under way to the caller or wait there: it says how much it has written,
  and until then what comes stays here;
- when so much is not written, pipes are not read any more, and who prints waits; nobody else does;
- what a job has printed is told before the job's outcome is: while it is held back here, that is too.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from jobrunner.executors.output import OutputWriter

__all__ = ["AHEAD_BYTES", "WRITTEN_BYTES", "Forwarder"]

#: How much of what is printed at a node its caller may be sent before it has written it.
AHEAD_BYTES = 1 << 20
#: The caller says so each time that it has written so much.
WRITTEN_BYTES = AHEAD_BYTES // 4


class Forwarder(OutputWriter):
    """Takes what jobs print, to be written by the caller's process; any thread may call it.

    Args:
        tell: has the caller told of something: ``("printed", stream, data, number)``.
    """

    def __init__(self, tell: Callable[[tuple[Any, ...]], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        # All below is guarded by it.  Bytes that were told, and are not known to be written; they and those held back.
        self._ahead = 0
        self.backlog = 0
        # What is held back, in order: what was printed, and calls that must come after.
        self._held: deque[tuple[int, bytes] | Callable[[], object]] = deque()
        self._waiting: list[Callable[[], object]] = []
        self._closed = False
        self.handed = self.done = 0

    def put(self, call: Callable[[], object], size: int = 0) -> int:
        """See `OutputWriter.put`; what writes something does so into a job's report, and waits for nothing."""
        if not size:
            with self._lock:
                if self._held:
                    self._held.append(call)
                    self.handed += 1
                    return self.handed
        call()
        return 0

    def print(self, fd: int, data: bytes, source: object) -> int:
        """See `OutputWriter.print`: it is told, or held back."""
        with self._lock:
            self.handed += 1
            self.backlog += len(data)
            self._held.append((fd, data))
            if len(self._held) == 1:
                self._give()  # never a call
            return self.handed

    def _give(self) -> list[Callable[[], object]]:
        """Tell what may be told by now; the calls that come after it, to be made without the lock."""
        calls: list[Callable[[], object]] = []
        held = self._held
        while held:
            first = held[0]
            if callable(first):
                calls.append(first)
            elif self._ahead < AHEAD_BYTES or self._closed:
                fd, data = first
                self._ahead += len(data)
                self._tell(("printed", fd, data, self.done + 1))
            else:
                break
            held.popleft()
            self.done += 1
        return calls

    def written(self, nbytes: int) -> None:
        """The caller has written so much more of what it was told."""
        with self._lock:
            self._ahead -= nbytes
            self.backlog -= nbytes
        self._go_on()

    def _go_on(self) -> None:
        with self._lock:
            calls = self._give()
            if self.backlog < AHEAD_BYTES:
                calls += self._waiting
                self._waiting = []
        for call in calls:
            call()

    def has_room(self, when: Callable[[], object]) -> bool:
        """See `OutputWriter.has_room`."""
        with self._lock:
            if self.backlog < AHEAD_BYTES:
                return True
            if when not in self._waiting:
                self._waiting.append(when)
            return False

    def drain(self) -> None:
        """Nothing: it is the caller who waits until all is written."""

    def close(self) -> None:
        """Nobody says any more what is written: hold nothing back."""
        with self._lock:
            self._closed = True
        self._go_on()
