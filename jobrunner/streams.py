"""Standard streams and descriptors, where they can't be taken for granted.

A caller may have closed a standard descriptor, or have None for a stream (a windowed program has); loky flushes the
caller's streams before it starts a process, and in the worker it wants a stderr.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

__all__ = ["occupy_standard_descriptors", "restore_missing_streams", "working_streams"]


@contextlib.contextmanager
def working_streams() -> Iterator[None]:
    """Have `sys.stdout` and `sys.stderr` be such that they can be flushed; those that can be are left alone."""
    replaced: dict[str, tuple[Any, TextIO]] = {}
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except Exception:
            stand_in: TextIO = open(os.devnull, "w")  # noqa: SIM115 (closed below)
            replaced[name] = getattr(sys, name), stand_in
            setattr(sys, name, stand_in)
    try:
        yield
    finally:
        for name, (stream, stand_in) in replaced.items():
            if getattr(sys, name) is stand_in:
                setattr(sys, name, stream)
            stand_in.close()


def occupy_standard_descriptors() -> None:
    """Open the null device as standard input, output or error where that is closed.

    Else the next descriptor opened, perhaps a channel's, would be taken for it by every process started from here.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            fd = os.open(os.devnull, os.O_RDWR)
            if fd == number:
                os.set_inheritable(fd, True)
            else:
                os.dup2(fd, number)
                os.close(fd)


def restore_missing_streams() -> None:
    """Give this process's descriptors 1 and 2 a stream where it started without one."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            stream = open(number, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115 (it stays)
            setattr(sys, name, stream)
