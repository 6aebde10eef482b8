"""Jobs that look at shared objects, and objects that tell when they are unpickled.

This module is imported by workers.
"""

from __future__ import annotations

import gc
import os
import signal
import weakref
from typing import Any, NoReturn

from tests.core.cargo import Array, total
from tests.core.gates import append_line, meet


class Counted:
    """Notes each unpickling in a file: which process did it."""

    def __init__(self, path: str, data: Any = None) -> None:
        self.path = path
        self.data = data

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        append_line(self.path, os.getpid())


class NeverLoads:
    """Can be pickled, and not be rebuilt."""

    def __reduce__(self) -> Any:
        return _fail, ()


def _fail() -> NoReturn:
    raise RuntimeError("this can't be loaded")


def pid_with(*_: object) -> int:
    return os.getpid()


def meet_with(gate: str, *_: object) -> int:
    return int(meet(gate, os.getpid()))


def same(*objects: object) -> bool:
    """Whether all are one and the same object."""
    return all(one is objects[0] for one in objects)


def found_in(nest: Any) -> Any:
    """What stands deep in a nest of many kinds of things, as often as it does."""
    holder, mapping, partial, closure = nest
    return holder.data, mapping["key"][0], partial(), closure()


def keyword_total(*, table: Array) -> float:
    return total(table)


def scaled(table: Array, factor: float) -> float:
    return factor * total(table)


def try_to_write(table: Array) -> str:
    try:
        table[0] = -1
    except ValueError as error:
        return str(error)
    return "written"


def append_to(things: list[Any], thing: Any) -> int:
    things.append(thing)
    return len(things)


_watched: dict[str, weakref.ref[Any]] = {}


def watch(name: str, thing: Any) -> int:
    """Remember a shared object weakly."""
    _watched[name] = weakref.ref(thing)
    return os.getpid()


def is_there(name: str) -> bool:
    """Whether what was watched is still there."""
    gc.collect()
    return _watched[name]() is not None


def maps_of_shares() -> int:
    """How many shared objects' memory this process has mapped."""
    gc.collect()
    with open("/proc/self/maps") as maps:
        return len({line.split()[4] for line in maps if "jobrunner-share" in line})


def die_with(_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
