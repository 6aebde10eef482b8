"""The jobs of storms: they note what happens to them, in one write each.

This module is imported by workers, so it imports little itself.
"""

from __future__ import annotations

import os
from typing import Any

from tests.core.gates import append_line, use_cpu

#: What a note begins with: the job's argument is being loaded; its function has started.
LOADING, STARTED = "loading", "started"


def _note(notes: str, what: str, number: int) -> None:
    append_line(notes, f"{what} {number} {os.getpid()}")


def _load(notes: str, number: int, seconds: float) -> int:
    _note(notes, LOADING, number)
    use_cpu(seconds)
    return number


class SlowToLoad:
    """An argument that takes so many seconds to load, which it notes; it arrives as its number."""

    def __init__(self, notes: str, number: int, seconds: float) -> None:
        self._args = (notes, number, seconds)

    def __reduce__(self) -> Any:
        return _load, self._args


def work(notes: str, number: int, seconds: float, argument: object = None) -> tuple[int, object]:
    """Note the start, take so long, and return a result that is no other job's."""
    _note(notes, STARTED, number)
    if seconds:
        use_cpu(seconds)
    return number * number, argument


def work_or_leave(notes: str, number: int, leaves: bool) -> int:
    """Note the start, and end the process, or return the number."""
    _note(notes, STARTED, number)
    if leaves:
        os._exit(5)
    return number
