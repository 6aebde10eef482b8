"""Troubles of the calling process: set up in the cell's own interpreter before the pool starts, or around submits."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "CannotSetUpError",
    "few_descriptors",
    "full_temporary_directory",
    "needs_numpy",
    "no_descriptors",
    "no_temporary_directory",
    "nothing",
]

# Of sched.h and sys/mount.h.
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18


class CannotSetUpError(Exception):
    """The trouble can't be made on this machine, or by this user."""


def nothing(directory: Path) -> None:
    """No trouble."""


def needs_numpy(directory: Path) -> None:
    """No trouble, but without NumPy the row says nothing."""
    if importlib.util.find_spec("numpy") is None:
        raise CannotSetUpError("NumPy is not installed")


def no_temporary_directory(directory: Path) -> None:
    """The temporary directory, which everybody has looked up already, goes away."""
    place = directory / "tmp"
    place.mkdir()
    _set_temporary_directory(place)
    place.rmdir()


def full_temporary_directory(directory: Path) -> None:
    """The temporary directory is on a file system that is full.

    It is mounted where only this process and those that it starts see it, and goes with them.
    """
    place = directory / "tmp"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    for name, args in (
        ("unshare", (_CLONE_NEWNS,)),
        ("mount", (b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)),
        ("mount", (b"none", os.fsencode(place), b"tmpfs", 0, b"size=64k")),
    ):
        function = getattr(libc, name, None)
        if function is None or function(*args) != 0:
            raise CannotSetUpError("mounting a file system is not permitted")
    _set_temporary_directory(place)
    with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 1024):
            pass


def _set_temporary_directory(place: Path) -> None:
    os.environ["TMPDIR"] = str(place)
    tempfile.tempdir = None
    assert tempfile.gettempdir() == str(place)


def few_descriptors(directory: Path) -> None:
    """This process, and those that it starts, may open few files."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    few = 1024 if hard == resource.RLIM_INFINITY else min(1024, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (few // 2, few))


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process has no free descriptors meanwhile."""
    held: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for fd in held:
            os.close(fd)
