"""A worker's standard streams and descriptors, and putting them back after a job that closed or replaced them."""

from __future__ import annotations

import array
import io
import os
import sys
from collections.abc import Callable
from typing import Any

from jobrunner.handover import ProgressPage
from jobrunner.messages import UNKNOWN_END
from jobrunner.processes import give_way

try:
    from fcntl import F_DUPFD_CLOEXEC, F_GETFL, fcntl, ioctl
    from termios import FIONREAD
except ImportError:  # Windows
    ioctl = None  # type: ignore[assignment]

__all__ = ["StandardStreams"]

_NAMES = ("stdin", "stdout", "stderr")
# Copies of descriptors are kept above this, out of the way of jobs that close small numbers.
_COPIES_FROM = 100
_COUNT = array.array("i", [0])
# How often it is tried to find the caller not reading, before it is looked whether it is there.
_TRIES = 200


class StandardStreams:
    """Remembers descriptors 0 to 2 and the streams of `sys`, and puts them back."""

    def __init__(self) -> None:
        self._copies: list[int] = []

    def take(self) -> None:
        """Remember the streams and descriptors of now."""
        for copy in self._copies:
            os.close(copy)
        self._copies = [_copy(number) for number in range(3)]
        self._flags = [_flags(number) for number in range(3)]
        self._files = [_identity(number) for number in range(3)]
        self._streams = [getattr(sys, name) for name in _NAMES]
        self._manners = [_manner(stream) for stream in self._streams]

    def printed(self, words: memoryview, gone: Callable[[], object], *, replaced: bool) -> tuple[int, int]:
        """How many bytes have gone into the pipes that stdout and stderr are, whether the caller has read them or not.

        Args:
            words: the words of the progress page.
            gone: called while the caller is in the midst of reading for long; waits a little, and tells whether it has
                gone.
            replaced: whether something else may be in the place of descriptors 1 and 2 by now.

        Returns:
            Of stdout and stderr; `UNKNOWN_END` where the caller has gone, or this system doesn't tell.

        Raises:
            OSError: their descriptors are closed; if `replaced`, the copies of these.
        """
        if ioctl is None:
            return UNKNOWN_END, UNKNOWN_END
        out, err = self._copies[1:] if replaced else (1, 2)
        return _printed(out, words, ProgressPage.OUT_READ, gone), _printed(err, words, ProgressPage.ERR_READ, gone)

    def restore_streams(self) -> None:
        """Put back those that were replaced; whether they are usable is another matter."""
        stdin, stdout, stderr = self._streams
        if sys.stdin is not stdin or sys.stdout is not stdout or sys.stderr is not stderr:
            sys.stdin, sys.stdout, sys.stderr = self._streams

    def restore_descriptors(self) -> None:
        """Put the descriptors back, and streams in the place of those that were closed.

        Raises:
            OSError: the copies of the descriptors were closed too.
        """
        for number in (1, 2, 0):
            if _identity(number) != self._files[number]:
                os.dup2(self._copies[number], number)
                if _identity(number) != self._files[number]:
                    raise OSError(f"descriptor {number} can't be put back")
            if _flags(number) != self._flags[number]:
                os.set_blocking(number, True)
        for number, name in enumerate(_NAMES):
            if _is_closed(self._streams[number]):
                stream = self._streams[number] = _stream(number, name, self._manners[number])
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)


def _printed(number: int, words: memoryview, word: int, gone: Callable[[], object]) -> int:
    tries = _TRIES
    while True:
        before: int = words[word]
        if not before & 1:
            ioctl(number, FIONREAD, _COUNT)
            if words[word] == before:
                return before // 2 + _COUNT[0]
        if tries:
            tries -= 1
            give_way()
        elif gone():
            return UNKNOWN_END


def _copy(number: int) -> int:
    return os.dup(number) if ioctl is None else fcntl(number, F_DUPFD_CLOEXEC, _COPIES_FROM)


def _flags(number: int) -> int:
    """Whether writes wait, and so on; 0 where that is not told."""
    return 0 if ioctl is None else fcntl(number, F_GETFL)


def _identity(number: int) -> tuple[int, int]:
    """What tells the file behind a descriptor from others; (0, 0) where it is closed."""
    try:
        found = os.fstat(number)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _is_closed(stream: Any) -> bool:
    try:
        return bool(stream.closed)
    except (AttributeError, ValueError):  # it was detached
        return True


def _manner(stream: Any) -> dict[str, Any]:
    """How a text stream writes."""
    return {
        name: getattr(stream, name)
        for name in ("encoding", "errors", "line_buffering", "write_through")
        if hasattr(stream, name)
    }


def _stream(number: int, name: str, manner: dict[str, Any]) -> io.TextIOWrapper:
    """A new stream over a standard descriptor, as the interpreter makes it."""
    raw = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
    raw.name = f"<{name}>"
    buffer: Any = io.BufferedReader(raw) if number == 0 else io.BufferedWriter(raw)
    stream: Any = io.TextIOWrapper(buffer, **manner)
    stream.mode = raw.mode[0]
    return stream  # type: ignore[no-any-return]
