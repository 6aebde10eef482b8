"""Large arrays among the tasks of a call: sent to each worker once, and never stale.

A task gets an array as it is when the task is dispatched.  The first one shares it, which copies it; for those that
follow, the copy serves as long as the array still holds the same bytes, which is looked up each time: that takes about
half as long as to copy it again.  Copies are held by the tasks that wait for them; beyond that a few are kept, of
arrays that are there still.

Arrays in memory-mapped files are not copied: see `jobrunner.joblib.mapped`.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import threading
import weakref
from typing import Any

from jobrunner.joblib.mapped import Loose, Mapped, ReadOnly, mapped_under
from jobrunner.sharing import Shared, share

__all__ = ["SharedArrays"]

#: So many copies are kept that no task waits for.
_KEPT = 8
#: Bytes that are compared at a time: few enough for a processor's own cache.
_BLOCK = 1 << 16


@dataclasses.dataclass(slots=True)
class _Entry:
    """An array that was shared.

    array: the caller's.
    handle: of its copy, which goes with the last task that waits for it if it isn't kept.
    checked_in: the call of Parallel in which they were last seen to be the same.
    """

    array: weakref.ref[Any]
    handle: weakref.ref[Shared[Any]]
    checked_in: int


class SharedArrays:
    """Shares the arrays of one Parallel.

    Args:
        above: those of more bytes than this are; None: none is.
        by_name: whether tasks find a file of this machine under its name.
    """

    def __init__(self, above: int | None = None, by_name: bool = True) -> None:
        self._above = above
        self._by_name = by_name
        self._call = 0
        self._lock = threading.Lock()
        # Guarded by the lock: what was shared, by the array's id; and the copies used last.
        self._entries: dict[int, _Entry] = {}
        self._kept: collections.OrderedDict[int, Shared[Any]] = collections.OrderedDict()
        # Ids of arrays that are gone.  Appended to by the garbage collector, in the midst of anything: no lock.
        self._gone: collections.deque[int] = collections.deque()

    def begin_call(self) -> None:
        """Another call begins: even an array that says it is read-only may have changed since the last."""
        with self._lock:
            self._forget_gone()
            self._call += 1

    def clear(self) -> None:
        """Keep nothing any more."""
        with self._lock:
            self._entries.clear()
            self._kept.clear()

    def substitute(self, value: Any) -> Shared[Any] | Mapped | Loose | None:
        """What travels in the place of `value` if that is a large array, or one in a mapped file; see `dump_call`."""
        if type(value).__name__ not in ("ndarray", "memmap") or not getattr(value, "nbytes", 0):
            return None
        if value.dtype.hasobject:
            return None
        under = mapped_under(value)
        if under is not None and self._by_name:
            mapped = Mapped.of(value, under)
            if mapped is not None:
                return mapped
        if self._above is None or value.nbytes <= self._above:
            return None if under is None else Loose(value)
        with self._lock:
            self._forget_gone()
            handle = self._known(value) or self._share(value)
            self._kept[id(value)] = handle
            self._kept.move_to_end(id(value))
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return handle

    def _forget_gone(self) -> None:
        while self._gone:
            key = self._gone.popleft()
            entry = self._entries.get(key)
            # Another may have come to lie at the same place.
            if entry is not None and entry.array() is None:
                del self._entries[key]
                self._kept.pop(key, None)

    def _known(self, array: Any) -> Shared[Any] | None:
        entry = self._entries.get(id(array))
        if entry is None or entry.array() is not array:
            return None
        handle = entry.handle()
        if handle is None:
            return None
        if entry.checked_in == self._call and _is_read_only(array):
            return handle
        if not _are_the_same(array, handle.open()):
            return None
        entry.checked_in = self._call
        return handle

    def _share(self, array: Any) -> Shared[Any]:
        # What lies scattered would arrive as a copy of the worker's, which could be written to; so would a memmap, of
        # which NumPy makes a pickle like that of any subclass.
        plain = array.view(type(array).__base__) if type(array).__name__ == "memmap" else array
        handle: Shared[Any] = share(ReadOnly(plain if plain.flags.forc else plain.copy(order="C")))
        self._note(array, handle)
        return handle

    def _note(self, array: Any, handle: Shared[Any]) -> None:
        gone = functools.partial(_append, self._gone, id(array))
        self._entries[id(array)] = _Entry(weakref.ref(array, gone), weakref.ref(handle), self._call)

    def copy_of(self, handle: Shared[Any]) -> Any:
        """What was shared, to be shared again under the same handle."""
        array = handle.open()
        with self._lock:
            self._note(array, handle)
        return array


def _append(gone: collections.deque[int], key: int, _: object) -> None:
    gone.append(key)


def _is_read_only(array: Any) -> bool:
    """Whether neither the array nor what it is a view of can be written to."""
    while hasattr(array, "flags"):
        if array.flags.writeable:
            return False
        array = array.base
    return array is None or isinstance(array, bytes)


def _are_the_same(array: Any, copy: Any) -> bool:
    """Whether an array holds the very bytes of its copy, which has its order if it lies in one piece."""
    if array.shape != copy.shape or array.dtype != copy.dtype:
        return False
    if array.flags.f_contiguous:
        array, copy = array.T, copy.T
    if array.flags.c_contiguous:
        array, copy = array.reshape(-1), copy.reshape(-1)
    step = max(1, _BLOCK * len(array) // array.nbytes)
    return all(
        array[start : start + step].tobytes() == copy[start : start + step].tobytes()
        for start in range(0, len(array), step)
    )
