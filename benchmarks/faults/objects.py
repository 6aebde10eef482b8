"""Arguments, results and exceptions that don't cross between processes, or do harm where they arrive."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

__all__ = [
    "HugeError",
    "NeedsTwoError",
    "OddError",
    "RunsWhenLoaded",
    "UnpicklableError",
    "UnprintableError",
    "exits_when_loaded",
    "fails_to_load",
    "hangs_when_loaded",
    "make_generator",
    "make_nested_list",
    "make_unloadable",
    "raise_huge",
    "raise_needs_two",
    "raise_unpicklable",
    "raise_unprintable",
]

_HUGE_BYTES = 50_000_000


class OddError(BaseException):
    """No `Exception`."""


class UnpicklableError(Exception):
    """An exception that can't be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class NeedsTwoError(Exception):
    """Pickles, and can't be rebuilt: its constructor wants more than its `args` hold."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class UnprintableError(Exception):
    """Has neither text nor representation."""

    def __str__(self) -> str:
        raise RuntimeError("this can't be printed")

    __repr__ = __str__


class HugeError(Exception):
    """Carries a lot."""


def raise_unpicklable() -> NoReturn:
    """Raise what can't be pickled."""
    raise UnpicklableError("with a lock")


def raise_needs_two() -> NoReturn:
    """Raise what can't be unpickled."""
    raise NeedsTwoError("one", "two")


def raise_unprintable() -> NoReturn:
    """Raise what can't be printed."""
    raise UnprintableError


def raise_huge() -> NoReturn:
    """Raise an exception whose arguments take 50 MB."""
    raise HugeError(b"x" * _HUGE_BYTES, {"odd": ...})


def _fail() -> NoReturn:
    raise RuntimeError("this can't be loaded")


class RunsWhenLoaded:
    """Whoever unpickles it runs a function instead.

    Args:
        function: what runs; importable.
        args: its arguments.
    """

    def __init__(self, function: Callable[..., object], *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        return self._call


def fails_to_load() -> RunsWhenLoaded:
    """What raises when it is unpickled."""
    return RunsWhenLoaded(_fail)


def exits_when_loaded() -> RunsWhenLoaded:
    """What ends the process that unpickles it."""
    return RunsWhenLoaded(os._exit, 3)


def hangs_when_loaded() -> RunsWhenLoaded:
    """What keeps whoever unpickles it."""
    return RunsWhenLoaded(time.sleep, 600)


def make_unloadable() -> RunsWhenLoaded:
    """Return what raises when the caller unpickles it."""
    return fails_to_load()


def make_generator() -> Iterator[int]:
    """Return what can't be pickled."""
    return (number for number in range(3))


def make_nested_list() -> list[Any]:
    """Return a list that is nested deeper than any pickler goes."""
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested
