"""Functions and objects that make trouble when they cross between processes, or while they run."""

from __future__ import annotations

import ctypes
import os
import re
import threading
from typing import Any, NoReturn


def add(a: float, b: float = 0) -> float:
    return a + b


def identity(value: Any) -> Any:
    return value


def raise_error(error: BaseException) -> NoReturn:
    raise error


def _fail_to_load(*_: Any) -> NoReturn:
    raise RuntimeError("this can't be loaded")


class Unpicklable:
    """Can't be pickled."""

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("this can't be pickled")


class Unloadable:
    """Can be pickled, and not be rebuilt from its pickle."""

    def __reduce__(self) -> Any:
        return _fail_to_load, ()


class ExitsWhenLoaded:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


def make_unpicklable() -> Unpicklable:
    return Unpicklable()


def make_unloadable() -> Unloadable:
    return Unloadable()


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
    """Has no text, and can't be pickled."""

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("this can't be pickled")

    def __str__(self) -> str:
        raise RuntimeError("this can't be printed")


class OddError(BaseException):
    """No Exception."""


def raise_unpicklable() -> NoReturn:
    raise UnpicklableError("with a lock")


def raise_needs_two() -> NoReturn:
    raise NeedsTwoError("one", "two")


def raise_unprintable() -> NoReturn:
    raise UnprintableError


def raise_chained() -> NoReturn:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer") from error


def segfault() -> None:
    ctypes.string_at(0)


def hold_interpreter_lock(seconds: int = 600) -> None:
    """Sleep in C code without letting any other thread of the process run."""
    ctypes.PyDLL(None).sleep(seconds)


def match_for_ever() -> None:
    """A regular expression that takes ages, and holds the interpreter's lock meanwhile."""
    re.match(r"(a+)+$", "a" * 60 + "b")
