"""Large data that crosses between processes without a copy through a pipe: the sender's side.

::

    sender                                            receiver
    Arena.pack ──▶ Segment ── send_descriptor ══════▶ receive_descriptor ──▶ open_received ──▶ memoryview
       ▲                                                                                          │
       └──── Arena.release ◀── (said over the channel) ◀── on_gone: its last reference is gone ◀──┘

The data lie in anonymous shared memory: a memfd on Linux, elsewhere POSIX shared memory whose name is removed at once.
So nothing has a name, and whoever is killed leaves nothing behind.  Windows has no such descriptors: there `CAN_PASS`
is False, `Arena.pack` gives None, and the data travel in the message, as they do when memory or descriptors run out.

Memory is kept warm and used again, since its pages cost more than the copy: 64 MB take 23 ms into new memory and 11 ms
into old, on a machine where a bare memcpy takes 11 ms.  A receiver's private map shows what is written later to pages
that it has not touched yet; so memory is used again only when the receiver has said that its last reference is gone.

The receiver's side is `jobrunner.received`.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import pickle
import socket
import struct
import sys
import threading
from collections.abc import Sequence

from jobrunner.anonymous_memory import AnonymousMemory

__all__ = ["ALIGN", "CAN_PASS", "Arena", "Segment", "layout", "send_descriptor"]

#: Each part of a segment begins at a multiple of so many bytes: a cache line, and enough for any vector instruction.
ALIGN = 64

#: Whether this system can pass descriptors and map what they stand for privately.
CAN_PASS = sys.platform != "win32" and hasattr(socket, "AF_UNIX") and hasattr(socket, "SCM_RIGHTS")

#: What may be packed: anything whose bytes lie together.
Part = bytes | bytearray | memoryview | pickle.PickleBuffer

#: What dropping free memory may cure.
_SHORTAGES = (errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EDQUOT)
_MESSAGE = struct.Struct("Q")
_DESCRIPTOR = struct.Struct("i")


def layout(lengths: Sequence[int]) -> tuple[list[int], int]:
    """Where parts of these lengths lie in a segment, and the length of the whole; all in bytes.

    Example:
        >>> layout([100, 0, 7])
        ([0, 128, 128], 135)
    """
    offsets = []
    end = 0
    for length in lengths:
        offsets.append(-(-end // ALIGN) * ALIGN)
        end = offsets[-1] + length
    return offsets, end


def send_descriptor(sock: socket.socket, fd: int, number: int) -> None:
    """Send a descriptor with the number of its segment, as one message.

    Args:
        sock: a Unix socket, blocking or not.
        fd: the descriptor; it can be closed as soon as this returns.
        number: of the segment.

    Raises:
        BlockingIOError: the socket is full; nothing was sent.
        OSError: the receiver is gone, or too many descriptors are on their way (ETOOMANYREFS); nothing was sent.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(fd))]
    # Without a signal, should a job have brought SIGPIPE back.
    sent = sock.sendmsg([_MESSAGE.pack(number)], rights, getattr(socket, "MSG_NOSIGNAL", 0))
    if sent != _MESSAGE.size:
        raise OSError(errno.EPROTO, "a message of a few bytes was cut in two")


class Segment:
    """The sender's record of data in shared memory.

    Attributes:
        number: unique within its arena, at least 1; another one each time that memory is used again.
        length: bytes in use.
        capacity: bytes that it has.
        fd: the descriptor, which is the arena's; valid until the segment is released.
    """

    __slots__ = ("_memory", "capacity", "fd", "length", "number")

    def __init__(self, number: int, length: int, memory: AnonymousMemory) -> None:
        self.number = number
        self.length = length
        self.capacity = memory.capacity
        self.fd = memory.fd
        self._memory = memory

    def __repr__(self) -> str:
        return f"<Segment {self.number}: {self.length} of {self.capacity} bytes, descriptor {self.fd}>"


class Arena:
    """A sender's shared memory: in use by receivers, or free and kept warm.

    All methods may be called from any thread, but not from a weakref callback or ``__del__``: they take a lock.  It is
    held for bookkeeping only, never across a system call.

    Args:
        keep_bytes: how much free memory is kept for being used again; 0: none.
        most_open: how many segments there are at most, in use and free; each has one open descriptor.

    Example:
        >>> arena = Arena(keep_bytes=1 << 20, most_open=4)
        >>> segment = arena.pack([b"spam", bytearray(5)])
        >>> segment.number, segment.length
        (1, 69)
        >>> arena.release(1)
        >>> arena.open_count, arena.free_bytes == segment.capacity
        (1, True)
        >>> arena.close()
    """

    def __init__(self, *, keep_bytes: int, most_open: int) -> None:
        self._keep_bytes = keep_bytes
        self._most_open = most_open
        self._lock = threading.Lock()
        self._closed = False
        self._last_number = 0
        self._used: dict[int, Segment] = {}
        #: Oldest first.
        self._free: list[AnonymousMemory] = []
        self._free_bytes = 0
        #: What is being filled belongs to the thread that fills it; None while that makes it.
        self._filling: dict[int, AnonymousMemory | None] = {}

    @property
    def open_count(self) -> int:
        """How many segments there are, in use and free."""
        with self._lock:
            return self._count()

    @property
    def free_bytes(self) -> int:
        """How much memory is kept for being used again."""
        with self._lock:
            return self._free_bytes

    def pack(self, parts: Sequence[Part]) -> Segment | None:
        """Data in shared memory, each part at its place by `layout`; None where there is no memory to be had.

        Free memory is used again where its size fits (at most twice what is needed), otherwise new memory is made.

        Args:
            parts: the data, of any shape and type, read-only or not; the bytes of each must lie together.

        Returns:
            the segment, in use until it is released.  None when the arena is closed or has as many segments as it may,
            when descriptors or memory have run out, and on a system that can't pass descriptors.

        Raises:
            BufferError: a part is not contiguous.
        """
        views = [pickle.PickleBuffer(part).raw() for part in parts]
        offsets, length = layout([view.nbytes for view in views])
        if not CAN_PASS:
            return None
        try:
            return self._make(views, offsets, length)
        except MemoryError:
            pass
        except OSError as error:
            if error.errno not in _SHORTAGES:
                return None
        # What is kept warm may be what is wanting.
        if not self._drop_free():
            return None
        try:
            return self._make(views, offsets, length)
        except (OSError, MemoryError):
            return None

    def _make(self, parts: list[memoryview], offsets: list[int], length: int) -> Segment | None:
        """A filled segment; None where the arena gives no more.  Raises OSError, MemoryError where the system does."""
        number, memory = self._begin(length)
        if number == 0:
            return None
        try:
            if memory is None:
                memory = self._filling[number] = AnonymousMemory(length, again=True)
            memory.fill(parts, offsets)
            segment = Segment(number, length, memory)
        except BaseException:
            with self._lock:
                self._filling.pop(number, None)
            if memory is not None:
                memory.close()
            raise
        with self._lock:
            self._filling.pop(number, None)
            if not self._closed:
                self._used[number] = segment
                return segment
        memory.close()
        return None

    def _begin(self, length: int) -> tuple[int, AnonymousMemory | None]:
        """A number, and free memory that fits or None; the number is 0 where the arena gives no more."""
        surplus = None
        with self._lock:
            if self._closed:
                return 0, None
            memory = self._take_best(length)
            if memory is None and self._count() >= self._most_open:
                if not self._free:
                    return 0, None
                surplus = self._take(0)
            self._last_number += 1
            number = self._last_number
            self._filling[number] = memory
        if surplus is not None:
            surplus.close()
        return number, memory

    def _take_best(self, length: int) -> AnonymousMemory | None:
        most = 2 * max(length, mmap.PAGESIZE)
        fitting = [
            (memory.capacity, -place) for place, memory in enumerate(self._free) if length <= memory.capacity <= most
        ]
        # Of equals the last released: it may still be in a cache.
        return self._take(-min(fitting)[1]) if fitting else None

    def _take(self, place: int) -> AnonymousMemory:
        memory = self._free.pop(place)
        self._free_bytes -= memory.capacity
        return memory

    def _count(self) -> int:
        return len(self._used) + len(self._filling) + len(self._free)

    def release(self, number: int, *, reusable: bool = True) -> None:
        """A receiver's last reference to a segment is gone, or it never got it.

        Args:
            number: of the segment; one that is not in use is ignored.  Whether the segment was that receiver's is for
                the caller to check.
            reusable: whether its memory may be used again; otherwise it is closed.
        """
        surplus = []
        with self._lock:
            segment = self._used.pop(number, None)
            if segment is None:
                return
            memory = segment._memory
            if reusable and memory.capacity <= self._keep_bytes:
                self._free.append(memory)
                self._free_bytes += memory.capacity
                while self._free_bytes > self._keep_bytes:
                    surplus.append(self._take(0))
            else:
                surplus.append(memory)
        for one in surplus:
            one.close()

    def trim(self) -> None:
        """Close all memory that is free."""
        self._drop_free()

    def _drop_free(self) -> bool:
        with self._lock:
            free, self._free = self._free, []
            self._free_bytes = 0
        for memory in free:
            memory.close()
        return bool(free)

    def close(self) -> None:
        """Close everything, also what is in use: receivers keep their maps.  From now on `pack` gives None."""
        with self._lock:
            self._closed = True  # who is filling memory now closes it
            used, self._used = self._used, {}
        for segment in used.values():
            segment._memory.close()
        self._drop_free()

    def forsake(self) -> None:
        """In a fork of the process: close its copies of the descriptors.  From now on `pack` gives None."""
        # Another thread may have held the lock, and stood between two steps of its bookkeeping.
        self._lock = threading.Lock()
        self._closed = True
        filling = [memory for memory in self._filling.values() if memory is not None]
        used = [segment._memory for segment in self._used.values()]
        fds = {memory.fd for memory in (*filling, *used, *self._free)}
        self._used, self._free, self._free_bytes, self._filling = {}, [], 0, {}
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)
