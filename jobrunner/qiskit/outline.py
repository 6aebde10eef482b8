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
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from qiskit import QuantumCircuit
from qiskit.transpiler import InstructionProperties

__all__ = ["Outline", "outline"]

_CONTAINERS = (list, tuple, set, frozenset, deque)
_PLAIN_CONTAINERS = frozenset({dict, *_CONTAINERS})
_TEXTS = frozenset({str, bytes})
_NUMBERS = frozenset({bool, int, float, type(None)})
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
            # The hash of -1 is that of -2.
            parts.append((kind, one, one == -1))
            continue
        if kind is complex:  # likewise in either part
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
            parts.append((one.duration, one.duration == -1, one.error, one.error == -1))
        elif isinstance(one, functools.partial):
            waiting += (one.func, one.args, one.keywords)
        within = _WITHIN.get(kind)
        if within is not None:
            waiting += within(one)
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


def _within_cell(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # it is empty
        return ()


#: What tells functions, and what they have around them, from others.  None of them is kept alive itself: it may hold
#: the object whose outline is made, which then would never go.
_WITHIN: dict[Any, Callable[[Any], tuple[Any, ...]]] = {
    types.MethodType: lambda one: (one.__self__, one.__func__),
    types.FunctionType: lambda one: (
        one.__code__,
        one.__defaults__,
        one.__kwdefaults__,
        one.__dict__,
        *(one.__closure__ or ()),
    ),
    types.BuiltinFunctionType: lambda one: (one.__name__, one.__self__),
    types.CellType: _within_cell,
}


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
