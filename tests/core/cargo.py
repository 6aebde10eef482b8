"""Large data of every kind that travels between processes, and what can be said of them to compare.

This module is imported by workers.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import functools
import gc
import hashlib
import os
import pickle
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jobrunner import LocalExecutor, anonymous_memory
from jobrunner.segments import Arena
from tests.core.gates import append_line, lines, meet, use_cpu
from tests.core.shared_memory import held, shm_names
from tests.core.soaking import resident_bytes

#: Numbers of 8 bytes in an array that is large: more than `jobrunner.parcel.APART_BYTES`.
COUNT = 20_000

Array = np.ndarray[Any, Any]


def numbers(seed: int = 0, count: int = COUNT) -> Array:
    """A large array that is no other seed's."""
    return np.arange(count, dtype=np.float64) + 1e6 * seed


class Tagged(np.ndarray[Any, Any]):
    """A subclass of an array with a field of its own, and its own `__reduce__`."""

    tag: str

    def __reduce__(self) -> Any:
        return _tagged, (np.asarray(self), self.tag)


def _tagged(data: Array, tag: str) -> Tagged:
    made = data.view(Tagged)
    made.tag = tag
    return made


class Blob:
    """Bytes that it hands to the pickler as a buffer, whatever holds them."""

    def __init__(self, data: Any) -> None:
        self.data = memoryview(data)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Blob, (pickle.PickleBuffer(self.data),)

    def content(self) -> tuple[bytes, bool]:
        return self.data.tobytes(), self.data.readonly


class ZeroCopyBytes(bytearray):
    """The example in the documentation of `pickle`, "Out-of-band Buffers"."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self)._reconstruct, (pickle.PickleBuffer(self),), None

    @classmethod
    def _reconstruct(cls, obj: Any) -> ZeroCopyBytes:
        with memoryview(obj) as view:
            obj = view.obj
            return obj if type(obj) is cls else cls(obj)


class Swapped:
    """An array that is rebuilt in place, in the buffer that arrives."""

    def __init__(self, data: Array) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _swapped, (self.data,)


def _swapped(data: Array) -> Swapped:
    data += 1
    return Swapped(data)


@dataclasses.dataclass
class Holder:
    """Something that holds an array."""

    name: str
    data: Any


def _read_only() -> Array:
    made = numbers()
    made.flags.writeable = False
    return made


def _mapped() -> Any:
    with tempfile.NamedTemporaryFile() as file:
        made = np.memmap(file.name, dtype=np.float64, mode="w+", shape=(COUNT,))
        made[:] = numbers()
        return made


def _objects() -> Array:
    made = np.empty(COUNT, dtype=object)
    made[:] = [f"item {number}" for number in range(COUNT)]
    return made


def _structured() -> Array:
    made = np.zeros(COUNT, dtype=[("name", "U8"), ("place", "<f8", (2,)), ("big", ">i4")])
    made["name"], made["big"] = "spam", np.arange(COUNT)
    return made


def _twice() -> list[Array]:
    one = numbers()
    return [one, one]


def _views() -> list[Array]:
    one = numbers(count=3 * COUNT)
    return [one[:-COUNT], one[COUNT:], one]


def _nested() -> dict[str, Any]:
    return {
        "deep": [{"deeper": (Holder("held", numbers(1)),)}],
        "partial": functools.partial(np.add, numbers(2)),
        "bytes": bytes(200_000),
        "small": np.arange(3),
    }


def _cycle() -> list[Any]:
    made: list[Any] = [numbers()]
    made.append(made)
    return made


#: What travels, by name; each call makes it anew.
SAMPLES: dict[str, Callable[[], Any]] = {
    "plain array": numbers,
    "read-only array": _read_only,
    "strided array": lambda: numbers(count=3 * COUNT)[::3],
    "reversed array": lambda: numbers()[::-1],
    "transposed array": lambda: numbers().reshape(100, 200).T,
    "Fortran array": lambda: np.asfortranarray(numbers().reshape(100, 200)),
    "permuted array": lambda: numbers().reshape(10, 20, 100).transpose(1, 0, 2),
    "broadcast array": lambda: np.broadcast_to(np.arange(200.0), (200, 200)),
    "part of rows": lambda: numbers().reshape(100, 200)[:, :150],
    "empty array": lambda: np.empty((0, COUNT)),
    "array without dimensions": lambda: np.array(1.5),
    "large scalar of bytes": lambda: np.array(b"x" * 300_000),
    "object array": _objects,
    "structured array": _structured,
    "record array": lambda: _structured().view(np.recarray),
    "big-endian array": lambda: numbers().astype(">f8"),
    "complex array": lambda: numbers() * 1j,
    "bool array": lambda: np.arange(200_000) % 3 == 0,
    "array of dates": lambda: np.arange(COUNT).astype("datetime64[s]"),
    "array of text": lambda: numbers().astype("U12"),
    "mapped file": _mapped,
    "matrix": lambda: numbers().reshape(100, 200).view(np.matrix),
    "masked array": lambda: np.ma.masked_less(numbers(), 7.0),
    "own subclass": lambda: _tagged(numbers(), "spam"),
    "bytes": lambda: os.fsencode("spam" * 50_000),
    "bytearray": lambda: bytearray(b"spam" * 50_000),
    "text": lambda: "späm" * 50_000,
    "array.array": lambda: array.array("d", range(COUNT)),
    "blob over bytes": lambda: Blob(b"spam" * 50_000),
    "blob over a bytearray": lambda: Blob(bytearray(b"spam" * 50_000)),
    "blob over an array": lambda: Blob(numbers()),
    "documented buffer": lambda: ZeroCopyBytes(b"spam" * 50_000),
    "rebuilt in place": lambda: Swapped(numbers()),
    "same array twice": _twice,
    "views of one array": _views,
    "nested": _nested,
    "cycle": _cycle,
    "many objects": lambda: [(number, str(number)) for number in range(COUNT)],
    "arrays of many sizes": lambda: [np.full(size, size % 251, np.uint8) for size in (0, 1, 131_071, 131_072, 131_073)],
}


def sample(name: str) -> Any:
    return SAMPLES[name]()


def plain_copy(value: Any) -> Any:
    """What arrives of it by plain pickling."""
    return pickle.loads(pickle.dumps(value, 5))


def facts(value: Any, seen: dict[int, int] | None = None) -> Any:
    """All that can be said of a value, to be compared: types, flags, contents, and which of its parts are the same."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return "as before", seen[id(value)]
    if not isinstance(value, (int, float, str, bytes)):
        seen[id(value)] = len(seen)
    kind = type(value).__qualname__
    if isinstance(value, np.ndarray):
        flags = value.flags
        mask = facts(value.mask, seen) if isinstance(value, np.ma.MaskedArray) else None
        return (
            kind,
            value.dtype.descr if value.dtype.fields else value.dtype.str,
            value.shape,
            (flags.writeable, flags.c_contiguous, flags.f_contiguous, flags.aligned),
            value.tolist() if value.dtype.hasobject else _digest(value.tobytes()),
            mask,
            getattr(value, "tag", None),
        )
    if isinstance(value, Blob):
        data, readonly = value.content()
        return kind, len(data), _digest(data), readonly
    if isinstance(value, (bytes, bytearray, str)):
        return kind, len(value), _digest(value.encode() if isinstance(value, str) else bytes(value))
    if isinstance(value, dict):
        return kind, [(key, facts(one, seen)) for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return kind, [facts(one, seen) for one in value]
    if isinstance(value, functools.partial):
        return kind, facts(value.args, seen), facts(value.keywords, seen)
    if isinstance(value, (Holder, Swapped)):
        return kind, facts(vars(value), seen)
    if isinstance(value, array.array):
        return kind, value.typecode, _digest(value.tobytes())
    return kind, repr(value)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- jobs ---


def facts_of(*args: Any, **kwargs: Any) -> Any:
    """The facts of what arrived."""
    return facts([*args, *kwargs.values()])


def facts_of_result(job: Any) -> Any:
    return facts(job.result())


def total(data: Any) -> float:
    return float(np.sum(data))


def overwrite(data: Array, value: float = -1.0) -> float:
    """Write to an argument; what it was in sum before."""
    before = total(data)
    data[...] = value
    return before


_kept: list[Any] = []


def keep(data: Array) -> float:
    """Keep the argument beyond the job."""
    _kept.append(data)
    return total(data)


def totals_kept() -> list[float]:
    """The sums of what was kept, and let go of it."""
    sums = [total(data) for data in _kept]
    _kept.clear()
    return sums


def keep_part(data: Array) -> None:
    _kept.append(data[7:9])


_noted: list[Any] = []


def note_facts(*args: Any) -> None:
    """For an initializer."""
    _noted[:] = [facts(value) for value in args]


def noted_facts() -> list[Any]:
    return _noted


class Lends:
    """Arrives as the bytes that it lends to the pickler."""

    def __init__(self, data: bytearray) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Blob, (pickle.PickleBuffer(self.data),)


def length_and(blob: Any, *_: Any) -> int:
    return len(blob.data)


def _fail() -> None:
    raise RuntimeError("this can't be loaded")


class FailsInWorker:
    """Can be pickled, and not be rebuilt."""

    def __reduce__(self) -> Any:
        return _fail, ()


def make_unloadable_array() -> list[Any]:
    return [numbers(), FailsInWorker()]


def divide_by_zero(data: Array) -> float:
    raise ZeroDivisionError(f"{len(data)} / 0")


def overwrite_and_die(data: Array, gate: str, starts: str, attempts: int) -> float:
    """Write to the argument, and end the process, but for the last attempt; what the argument was in sum."""
    before = overwrite(data)
    meet(gate)
    append_line(starts, before)
    if len(lines(Path(starts))) < attempts:
        os._exit(1)
    return before


def fork_and_sum_later(data: Array, gate: str) -> int:
    """Have a child look at the argument when the job no longer does; its exit code."""
    expected = total(data)
    pid = os.fork()
    if pid == 0:
        try:
            meet(gate)
            os._exit(0 if total(data) == expected else 1)
        finally:
            os._exit(2)
    del data
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def check_and_return(data: Array, value: float, die: bool) -> Array:
    """Look at the argument, and return an array of its size; or end the process in the midst."""
    if not (data == value).all():
        raise AssertionError(f"argument {value} is {data}")
    data += 0.25
    if die:
        os._exit(1)
    return data + 0.25


def break_shared_memory(kind: str) -> None:
    """For an initializer: see that this worker has none either."""
    if kind == "no memfd":
        del os.memfd_create
    elif kind == "no segments":
        Arena.pack = _none  # type: ignore[method-assign]
    else:
        os.memfd_create = _refuse  # type: ignore[assignment]
        if kind == "no shared memory":
            anonymous_memory._open_unnamed = _refuse


def _none(*_: Any, **__: Any) -> None:
    """No segment."""


def _refuse(*_: Any) -> int:
    raise OSError(28, "no space left")


def lower_descriptor_limit(limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


_descriptors: list[int] = []


def exhaust_descriptors(free: int) -> None:
    """Open files until there is room for so many only."""
    with contextlib.suppress(OSError):
        while True:
            _descriptors.append(os.open("/dev/null", os.O_RDONLY))
    for _ in range(free):
        os.close(_descriptors.pop())


def free_descriptors() -> None:
    while _descriptors:
        os.close(_descriptors.pop())


def with_pid(data: Array, *_: Any) -> tuple[Array, int]:
    return data, os.getpid()


def transfers_leave_nothing(times: int) -> None:
    """Arrays of many sizes in and out: descriptors, memory and names are as before; for a program of its own."""
    source = random.Random(0)
    sizes = [source.choice((17_000, 30_000, 100_000, 1_000_000)) for _ in range(times)]
    seen: list[Any] = []
    with LocalExecutor(2, spare_workers=0, idle_timeout=None) as executor:
        pids = {executor.submit(with_pid, numbers()).result()[1] for _ in range(10)}

        def use() -> None:
            for size in sizes:
                job = executor.submit(with_pid, np.ones(size))
                other = executor.submit(total, np.ones(size))
                result, pid = job.result()
                pids.add(pid)
                assert result.sum() == other.result() == size
                del result, job, other

        for _ in range(3):
            use()
            workers = sorted(pids)
            gc.collect()
            assert len(workers) <= 2, "a worker was replaced"
            seen.append(
                (
                    [_open_files(pid) for pid in ("self", *workers)],
                    [resident_bytes(pid) for pid in ("self", *workers)],
                )
            )
    before, after = seen[1], seen[2]
    for first, last in zip(before[0], after[0], strict=False):
        assert last <= first + 6, f"descriptors: {before[0]}, then {after[0]}"
    for first, last in zip(before[1], after[1], strict=False):
        assert last < first + (40 << 20), f"memory: {before[1]}, then {after[1]}"
    gc.collect()
    assert held() == []
    assert shm_names() == []


def _open_files(pid: int | str) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def total_slowly(data: Array) -> float:
    """Read all of it, and stay for as long as it takes the watch of memory to look."""
    found = total(data)
    use_cpu(0.5)
    return found


def allocate_slowly(data: Array, count: int) -> float:
    """Have so many bytes, until the end."""
    mine = np.ones(count, np.uint8)
    while True:
        total_slowly(data)
        mine += 1


def noted_numbers(seed: int, started: str) -> Array:
    """An array, for which a line is written, after some time."""
    append_line(started, seed)
    time.sleep(0.006)
    return numbers(seed)
