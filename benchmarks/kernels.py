"""Small functions that pyperf and ``jobrunner bench`` time alike; none takes an argument, so that a call is a call."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

__all__ = ["KERNELS", "fold", "multiply", "nothing", "sort", "transform", "unfold"]

#: Bytes of a page of memory.
_PAGE = 4096


def _on_page(values: Any) -> Any:
    """A copy of an array that begins with a page.

    Where an array begins is else up to what its process has allocated before, and changes what the same call takes by a
    tenth (matrix product: 42 µs at a multiple of 32 bytes, 46 µs at 16 or 48 more).
    """
    room = np.empty(values.nbytes + _PAGE, np.uint8)
    begin = -room.ctypes.data % _PAGE
    copy = room[begin : begin + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


_rng = random.Random(1)
_NUMBERS = [_rng.random() for _ in range(1000)]
_MATRIX = _on_page(np.random.default_rng(1).standard_normal((100, 100)))
_PRODUCT = _on_page(np.zeros((100, 100)))
_ARRAY = _on_page(np.linspace(0.0, 1.0, 10_000))
_POWERS = _on_page(np.zeros(10_000))


def nothing() -> None:
    """A no-op."""


def sort() -> list[float]:
    """Sort a thousand floats."""
    return sorted(_NUMBERS)


def multiply() -> Any:
    """The product of two matrices of 100 × 100, by BLAS."""
    return np.matmul(_MATRIX, _MATRIX, out=_PRODUCT)


def transform() -> Any:
    """The exponential of ten thousand floats, element by element."""
    return np.exp(_ARRAY, out=_POWERS)


def fold() -> int:
    """A sum by a loop of the interpreter."""
    total = 0
    for number in range(5000):
        total += number * number
    return total


def unfold() -> int:
    """The same sum by a generator."""
    return sum(number * number for number in range(5000))


#: What is timed by both.
KERNELS = {"nothing": nothing, "sort": sort, "multiply": multiply, "transform": transform}
