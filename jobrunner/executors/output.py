"""What jobs print: on its way to the caller's own streams, a line at a time, or into a job's report.

::

    worker: fd 1, fd 2 ══ pipes ══▶ LaneOutput (dispatcher) ──▶ OutputWriter (a thread) ──▶ the caller's fd 1, fd 2
                                                                        └──▶ Capture: head, file, tail

Guarantees:

- a line is written in one piece, whichever of a job's processes printed it; a line without an end is written when its
  job is over, and what another job prints then begins a new line;
- what a job printed is written, or captured, before the job is final: the worker says how far in the pipes it goes,
  the dispatcher takes it out, and the job is settled after it on the writer's thread;
- what is read is of the job in front as long as no later one was claimed; once one was, it is dealt out when it is
  known how far the job in front goes, which the worker has said by then;
- what processes print that a job has left behind, and for which its worker is ended, is dropped once the job is over;
- the dispatcher never waits for a terminal: while the writer is behind, pipes are not read, and who prints waits.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import select
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable

from jobrunner.handover import ProgressPage
from jobrunner.messages import UNKNOWN_END
from jobrunner.report import JobOutput

__all__ = ["CAN_REDIRECT", "Capture", "LaneOutput", "OutputWriter", "Spool"]

#: Whether workers' output can be led through pipes that the dispatcher listens to.
CAN_REDIRECT = sys.platform != "win32"

# What is read from a pipe at a time, and how much of a lane's output at the end of a job: more than pipes hold.
_READ_BYTES = 1 << 16
_DRAIN_BYTES = 1 << 21
# A line longer than this is written in pieces.
_LONGEST_LINE = 1 << 16
# How far the writer may be behind before pipes are not read any more, and when they are read again.
_BACKLOG_BYTES = 1 << 20
_ROOM_BYTES = 1 << 18

# Of each captured stream: what goes to the report from the beginning and from the end, what is kept in memory before a
# file is made, and how much is kept in all; beyond that only the end is.
_HEAD_BYTES = 4096
_TAIL_BYTES = 8192
_IN_MEMORY_BYTES = 1 << 15
_KEPT_BYTES = 1 << 24

_NOTHING = [b"", b""]
# Where the worker is told how much of each stream was read.
_WORDS = (ProgressPage.OUT_READ, ProgressPage.ERR_READ)

_log = logging.getLogger("jobrunner")


class Spool:
    """A directory for captured output that is too much for memory; made when it is first needed.

    A file is opened only for as long as it is written to or read, so that any number of jobs may have one.  The
    guardian removes the directory where this process has not.

    Args:
        path: where; a name that nobody can guess.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._pid = os.getpid()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._made = False

    def new_file(self) -> str:
        """The path of a file that doesn't exist yet.

        Raises:
            OSError: the directory can't be made.
        """
        with self._lock:
            if not self._made:
                os.mkdir(self.path, 0o700)
                self._made = True
        return f"{self.path}/{next(self._numbers)}"

    def close(self) -> None:
        """Remove everything, unless this is a fork of the process that made it."""
        if self._made and self._pid == os.getpid():
            shutil.rmtree(self.path, ignore_errors=True)

    def remove(self, path: str) -> None:
        """Remove a file, likewise."""
        if self._pid == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(path)


class _CapturedStream:
    """One captured stream; written by one thread, read by any."""

    def __init__(self, spool: Spool) -> None:
        self._lock = threading.Lock()
        self._spool = spool
        self._head = b""
        self._tail = b""
        self._total = 0
        # The first bytes, up to _KEPT_BYTES: in memory, then in a file.
        self._first = bytearray()
        self._path: str | None = None
        # How many they are; fewer than all before where there was no room for them.
        self._filed = 0

    def write(self, data: bytes) -> None:
        with self._lock:
            if len(self._head) < _HEAD_BYTES:
                self._head += data[: _HEAD_BYTES - len(self._head)]
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
            if self._filed == self._total < _KEPT_BYTES:
                self._keep(data[: _KEPT_BYTES - self._filed])
            self._total += len(data)

    def _keep(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # no room for a file, or no descriptor: what there is must do
            if self._path is None:
                if self._filed + len(data) <= _IN_MEMORY_BYTES:
                    self._first += data
                    self._filed += len(data)
                    return
                path = self._spool.new_file()
                with open(path, "xb", opener=_private) as file:
                    file.write(self._first)
                self._path, self._first = path, bytearray()
            with open(self._path, "ab", buffering=0) as file:
                self._filed += file.write(data)

    def __del__(self) -> None:
        if self._path is not None:
            self._spool.remove(self._path)

    def head(self) -> str:
        return self._head.decode(errors="replace")

    def tail(self) -> str:
        return self._tail.decode(errors="replace")

    def whole(self) -> str:
        """All that is kept, with a note where something was left out."""
        with self._lock:
            kept = bytes(self._first)
            if self._path is not None:
                kept = self._head
                with contextlib.suppress(OSError), open(self._path, "rb") as file:
                    kept = file.read(self._filed)
            tail = self._tail
            left_out = self._total - len(kept) - len(tail)
            if left_out <= 0:
                data = kept + (tail[-(self._total - len(kept)) :] if self._total > len(kept) else b"")
            else:
                data = kept + f"\n[{left_out} bytes left out]\n".encode() + tail
        return data.decode(errors="replace")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class Capture:
    """What a job prints, kept for its report; the tails of a job that is running are those of now.

    Args:
        spool: where what is too much for memory goes.
    """

    def __init__(self, spool: Spool) -> None:
        self._streams = (_CapturedStream(spool), _CapturedStream(spool))

    def write(self, stream: int, data: bytes) -> None:
        """Add to stdout (0) or stderr (1)."""
        self._streams[stream].write(data)

    def fields(self) -> dict[str, str]:
        """The fields of a `JobReport`."""
        out, err = self._streams
        return {
            "stdout_head": out.head(),
            "stdout_tail": out.tail(),
            "stderr_head": err.head(),
            "stderr_tail": err.tail(),
        }

    def output(self) -> JobOutput:
        """The whole."""
        out, err = self._streams
        return JobOutput(out.whole(), err.whole())


class OutputWriter:
    """Writes what jobs print, on a thread of its own; and runs, in their turn, calls that must come after.

    Attributes:
        backlog: bytes handed over and not yet written.
        handed: how many things were handed over.
        done: how many of them are done.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[tuple[Callable[[], object], int]] = deque()
        self.backlog = 0
        self.handed = 0
        self.done = 0
        # Called when there is room again.
        self._waiting: list[Callable[[], object]] = []
        # Per descriptor: who has written a line there that has no end yet.
        self._unfinished: dict[int, object] = {}
        threading.Thread(target=self._work, name="jobrunner-output", daemon=True).start()

    def put(self, call: Callable[[], object], size: int = 0) -> int:
        """Have `call` called after what was handed over before; `size` bytes are written by it.

        Returns:
            Its number: it is done when `done` has reached that.
        """
        with self._changed:
            self._items.append((call, size))
            self.backlog += size
            self.handed += 1
            self._changed.notify()
            return self.handed

    def print(self, fd: int, data: bytes, source: object) -> int:
        """Have `data`, printed by `source`, be written to a descriptor of this process; see `put`."""
        return self.put(lambda: self._print(fd, data, source), len(data))

    def has_room(self, when: Callable[[], object]) -> bool:
        """Whether more may be handed over; if not, `when` is called as soon as it may."""
        with self._changed:
            if self.backlog < _BACKLOG_BYTES:
                return True
            if when not in self._waiting:
                self._waiting.append(when)
            return False

    def drain(self) -> None:
        """Wait until all that was handed over is done."""
        with self._changed:
            self._changed.wait_for(lambda: self.done == self.handed)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items)
                call, size = self._items.popleft()
            try:
                call()
            except Exception:
                _log.exception("a job's output could not be written")
            del call
            with self._changed:
                self.backlog -= size
                self.done += 1
                told: list[Callable[[], object]] = []
                if self.backlog < _ROOM_BYTES:
                    told, self._waiting = self._waiting, []
                self._changed.notify_all()
            for tell in told:
                tell()

    def _print(self, fd: int, data: bytes, source: object) -> None:
        if self._unfinished.get(fd, source) is not source:
            data = b"\n" + data
        if data.endswith(b"\n"):
            self._unfinished.pop(fd, None)
        else:
            self._unfinished[fd] = source
        _write(fd, data)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except OSError:
            return  # closed, full, or nobody reads it: as with any program's output


class LaneOutput:
    """The pipes that a worker prints into, and what comes out of them.

    Read by the dispatcher only; what it is read into is settled under the pool's lock.

    Args:
        writer: writes what is not captured.
        words: the words of the worker's progress page, where it is told how much was read.

    Attributes:
        ours: the descriptors to read from, of stdout and stderr.
        theirs: the worker's; closed once it has them.
        ticket: number of the last thing handed to the writer.
    """

    def __init__(self, writer: OutputWriter, words: memoryview) -> None:
        self._writer = writer
        self._words = words
        self.ours = [-1, -1]
        self.theirs = [-1, -1]
        try:
            for stream in range(2):
                self.ours[stream], self.theirs[stream] = os.pipe()
                os.set_blocking(self.ours[stream], False)
        except OSError:
            self.close()
            raise
        # Per stream: how many bytes were read; what of them is not dealt out yet; the beginning of a line.
        self._read = [0, 0]
        self._held = [b"", b""]
        self._partial = [b"", b""]
        self._silent = False
        # Whose lines these are; another object after each job that left a line without an end.
        self._source = object()
        self.ticket = 0

    def read(self, stream: int) -> bool | None:
        """Take in what there is, once; whether there was something: None if not now, False if never again.

        Args:
            stream: stdout (0) or stderr (1).
        """
        data: bytes | None = b""
        word = _WORDS[stream]
        self._words[word] = 2 * self._read[stream] + 1
        try:
            data = os.read(self.ours[stream], _READ_BYTES)
        except BlockingIOError:
            data = None
        except OSError:
            pass  # closed
        if data:
            self._read[stream] += len(data)
            self._held[stream] += data
        self._words[word] = 2 * self._read[stream]
        return None if data is None else bool(data)

    @property
    def holds(self) -> bool:
        """Whether there is something to be dealt out."""
        return self._held != _NOTHING

    def deal_out(self, capture: Capture | None, ends: tuple[int, int] = (UNKNOWN_END, UNKNOWN_END)) -> None:
        """What was read is of one job.

        Args:
            capture: where it goes; None: to the caller's own streams.
            ends: how far it goes, of stdout and stderr; what comes after is of the next job.
        """
        if self._silent:
            self._held = [b"", b""]
        for stream, end in enumerate(ends):
            held = self._held[stream]
            count = max(0, end - (self._read[stream] - len(held)))
            self._held[stream] = held[count:]
            if held[:count]:
                self._hand_over(stream, held[:count], capture)

    def _hand_over(self, stream: int, data: bytes, capture: Capture | None) -> None:
        if capture is not None:
            self.ticket = self._writer.put(lambda: capture.write(stream, data), len(data))
            return
        whole, end, rest = (self._partial[stream] + data).rpartition(b"\n")
        if len(rest) > _LONGEST_LINE:
            whole, end, rest = whole + end + rest, b"", b""
        self._partial[stream] = rest
        if whole or end:
            self.ticket = self._writer.print(stream + 1, whole + end, self._source)

    def drain(self, capture: Capture | None, ends: tuple[int, int] = (UNKNOWN_END, UNKNOWN_END)) -> None:
        """Take in and deal out all that a job has printed, which is over; see `deal_out`."""
        for stream, end in enumerate(ends):
            for _ in range(_DRAIN_BYTES // _READ_BYTES):
                if self._read[stream] >= end or not self.read(stream):
                    break
        self.deal_out(capture, ends)

    def finish_lines(self) -> None:
        """A job is over: lines that it left without an end are written as they are."""
        if self._partial == _NOTHING:
            return
        for stream in range(2):
            rest, self._partial[stream] = self._partial[stream], b""
            if rest:
                self.ticket = self._writer.print(stream + 1, rest, self._source)
                self._source = object()

    def silence(self) -> None:
        """The last job is over: what it has left behind may print what it likes until it is ended, but to nobody."""
        self._silent = True

    def close_theirs(self) -> None:
        """Close the worker's ends, which are its own by now."""
        for stream, fd in enumerate(self.theirs):
            if fd >= 0:
                os.close(fd)
                self.theirs[stream] = -1

    def close(self) -> None:
        """Close everything; nobody listens to it any more."""
        self.close_theirs()
        for stream, fd in enumerate(self.ours):
            if fd >= 0:
                os.close(fd)
                self.ours[stream] = -1
