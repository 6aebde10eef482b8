"""Whether this process is one of jobrunner's workers.

Written once, by the worker itself before it takes its first job; read by `get_executor`, which answers with an inline
executor there, so that a job that submits jobs neither deadlocks nor multiplies processes.
"""

from __future__ import annotations

__all__ = ["is_worker", "mark_as_worker"]

_ROLE = {"worker": False}


def mark_as_worker() -> None:
    """Say that this process is a worker.  There is no way back."""
    _ROLE["worker"] = True


def is_worker() -> bool:
    """Whether this process is a worker (or was forked from one)."""
    return _ROLE["worker"]
