"""The default executor: where jobs go that are not told otherwise."""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import os
import threading
from collections.abc import Iterator

from jobrunner.executors.inline import InlineExecutor
from jobrunner.executors.local import LocalExecutor
from jobrunner.role import is_worker

__all__ = ["get_executor", "set_executor", "use_executor"]


class _Default:
    """The process's default executor, and whether it was made here."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.executor: concurrent.futures.Executor | None = None
        self.made_here = False
        self.pid = os.getpid()


_default = _Default()
_local: contextvars.ContextVar[concurrent.futures.Executor | None] = contextvars.ContextVar(
    "jobrunner_executor", default=None
)


def get_executor() -> concurrent.futures.Executor:
    """The default executor.

    Returns:
        In this order: the one of the innermost ``with use_executor(…)`` around; the one given to `set_executor`; in a
        worker, an `InlineExecutor`; else one process-wide `LocalExecutor`, made at the first use, and made again after
        a shutdown or in a forked child.

    Example:
        >>> from jobrunner import InlineExecutor
        >>> with use_executor(InlineExecutor()):
        ...     get_executor().submit(abs, -3).result()
        3
    """
    chosen = _local.get()
    if chosen is not None:
        return chosen
    if _default.pid != os.getpid():
        _forget_in_child()
    with _default.lock:
        executor = _default.executor
        if executor is None or (_default.made_here and isinstance(executor, LocalExecutor) and executor.is_shut_down):
            executor = InlineExecutor() if is_worker() else LocalExecutor()
            _default.executor, _default.made_here = executor, True
        return executor


def set_executor(executor: concurrent.futures.Executor | None) -> None:
    """Make `executor` this process's default; None: back to the one made at first use.

    Raises:
        TypeError: it is no executor.
    """
    if executor is not None and not isinstance(executor, concurrent.futures.Executor):
        raise TypeError(f"the default executor must be a concurrent.futures.Executor, not {executor!r}")
    with _default.lock:
        _default.executor, _default.made_here = executor, False


@contextlib.contextmanager
def use_executor(executor: concurrent.futures.Executor) -> Iterator[concurrent.futures.Executor]:
    """Make `executor` the default within a ``with`` block, for this thread or task; it is not shut down.

    Raises:
        TypeError: it is no executor.
    """
    if not isinstance(executor, concurrent.futures.Executor):
        raise TypeError(f"the default executor must be a concurrent.futures.Executor, not {executor!r}")
    token = _local.set(executor)
    try:
        yield executor
    finally:
        _local.reset(token)


def _forget_in_child() -> None:
    """In a fork: another thread of the parent may have held the lock."""
    _default.lock = threading.Lock()
    _default.pid = os.getpid()
    if _default.made_here:
        _default.executor = None
