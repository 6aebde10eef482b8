"""What `accelerate`, `enable` and the parallel primitives are told, and what of it is in force."""

from __future__ import annotations

import concurrent.futures
import contextvars
from typing import Any

from jobrunner.options import check_seconds

__all__ = ["Settings", "settings"]


class Settings:
    """What one block of `accelerate`, one call of `enable`, or one parallel primitive asks for; checked.

    Args:
        executor: where jobs run; None: the default executor.
        min_seconds: estimated seconds below which a run of a primitive stays in a thread.
        asking: who asks for an executor, in the words with which the error for what is none begins.

    Raises:
        TypeError: `executor` is no executor, or `min_seconds` no number.
        ValueError: `min_seconds` is negative, or None.
    """

    def __init__(self, executor: concurrent.futures.Executor | None, min_seconds: float, *, asking: str) -> None:
        if executor is not None and not isinstance(executor, concurrent.futures.Executor):
            raise TypeError(f"{asking} a concurrent.futures.Executor, not {executor!r}")
        seconds = check_seconds("min_seconds", min_seconds, zero=True)
        if seconds is None:
            raise ValueError("min_seconds must be a number of seconds, not None")
        self.executor = executor
        self.min_seconds = seconds


class _InForce:
    """Those in force, the latest last; its owner (`acceleration`) adds and removes under its lock."""

    def __init__(self) -> None:
        # Replaced, never changed: whoever reads needs no lock.
        self._all: tuple[Settings, ...] = ()
        # Those of the innermost block around, in this thread or task.
        self.context: contextvars.ContextVar[Any] = contextvars.ContextVar("jobrunner_qiskit_settings", default=None)

    def add(self, mine: Settings, *, oldest: bool = False) -> None:
        self._all = (mine, *self._all) if oldest else (*self._all, mine)

    def remove(self, mine: Settings) -> None:
        self._all = tuple(other for other in self._all if other is not mine)

    def any(self) -> bool:
        """Whether there are any."""
        return bool(self._all)

    def current(self) -> Settings | None:
        """Those for a job that this thread submits; None where there are none."""
        everyone, mine = self._all, self.context.get()
        if mine is not None and mine in everyone:
            return mine  # type: ignore[no-any-return]
        return everyone[-1] if everyone else None


settings = _InForce()
