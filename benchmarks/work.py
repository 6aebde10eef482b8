"""What jobs run where nothing importable from the standard library will do; it imports nothing until it must."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["array", "call", "count", "each", "nested", "read_line", "spin", "touch"]

#: Numbers of eight bytes in a page of memory.
_PAGE = 512


def call(function: Callable[..., Any], *args: Any) -> Any:
    """The result of a call, for libraries that want a Python function."""
    return function(*args)


def each(function: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
    """The results of a chunk, for libraries whose ``map`` has none."""
    return [function(item) for item in items]


def read_line(path: str) -> str:
    """The first line of a file; from a named pipe, waits for it."""
    with open(path, encoding="ascii") as file:
        return file.readline()


def spin(count: int) -> int:
    """Work of a fixed amount."""
    total = 0
    for number in range(count):
        total += number
    return total


def touch(numbers: Any, index: int = 0) -> int:
    """The sum of one number of every page of an array, so that all its memory must be there."""
    return int(numbers[::_PAGE].sum())


def count(entries: dict[str, dict[str, Any]], index: int = 0) -> int:
    """How many entries a nested object has."""
    return len(entries)


@functools.lru_cache(maxsize=1)
def array(size: int) -> Any:
    """An array of that many bytes, which can't be compressed; the same again until another size is asked for."""
    import numpy as np

    return np.random.default_rng(size).integers(0, 1 << 40, size // 8)


@functools.lru_cache(maxsize=1)
def nested(entries: int) -> dict[str, dict[str, Any]]:
    """A nested object, and the same again."""
    return {f"point-{number}": {"x": number, "y": 0.5 * number, "tags": [str(number)]} for number in range(entries)}
