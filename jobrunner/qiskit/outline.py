"""A number that tells whether a backend is still what it was when it was sent.

To serialise a simulator with a noise model takes seconds, which is too long to be done for every job only to find that
nothing has changed.  Its outline takes a few milliseconds, 25 for the largest: it goes through attributes, containers
and arrays, and takes numbers and texts by their values.  What Python can't look into (parts written in C or Rust) it
takes by identity, and a circuit by its identity and size.
"""

from __future__ import annotations

import types
import zlib
from collections import deque
from functools import lru_cache
from typing import Any

import numpy as np
from qiskit import QuantumCircuit

__all__ = ["outline"]

#: How many objects are looked at; what lies deeper than these doesn't count.
_MOST_OBJECTS = 10_000
_VALUES = (bool, int, float, complex, str, bytes, type(None))
_BY_IDENTITY = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


def outline(obj: Any) -> int:
    """The outline of an object and of what it holds.

    Args:
        obj: any object.

    Returns:
        A number, which is another one, in all likelihood, if what can be seen of the object has changed.
    """
    seen: set[int] = set()
    parts: list[Any] = []
    # The nearest first: what a user sets lies on the surface.
    waiting: deque[Any] = deque([obj])
    while waiting and len(seen) < _MOST_OBJECTS:
        one = waiting.popleft()
        kind: Any = type(one)
        if kind in _VALUES:
            parts.append((kind, one))
            continue
        parts.append(id(one))
        if id(one) in seen:
            continue
        seen.add(id(one))
        if kind is dict:
            parts.append(len(one))
            waiting += one
            waiting += one.values()
        elif kind in (list, tuple, set, frozenset):
            parts.append(len(one))
            waiting += one
        elif kind is np.ndarray:
            parts.append(_of_array(one))
        elif isinstance(one, QuantumCircuit):
            parts.append((len(one.data), one.num_qubits, one.num_clbits))
        elif not isinstance(one, _BY_IDENTITY):
            inner = getattr(one, "__dict__", None)
            if type(inner) is dict:
                waiting += inner.values()
            if isinstance(one, dict):
                waiting += dict.keys(one)
                waiting += dict.values(one)
            waiting += (getattr(one, name, None) for name in _slots(kind))
    return hash(tuple(parts))


def _of_array(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    if array.dtype.hasobject:
        return array.shape, str(array.dtype)
    return array.shape, str(array.dtype), zlib.crc32(np.ascontiguousarray(array).tobytes())


@lru_cache(maxsize=1024)
def _slots(kind: Any) -> list[str]:
    names: list[str] = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        names += (slots,) if isinstance(slots, str) else slots
    return [name for name in names if name not in ("__dict__", "__weakref__")]
