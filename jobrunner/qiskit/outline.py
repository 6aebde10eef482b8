"""A number that tells whether a backend is still what it was when it was sent.

To serialise a simulator with a noise model takes seconds, which is too long to be done for every job only to find that
nothing has changed.  Its outline takes a few milliseconds, or a tenth of the other: it goes through attributes,
containers and arrays, and takes numbers and texts by their values.  What Python can't look into (parts written in C or
Rust) it takes by identity, and a circuit by its identity and size.
"""

from __future__ import annotations

import types
import zlib
from collections import deque
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from qiskit import QuantumCircuit
from qiskit.transpiler import InstructionProperties

__all__ = ["Outline", "outline"]

_CONTAINERS = (list, tuple, set, frozenset, deque)
_PLAIN_CONTAINERS = frozenset({dict, *_CONTAINERS})
_VALUES = (bool, int, float, complex, str, bytes, type(None))
_BY_IDENTITY = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


class Outline(NamedTuple):
    """What an object looked like.

    Attributes:
        value: is another number, in all likelihood, if what can be seen of the object has changed.
        held: what was taken by identity, kept alive so that nothing new can have the same.
    """

    value: int
    held: tuple[Any, ...]


def outline(obj: Any) -> Outline:
    """The outline of an object and of what it holds.

    Args:
        obj: any object.
    """
    seen: set[int] = set()
    parts: list[Any] = []
    held: list[Any] = []
    waiting: list[Any] = [obj]
    while waiting:
        one = waiting.pop()
        kind: Any = type(one)
        if kind in _VALUES:
            parts.append((kind, one))
            continue
        if isinstance(one, np.generic):
            parts.append((kind, one.tobytes()))
            continue
        if isinstance(one, bytearray):
            parts.append((kind, bytes(one)))
            continue
        parts.append(id(one))
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            parts.append(len(one))
            waiting += dict.keys(one)
            waiting += dict.values(one)
        elif isinstance(one, _CONTAINERS):
            parts.append(len(one))
            waiting += one
        elif isinstance(one, np.ndarray):
            parts.append(_of_array(one))
            if one.dtype.hasobject:
                waiting += one.ravel().tolist()
        elif isinstance(one, QuantumCircuit):
            parts.append((len(one.data), one.num_qubits, one.num_clbits))
        elif isinstance(one, InstructionProperties):
            parts.append((one.duration, one.error))
        if isinstance(one, _BY_IDENTITY):
            continue
        inner = getattr(one, "__dict__", None)
        slots = _slots(kind)
        if type(inner) is dict:
            waiting += inner.values()
        if slots:
            waiting += (getattr(one, name, None) for name in slots)
        elif inner is None and not callable(one) and kind not in _PLAIN_CONTAINERS:
            held.append(one)
    return Outline(hash(tuple(parts)), tuple(held))


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
