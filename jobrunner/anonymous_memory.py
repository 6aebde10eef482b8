"""Memory without a name that can be passed to another process as a descriptor.

A memfd on Linux, sealed against being shortened; elsewhere POSIX shared memory whose name is removed at once.  So
whoever is killed leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import mmap
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

if sys.platform != "win32":
    import fcntl

__all__ = ["SHARED_NAME", "AnonymousMemory"]

#: As what the memory of objects that many receivers have appears among a process's maps.
SHARED_NAME = "jobrunner-share"

#: A single write is no longer than this: macOS refuses 2 GiB, Linux writes a little less.
_MOST_AT_ONCE = 1 << 30
#: From this size on a copy is worth letting other threads run.
_LARGE = 1 << 20
#: What a system says whose shared memory can be mapped but not written to (macOS).
_NOT_WRITABLE = (errno.ESPIPE, errno.ENXIO, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODEV)
#: What a thread should copy at least, to be worth its start; and how many threads copy at a time, at most.
_PIECE_BYTES = 8 << 20
_MOST_COPIERS = 4
_MADV_POPULATE_READ = 22  # from <linux/mman.h>, since Linux 5.14


class AnonymousMemory:
    """A piece of anonymous shared memory of this process.  Raises OSError where there is none to be had.

    Attributes:
        fd: its descriptor.
        capacity: its size in bytes, whole pages.
        again: whether it may be filled a second time.
    """

    __slots__ = ("_filled", "_sealed", "_window", "again", "capacity", "fd")

    def __init__(self, length: int, *, again: bool) -> None:
        self.again = again
        self.capacity = max(-(-length // mmap.PAGESIZE), 1) * mmap.PAGESIZE
        self._window: _Window | None = None
        self._filled = False
        self.fd = _open_memfd("jobrunner-data" if again else SHARED_NAME)
        self._sealed = self.fd >= 0
        if not self._sealed:
            self.fd = _open_unnamed()
        try:
            os.ftruncate(self.fd, self.capacity)
            if self._sealed:
                # Who shortened it would kill its readers, and its writer, with SIGBUS.
                self._seal(fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | (fcntl.F_SEAL_SEAL if again else 0))
        except BaseException:
            os.close(self.fd)
            raise

    def _seal(self, seals: int) -> None:
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)

    def fill(self, parts: Sequence[memoryview], offsets: Sequence[int]) -> None:
        """Put each part at its offset."""
        if self._filled and self._sealed and self._window is None and sys.maxsize > 1 << 32:
            # Not for the first time: a write makes pages without clearing them first, and is twice as fast.
            with contextlib.suppress(OSError, ImportError):  # an old kernel, no ctypes
                self._window = _Window(self.fd, self.capacity)
        for part, offset in zip(parts, offsets, strict=True):
            if self._window is not None:
                self._window.write(part, offset)
            else:
                self._write(part, offset)
        self._filled = True
        if self._sealed and not self.again:
            self._seal(fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)

    def _write(self, part: memoryview, offset: int) -> None:
        _by_several(lambda start, end: self._write_part(part[start:end], offset + start), part.nbytes)

    def _write_part(self, part: memoryview, offset: int) -> None:
        # A write without memory is an error, where a copy into a map would be SIGBUS.
        while part.nbytes:
            try:
                written = os.pwrite(self.fd, part[:_MOST_AT_ONCE], offset)
            except OSError as error:
                if self._sealed or error.errno not in _NOT_WRITABLE:
                    raise
                with mmap.mmap(self.fd, self.capacity) as shared:
                    shared[offset : offset + part.nbytes] = part
                return
            if not written:
                raise OSError(errno.ENOSPC, "nothing was written")
            part = part[written:]
            offset += written

    def close(self) -> None:
        """Release this process's hold on it."""
        if self._window is not None:
            self._window.close()
        os.close(self.fd)


class _Window:
    """A map of memory all of whose pages exist, through which it is filled again at the speed of memcpy.

    Not an `mmap.mmap`, which keeps a descriptor of its own before Python 3.13.  What can't be had for want of memory is
    an error here; later nothing can fail, for the pages are there and the memory is sealed against truncation.  (A page
    that was swapped out comes back or the kernel ends a process; only a broken swap device would raise SIGBUS.)
    """

    __slots__ = ("_address", "_length", "_view")

    def __init__(self, fd: int, length: int) -> None:
        import ctypes  # loaded where large data are sent again, not by every worker

        self._length = length
        self._address = _libc().mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
        if self._address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "the memory can't be mapped")
        # Reading makes a shared page present and writable too, and doesn't make it dirty: three times as fast.
        if _libc().madvise(self._address, length, _MADV_POPULATE_READ):
            code = ctypes.get_errno()
            self.close()
            raise OSError(code, "the memory's pages can't be mapped")
        self._view = memoryview((ctypes.c_char * length).from_address(self._address)).cast("B")

    def write(self, part: memoryview, offset: int) -> None:
        """Copy `part` to `offset`."""
        if part.nbytes < _LARGE or part.readonly:  # ctypes takes no read-only memory
            self._view[offset : offset + part.nbytes] = part
        else:
            import ctypes

            source = ctypes.addressof(ctypes.c_char.from_buffer(part))
            target = self._address + offset
            # Lets other threads run meanwhile.
            _by_several(lambda start, end: _copy(target + start, source + start, end - start), part.nbytes)

    def close(self) -> None:
        """Unmap it."""
        _libc().munmap(self._address, self._length)


def _copy(target: int, source: int, length: int) -> None:
    import ctypes

    ctypes.memmove(target, source, length)


def _by_several(copy: Callable[[int, int], None], length: int) -> None:
    """Have `copy` copy from 0 to `length`, in pieces on several threads where that is worth it.

    One core alone doesn't use the memory's bandwidth; and making pages takes as long as filling them.
    """
    count = min(_copiers(), length // _PIECE_BYTES)
    if count < 2:
        copy(0, length)
        return
    size = -(-length // count // mmap.PAGESIZE) * mmap.PAGESIZE
    pieces = [(start, min(start + size, length)) for start in range(0, length, size)]
    failed: list[BaseException] = []

    def run(start: int, end: int) -> None:
        try:
            copy(start, end)
        except BaseException as error:
            failed.append(error)

    threads = []
    for piece in pieces[1:]:
        thread = threading.Thread(target=run, args=piece, name="jobrunner-copy", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # none to be had, or the interpreter is exiting
            run(*piece)
        else:
            threads.append(thread)
    try:
        run(*pieces[0])
    finally:
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]


@functools.cache
def _copiers() -> int:
    """How many threads copy at a time."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, _MOST_COPIERS)


@functools.cache
def _libc() -> Any:
    """The C library's calls for maps."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_long)
    libc.mmap.restype = pointer
    libc.madvise.argtypes = (pointer, size, number)
    libc.munmap.argtypes = (pointer, size)
    return libc


def _open_memfd(name: str) -> int:
    """A new memfd that can be sealed; -1 where there is none."""
    if hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS"):
        with contextlib.suppress(OSError):  # a kernel or sandbox without it
            return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    return -1


def _open_unnamed() -> int:
    """POSIX shared memory that nobody else can find, without a name when this returns."""
    try:
        import _posixshmem  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise OSError(errno.ENOSYS, "this Python has no shared memory") from None
    name = f"/jobrunner-{os.urandom(8).hex()}"  # macOS takes 31 characters
    fd: int = _posixshmem.shm_open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=0o600)
    try:
        _posixshmem.shm_unlink(name)
    except BaseException:
        os.close(fd)
        raise
    return fd
