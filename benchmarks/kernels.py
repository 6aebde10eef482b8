"""Small functions that pyperf and ``jobrunner bench`` time alike; none takes an argument, so that a call is a call."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

__all__ = ["KERNELS", "fold", "multiply", "nothing", "sort", "transform", "unfold"]

_rng = random.Random(1)
_NUMBERS = [_rng.random() for _ in range(1000)]
_MATRIX = np.random.default_rng(1).standard_normal((100, 100))
_ARRAY = np.linspace(0.0, 1.0, 10_000)


def nothing() -> None:
    """A no-op."""


def sort() -> list[float]:
    """Sort a thousand floats."""
    return sorted(_NUMBERS)


def multiply() -> Any:
    """The product of two matrices of 100 × 100, by BLAS."""
    return _MATRIX @ _MATRIX


def transform() -> Any:
    """The exponential of ten thousand floats, element by element."""
    return np.exp(_ARRAY)


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
