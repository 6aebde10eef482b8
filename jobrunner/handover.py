"""What a worker is handed while it is being spawned: its end of the channel, its progress page, its tokens.

Descriptors are inherited: they are pickled among the arguments of the worker's loky executor while loky spawns it, so
there is no listening socket, no name in a file system and no authentication to get wrong.  The receiving end makes each
its own and not inheritable, so that a program started by a job doesn't hold the channel open.

Everything here works on any POSIX system; where Linux has something better (memfd, eventfd) it is used, and the
fallback stands beside it.  On Windows sockets are shared with the child by its process id.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable
from multiprocessing.context import get_spawning_popen
from typing import Any

__all__ = [
    "HandedDescriptor",
    "HandedSocket",
    "ProgressPage",
    "StackFile",
    "TokenCounter",
    "open_stack_file",
    "open_tokens",
]


# From <linux/fcntl.h>; not all of them have names in `fcntl` of every Python version.
_F_ADD_SEALS = 1033
_F_SEAL_SHRINK = 0x2
_F_SEAL_GROW = 0x4
_F_SEAL_FUTURE_WRITE = 0x10


def _receive_descriptor(fd: int) -> int:
    os.set_inheritable(fd, False)
    return fd


def _spawning() -> Any:
    popen = get_spawning_popen()
    if popen is None:
        raise TypeError("a worker's channel can only be pickled while the worker is spawned")
    return popen


class HandedSocket:
    """A socket that crosses to a worker while it is spawned.

    Attributes:
        sock: the socket, in whichever process this is.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def __reduce__(self) -> tuple[Callable[..., HandedSocket], tuple[Any, ...]]:
        popen = _spawning()
        if sys.platform == "win32":
            return _receive_shared_socket, (self.sock.share(popen.pid),)
        return _receive_socket, (popen.duplicate_for_child(self.sock.fileno()),)


def _receive_socket(fd: int) -> HandedSocket:
    return HandedSocket(socket.socket(fileno=_receive_descriptor(fd)))


def _receive_shared_socket(info: bytes) -> HandedSocket:
    return HandedSocket(socket.fromshare(info))  # type: ignore[attr-defined,unused-ignore]


class HandedDescriptor:
    """A descriptor that crosses to a worker while it is spawned; POSIX only.

    Attributes:
        fd: the descriptor, in whichever process this is.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Callable[..., HandedDescriptor], tuple[Any, ...]]:
        return _receive_handed, (_spawning().duplicate_for_child(self.fd),)


def _receive_handed(fd: int) -> HandedDescriptor:
    return HandedDescriptor(_receive_descriptor(fd))


class StackFile:
    """A file without a name into which a worker's Python stack is written when it crashes or is ended.

    The worker has its descriptor, the caller a map of it, readable after the worker's death.  Its size is fixed: a job
    that writes into every descriptor fills it, and no more.  Linux only: elsewhere a worker has none.
    """

    BYTES = 1 << 16

    def __init__(self) -> None:
        self._fd = os.memfd_create("jobrunner-stack", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._fd, self.BYTES)
        self._map = mmap.mmap(self._fd, self.BYTES, prot=mmap.PROT_READ)
        _add_seals(self._fd, _F_SEAL_SHRINK | _F_SEAL_GROW)

    def length(self) -> int:
        """How much was written, in bytes; the rest is zeros, of which no page is ever touched."""
        end = self._map.find(b"\0")
        return self.BYTES if end < 0 else end

    def read(self) -> str:
        """What stands in it."""
        return self._map[: self.length()].decode(errors="replace")

    def close_descriptor(self) -> None:
        """Close the descriptor, which is needed only until the worker is spawned."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __reduce__(self) -> tuple[Callable[..., HandedDescriptor], tuple[Any, ...]]:
        return _receive_handed, (_spawning().duplicate_for_child(self._fd),)


def open_stack_file() -> StackFile | None:
    """A new stack file; None where the system has none."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        return StackFile()
    except OSError:  # a kernel or sandbox without it
        return None


class ProgressPage:
    """A page of memory in which a worker says, without a system call, what it is doing.

    The worker writes, the caller reads, at any time and after the worker's death too; but OUT_READ and ERR_READ, which
    the caller writes.  A word is 8 aligned bytes, stored in one go.  The worker writes a time before the sequence
    number that it belongs to, so that a number read stands for a time already there.

    Words: TAKEN and STARTED hold the sequence number of the job last taken up and last started, each followed by its
    `time.monotonic_ns`.  ITEM holds the number of the item in work within a chunk, counted from 1, followed by the time
    at which it was begun.  Of the moment in which a job was taken up: CPU_NS holds the worker's CPU time, REST_BYTES
    its resident memory, LEFT_BYTES what of that jobs before have left, FLOOR_BYTES what the system would say of its
    peak memory, though that job is not to blame.  OUT_READ and ERR_READ hold twice the number of bytes of stdout and
    stderr that the caller has read, and one more while it is reading.
    """

    TAKEN, TAKEN_NS, STARTED, STARTED_NS, ITEM, ITEM_NS, CPU_NS, REST_BYTES, FLOOR_BYTES, LEFT_BYTES = range(10)
    OUT_READ, ERR_READ = 10, 11

    def __init__(self) -> None:
        self._name = ""
        self._fd = -1
        if sys.platform == "win32":
            self._name = f"jobrunner-{uuid.uuid4()}"
            self._map = mmap.mmap(-1, mmap.PAGESIZE, tagname=self._name)
        else:
            self._fd = _anonymous_file()
            os.ftruncate(self._fd, mmap.PAGESIZE)
            self._map = mmap.mmap(self._fd, mmap.PAGESIZE)
        #: the words, as integers
        self.words = memoryview(self._map).cast("Q")

    def close_descriptor(self) -> None:
        """Close the descriptor, which is needed only until the worker is spawned; the memory stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __reduce__(self) -> tuple[Callable[..., ProgressPage], tuple[Any, ...]]:
        popen = _spawning()
        if sys.platform == "win32":
            return _receive_page, (-1, self._name)
        return _receive_page, (popen.duplicate_for_child(self._fd), "")


def _anonymous_file() -> int:
    """A descriptor of a file without a name."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):  # a kernel or sandbox without it
            return os.memfd_create("jobrunner-progress", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _receive_page(fd: int, name: str) -> ProgressPage:
    page = ProgressPage.__new__(ProgressPage)
    page._name = name
    page._fd = -1
    if sys.platform == "win32":
        page._map = mmap.mmap(-1, mmap.PAGESIZE, tagname=name)
    else:
        page._map = mmap.mmap(_receive_descriptor(fd), mmap.PAGESIZE)
        _seal(fd)
        os.close(fd)
    page.words = memoryview(page._map).cast("Q")
    return page


def _seal(fd: int) -> None:
    """Let nobody write to the page but through the maps there are.

    `mmap` keeps a descriptor of its own, into which a job might write by mistake.
    """
    _add_seals(fd, _F_SEAL_SHRINK | _F_SEAL_GROW | _F_SEAL_FUTURE_WRITE)


def _add_seals(fd: int, seals: int) -> None:
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # not a memfd, or a kernel that doesn't know the seal
            fcntl.fcntl(fd, _F_ADD_SEALS, seals)


class TokenCounter:
    """A number of tokens that two processes take from, each token going to one of them.

    The caller gives a token for each job that it sends, before it sends it; the worker takes one before it starts a
    job, and the caller takes one to revoke a job.  So a job is either started or revoked, never both, though neither
    waits for the other.  This is the portable form: bytes in a socket pair, whose reading end both processes hold.
    """

    def __init__(self, giving: socket.socket | None, taking: socket.socket) -> None:
        self._giving = giving
        self._taking = taking

    def give(self, count: int) -> None:
        """Add `count` tokens; the caller's side only."""
        assert self._giving is not None
        self._giving.sendall(bytes(count))

    def take(self) -> bool:
        """Take one token if there is one; never waits."""
        try:
            return len(self._taking.recv(1)) == 1
        except BlockingIOError:
            return False

    def take_up_to(self, most: int) -> int:
        """Take the tokens there are, but no more than `most`, and say how many that were."""
        # Bounded, for a job may have written into what it should not.
        for count in range(most):
            if not self.take():
                return count
        return most

    def close(self) -> None:
        """Release this process's descriptors."""
        if self._giving is not None:
            self._giving.close()
        self._taking.close()

    def __reduce__(self) -> tuple[Callable[..., TokenCounter], tuple[Any, ...]]:
        return _receive_tokens, (HandedSocket(self._taking),)


def _receive_tokens(taking: HandedSocket) -> TokenCounter:
    taking.sock.setblocking(False)
    return TokenCounter(None, taking.sock)


class EventTokenCounter(TokenCounter):
    """The same on Linux, as an eventfd that counts: one descriptor, and half a microsecond a call."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def give(self, count: int) -> None:
        """Add tokens, in one system call whatever their number."""
        os.eventfd_write(self._fd, count)

    def take(self) -> bool:
        """Take a token, without waiting; whether there was one."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Release this process's descriptor; the other side's goes on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __reduce__(self) -> tuple[Callable[..., TokenCounter], tuple[Any, ...]]:
        return _receive_event_tokens, (_spawning().duplicate_for_child(self._fd),)


def _receive_event_tokens(fd: int) -> TokenCounter:
    return EventTokenCounter(_receive_descriptor(fd))


def open_tokens() -> TokenCounter:
    """A counter with no tokens, of the best kind that this system has."""
    if hasattr(os, "eventfd"):
        with contextlib.suppress(OSError):
            return EventTokenCounter(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE))
    giving, taking = socket.socketpair()
    giving.setblocking(True)
    taking.setblocking(False)
    return TokenCounter(giving, taking)
