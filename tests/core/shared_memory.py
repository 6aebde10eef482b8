"""Shared memory as its tests see it: what of it there is, and a receiver in the same process."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jobrunner.received import open_received
from jobrunner.segments import Arena, Part, Segment
from jobrunner.sharing import _in_shared_memory as in_shared_memory


def held() -> list[str]:
    """The names of the shared memory that this process has descriptors of."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    ours = ("/memfd:jobrunner-data", "/memfd:jobrunner-share", "/dev/shm/jobrunner-")
    return [name for name in names if name.startswith(ours)]


def shm_names() -> list[str]:
    """Our names in the system's shared memory that stay; another process's may be there for a moment."""
    first, second = ({name for name in os.listdir("/dev/shm") if name.startswith("jobrunner-")} for _ in range(2))
    return sorted(first & second)


def packed(arena: Arena, *parts: Part) -> Segment:
    segment = arena.pack(parts)
    assert segment is not None
    return segment


@contextlib.contextmanager
def shared(content: bytes) -> Iterator[Segment]:
    """What `share` makes, which goes to many receivers."""
    memory = in_shared_memory([content])
    assert memory is not None
    yield Segment(1, len(content), memory)
    memory.close()


def opened(
    segment: Segment, gone: list[bool] | None = None, *, writable: bool = False, length: int | None = None
) -> memoryview:
    """What a receiver in this process gets."""
    on_gone = (gone if gone is not None else []).append
    return open_received(
        os.dup(segment.fd), segment.length if length is None else length, writable=writable, on_gone=on_gone
    )


def identity(segment: Segment) -> int:
    """Of the memory, however often it is used."""
    return os.fstat(segment.fd).st_ino


def raw(one: np.ndarray[Any, Any]) -> memoryview:
    buffer: Any = one  # numpy's types don't say before Python 3.12 that it is one
    return pickle.PickleBuffer(buffer).raw()


def failing(error: BaseException) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise error

    return fail
