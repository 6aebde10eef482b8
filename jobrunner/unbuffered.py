"""NumPy arrays that export no buffer, among objects that are shared: of dates and times, or not in one piece.

Pickled as NumPy does it, their bytes are part of the pickle, and each worker unpickles a copy that can be written to.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any

from jobrunner.parcel import APART_BYTES

__all__ = ["Unbuffered", "unbuffered"]


class Unbuffered:
    """Stands for an array in a pickle; its bytes travel as an array that exports them."""

    def __init__(self, array: Any) -> None:
        self._array = array if array.flags.forc else array.copy(order="C")

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        array = self._array
        order = "C" if array.flags.c_contiguous else "F"
        return _rebuild, (array.ravel(order="K").view("u1"), array.dtype, array.shape, order)


def _rebuild(memory: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
    return memory.view(dtype).reshape(shape, order=order)


def unbuffered(value: Any) -> Unbuffered | None:
    """What is to travel in the place of `value`, if that is a large array that exports no buffer.

    Example:
        >>> import numpy
        >>> unbuffered(numpy.zeros(100_000)) is unbuffered("text") is None
        True
        >>> unbuffered(numpy.zeros(100_000, "M8[s]")) is None
        False
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or value.nbytes < APART_BYTES or value.dtype.hasobject:
        return None
    if not value.flags.forc:
        axes = sorted(range(value.ndim), key=lambda axis: -value.strides[axis])
        if not value.transpose(axes).flags.c_contiguous:
            return Unbuffered(value)
        # With its axes exchanged it is in one piece, which later versions of NumPy know to use.
        if not any(isinstance(part, pickle.PickleBuffer) for part in value.__reduce_ex__(5)[1]):
            return Unbuffered(value)
    try:
        memoryview(value)
    except ValueError:
        return Unbuffered(value)
    return None
