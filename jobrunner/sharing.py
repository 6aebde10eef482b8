"""`share`: an object that many jobs have among their arguments, and each worker gets once.

The object is serialised when it is shared.  In each worker it is unpickled when the first job asks for it, and stays
there for those that follow, until nobody in the caller's process holds the handle any more.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

from jobrunner.anonymous_memory import AnonymousMemory
from jobrunner.errors import SerializationError
from jobrunner.parcel import APART_BYTES, Parcel, pack_parts, pack_table, split, unpack_parts, unpack_table
from jobrunner.received import open_received
from jobrunner.segments import CAN_PASS, layout
from jobrunner.serialization import collect_shared, dump_shared, resolve_shared

__all__ = ["Shared", "share"]

T = TypeVar("T")

_numbers = itertools.count(1)


class Shared(Generic[T]):
    """A handle of an object that was shared; see `share`.

    Attributes:
        number: its number in this process.
        nbytes: the size of the serialised object.
    """

    def __init__(self, parcel: Parcel, number: int | None = None) -> None:
        self.number = next(_numbers) if number is None else number
        self.nbytes = parcel.nbytes
        # Told, with the number, when the handle goes; in the midst of anything: must take no lock.
        self._watchers: list[weakref.WeakMethod[Callable[[int], None]]] = []
        parts = [parcel.payload, *parcel.buffers]
        # What is small travels as it is: a descriptor would cost more.
        self._memory = _in_shared_memory(parts) if parcel.nbytes >= APART_BYTES else None
        # Of the frame that brings it to a worker.
        self.body = pack_parts(parts) if self._memory is None else pack_table(parts)
        self._finalizer = self._watch()
        self._value: list[T] = []

    @property
    def descriptor(self) -> int | None:
        """Of the memory in which it lies; None where it lies in `body`."""
        return None if self._memory is None else self._memory.fd

    def on_gone(self, told: Callable[[int], None]) -> None:
        """Have `told`, a method, be called with the number when the handle goes, if its object is there still.

        It must take no lock.
        """
        watcher = weakref.WeakMethod(told)
        if watcher not in self._watchers:
            self._watchers = [one for one in self._watchers if one() is not None]
            self._watchers.append(watcher)
            self._finalizer.detach()
            self._finalizer = self._watch()

    def _watch(self) -> weakref.finalize[Any, Any]:
        finalizer = weakref.finalize(self, _gone, self.number, self._memory, self._watchers)
        finalizer.atexit = False
        return finalizer

    @property
    def inline(self) -> bytes:
        """The body of a frame in which all of it travels, where a descriptor can't."""
        return self.body if self._memory is None else pack_parts([*self.parts()])

    def open(self) -> T:
        """The object, for a job that runs in this process; unpickled once."""
        if not self._value:
            self._value.append(cast(T, self._parcel().loads()))
        return self._value[0]

    def parts(self) -> list[memoryview]:
        """The serialised object: its pickle, and the buffers that this asks for."""
        if self._memory is None:
            return unpack_parts(self.body)
        lengths, _ = unpack_table(self.body)
        fd, size = os.dup(self._memory.fd), self._memory.capacity
        return split(open_received(fd, size, writable=False, on_gone=lambda _: None), lengths)

    def _parcel(self) -> Parcel:
        parts = self.parts()
        return Parcel(parts[0], [part.toreadonly() for part in parts[1:]])

    def __reduce__(self) -> tuple[Callable[[int], Any], tuple[int]]:
        if not collect_shared(self.number, self):
            raise TypeError("a shared object's handle is of use only among the arguments of a job of this process")
        return resolve_shared, (self.number,)

    def __repr__(self) -> str:
        return f"<Shared {self.number}: {self.nbytes} bytes>"


def _gone(
    number: int, memory: AnonymousMemory | None, watchers: Sequence[weakref.WeakMethod[Callable[[int], None]]]
) -> None:
    if memory is not None:
        with contextlib.suppress(OSError):
            memory.close()
    for watcher in watchers:
        told = watcher()
        if told is not None:
            told(number)


def _in_shared_memory(parts: Sequence[bytes | memoryview]) -> AnonymousMemory | None:
    """The parts in memory that can be passed on; None where there is none to be had."""
    if not CAN_PASS:
        return None
    views = [memoryview(part).cast("B") for part in parts]
    offsets, length = layout([view.nbytes for view in views])
    try:
        memory = AnonymousMemory(length, again=False)
    except (OSError, MemoryError):
        return None
    try:
        memory.fill(views, offsets)
    except (OSError, MemoryError):
        memory.close()
        return None
    return memory


def share(obj: T) -> Shared[T]:
    """A handle that, anywhere among a job's arguments, arrives as `obj` itself, sent to each worker at most once.

    Args:
        obj: what the jobs need.  It is serialised now: later changes change nothing.  All jobs of a worker get the
            same object, and must not change it; NumPy arrays of 128 KiB and more in it can't be written to there.

    Returns:
        The handle.  When nobody holds it any more, nor a job that was submitted with it, the object is let go of in
        the workers too.

    Raises:
        SerializationError: `obj` can't be pickled; the handle of another shared object within it can't either.

    Example:
        >>> from jobrunner import InlineExecutor, share
        >>> table = share({"answer": 42})
        >>> InlineExecutor().submit(dict.get, table, "answer").result()
        42
    """
    payload, buffers = dump_shared(obj)
    return Shared(Parcel(payload, buffers))


def find_among(shared: Sequence[Shared[Any]]) -> Callable[[int], Any] | None:
    """Finds those shared objects, in the process that shared them, by number."""
    if not shared:
        return None
    known = {one.number: one for one in shared}

    def find(number: int) -> Any:
        try:
            return known[number].open()
        except KeyError:
            raise SerializationError("the shared object is not here") from None

    return find
