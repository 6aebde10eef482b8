"""A number that tells whether a backend is still what it was when it was sent.

To serialise a simulator with a noise model takes seconds, which is too long to be done for every job only to find that
nothing has changed.  Its outline takes a few milliseconds, or a tenth of the other: it goes through attributes,
containers and arrays, what functions are bound to and have around them, and takes numbers and texts by their values.
What Python can't look into (parts written in C or Rust) it takes by identity, and a circuit by its identity and size.
"""

from __future__ import annotations

import functools
import types
import zlib
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from qiskit import QuantumCircuit
from qiskit.transpiler import InstructionProperties

__all__ = ["Outline", "outline"]

_CONTAINERS = (list, tuple, set, frozenset, deque)
_PLAIN_CONTAINERS = frozenset({dict, *_CONTAINERS})
_TEXTS = frozenset({str, bytes})
_NUMBERS = frozenset({bool, int, float, complex, type(None)})
_BY_IDENTITY = (type, types.ModuleType)


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
        if kind in _TEXTS:
            parts.append((kind, one))
            continue
        if kind in _NUMBERS:
            # -1 and -2, of any kind, have the same hash; 0.0 and -0.0 are equal.
            parts.append((kind, repr(one)))
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
            parts.append((repr(one.duration), repr(one.error)))
        elif isinstance(one, functools.partial):
            waiting += (one.func, one.args, one.keywords)
        within = _within_callable(one)
        if within is not None:
            waiting += within
            continue
        if isinstance(one, _BY_IDENTITY):
            held.append(one)
            continue
        inner = getattr(one, "__dict__", None)
        slots = _slots(kind)
        if type(inner) is dict:
            waiting += inner.values()
        if slots:
            waiting += (getattr(one, name, None) for name in slots)
        elif inner is None and kind not in _PLAIN_CONTAINERS:
            held.append(one)
    return Outline(hash(tuple(parts)), tuple(held))


def _within_callable(obj: Any) -> tuple[Any, ...] | None:
    """What tells a function or a method from others; None: it is neither, nor what a function has around it.

    None of them is kept alive itself: it may hold the object whose outline is made, which then would never go.
    """
    if isinstance(obj, types.MethodType):
        return obj.__self__, obj.__func__
    if isinstance(obj, types.FunctionType):
        return obj.__code__, obj.__defaults__, obj.__kwdefaults__, obj.__dict__, *(obj.__closure__ or ())
    if isinstance(obj, types.BuiltinFunctionType):
        return obj.__name__, obj.__self__
    if isinstance(obj, types.CellType):
        try:
            return (obj.cell_contents,)
        except ValueError:  # it is empty
            return ()
    return None


def _of_array(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    if array.dtype.hasobject:
        return array.shape, str(array.dtype)
    return array.shape, str(array.dtype), zlib.crc32(np.ascontiguousarray(array).tobytes())


@functools.lru_cache(maxsize=1024)
def _slots(kind: Any) -> list[str]:
    names: list[str] = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        names += (slots,) if isinstance(slots, str) else slots
    return [name for name in names if name not in ("__dict__", "__weakref__")]
