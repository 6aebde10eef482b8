"""Large data that crosses between processes without a copy through a pipe: the receiver's side of `segments`.

A received segment is mapped privately: what the receiver writes nobody else sees.  But of a page that it has not
touched yet, a private map shows what the sender writes later.  So the sender is told when the last reference is gone,
and whether nothing can have kept the map all the same.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import mmap
import os
import socket
import struct
import sys
import weakref
from collections.abc import Callable
from typing import Any

if sys.platform != "win32":
    import fcntl

__all__ = ["SegmentError", "open_received", "receive_descriptor"]

_MESSAGE = struct.Struct("Q")
_DESCRIPTOR = struct.Struct("i")
#: More than one is a peer's error; room for some, so that they arrive and can be closed.
_MOST_DESCRIPTORS = 16
_CLOEXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class SegmentError(OSError):
    """A segment was not received, or is not what it should be.

    Args:
        message: what happened.
        number: of the segment, where it is known: its sender should be told.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number


def receive_descriptor(sock: socket.socket) -> tuple[int, int]:
    """One message of `send_descriptor`: a descriptor, which is now the caller's to close, and its segment's number.

    The descriptor is not inheritable.  Messages arrive in order, each by itself.

    Args:
        sock: the other end of the Unix socket, blocking or not.

    Raises:
        BlockingIOError: the socket doesn't block, and there is no message.
        EOFError: the sender is gone.
        SegmentError: a message without a descriptor, which with a `number` means that this process has run out of
            descriptors; or no message of ours.
    """
    # Not `socket.recv_fds`: it ignores flags in Python 3.11.
    space = socket.CMSG_SPACE(_MOST_DESCRIPTORS * _DESCRIPTOR.size)
    data, ancillary, flags, _ = sock.recvmsg(_MESSAGE.size, space, _CLOEXEC)
    fds = []
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = len(content) // _DESCRIPTOR.size * _DESCRIPTOR.size
            fds += [fd for (fd,) in _DESCRIPTOR.iter_unpack(content[:whole])]
    right = len(data) == _MESSAGE.size and bool(fds)
    for fd in fds[1:] if right else fds:
        os.close(fd)
    if right:
        if not _CLOEXEC:
            os.set_inheritable(fds[0], False)
        return fds[0], _MESSAGE.unpack(data)[0]
    if not data and not fds:
        raise EOFError("the socket for descriptors was closed")
    if len(data) != _MESSAGE.size:
        raise SegmentError(f"a message of {len(data)} bytes where one of {_MESSAGE.size} was expected")
    reason = "too many open descriptors" if flags & socket.MSG_CTRUNC else "none was sent"
    raise SegmentError(f"a segment without its descriptor: {reason}", _MESSAGE.unpack(data)[0])


class _Events:
    """What goes on in this process that a map may outlive."""

    def __init__(self) -> None:
        self.forks_begun = 0
        self.forks_over = 0
        self.collecting = False

    def fork_begins(self) -> None:
        self.forks_begun += 1

    def fork_over(self) -> None:
        self.forks_over += 1

    def fork_over_in_child(self) -> None:
        # Forks that other threads had begun don't go on here; and the maps are the parent's to report.
        self.forks_over = self.forks_begun
        _live.clear()

    def collection(self, phase: str, _info: dict[str, Any]) -> None:
        self.collecting = phase == "start"


class _Live(weakref.ref[mmap.mmap]):
    """Watches a map, and tells when it is gone."""

    __slots__ = ("forks", "key", "on_gone")

    forks: int
    key: int
    on_gone: Callable[[bool], None]


#: The maps there are; a watch must outlive what it watches.
_live: dict[int, _Live] = {}
_keys = itertools.count()
_events = _Events()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_events.fork_begins,
        after_in_parent=_events.fork_over,
        after_in_child=_events.fork_over_in_child,
    )


def _gone(live: _Live) -> None:
    if _live.pop(live.key, None) is not None:
        # A child that was forked meanwhile has the map still.  And a collection of garbage calls this before it calls
        # the finalizers of what it has found, one of which may read the map, or even keep it.
        forked = not (live.forks == _events.forks_begun == _events.forks_over)
        live.on_gone(not forked and not _events.collecting)


def open_received(fd: int, length: int, *, writable: bool, on_gone: Callable[[bool], None]) -> memoryview:
    """The data of a received segment, as memory of this process.

    Args:
        fd: the descriptor, which is closed here in any case.
        length: bytes in use.
        writable: whether the memory may be written to, which nobody else sees.
        on_gone: called once with ``reusable``, when the last reference to the memory is gone: to what is returned here,
            to its slices, and to whatever was made over them.  It is called in any thread, in the midst of anything,
            and perhaps not at all when the interpreter exits; so it must take no lock: let it append to a deque.  Not
            called in a fork, nor when this raises.  ``reusable`` is False where something may still see the memory: a
            process forked meanwhile (by C code that runs no hooks of Python's: not noticed), or a finalizer.

    Returns:
        a view of format ``B`` and of that length.

    Raises:
        SegmentError: the descriptor is not shared memory of that length and sealed against being shortened (which would
            kill the reader), or memory or descriptors have run out.
    """
    try:
        _check(fd, length)
        if length == 0:
            on_gone(True)
            return memoryview(bytearray() if writable else b"")
        memory = _map(fd, length, writable)
    except SegmentError:
        raise
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        raise SegmentError(f"a segment of {length} bytes can't be mapped: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)
    if _events.collection not in gc.callbacks:
        gc.callbacks.append(_events.collection)
    live = _Live(memory, _gone)
    live.on_gone = on_gone
    live.forks = _events.forks_begun
    live.key = next(_keys)
    _live[live.key] = live
    return memoryview(memory)


def _check(fd: int, length: int) -> None:
    status = os.fstat(fd)
    if not 0 <= length <= status.st_size:
        raise SegmentError(f"a segment of {status.st_size} bytes where {length} were to be read")
    if not hasattr(fcntl, "F_GET_SEALS"):
        return
    needed = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & needed == needed:
        return
    # Memory that had a name can't be sealed.
    if status.st_nlink == 0 and status.st_dev == os.stat("/dev/shm").st_dev:  # noqa: S108 - the system's own
        return
    raise SegmentError("the memory of a segment is not sealed")


def _map(fd: int, length: int, writable: bool) -> mmap.mmap:
    try:
        return _map_as(fd, length, mmap.MAP_PRIVATE, mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    # macOS maps POSIX shared memory only for all to see.
    shared = _map_as(fd, length, mmap.MAP_SHARED, mmap.PROT_READ)
    if not writable:
        return shared
    with shared:
        copy = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
        copy[:] = shared
        return copy


def _map_as(fd: int, length: int, flags: int, prot: int) -> mmap.mmap:
    if sys.version_info >= (3, 13):
        # Without a descriptor of its own.
        return mmap.mmap(fd, length, flags=flags, prot=prot, trackfd=False)
    return mmap.mmap(fd, length, flags=flags, prot=prot)
