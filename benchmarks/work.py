"""What jobs run where nothing importable from the standard library will do; it imports nothing."""

from __future__ import annotations

__all__ = ["read_line"]


def read_line(path: str) -> str:
    """The first line of a file; from a named pipe, waits for it."""
    with open(path, encoding="ascii") as file:
        return file.readline()
