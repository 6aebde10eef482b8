"""`accelerate`, `enable` and `disable`: jobrunner's jobs where Qiskit makes its own.

Every package binds Qiskit's ``PrimitiveJob`` by ``from … import``, and some derive from it when they are imported; so
no name is replaced, but how an instance begins: while this is on, ``PrimitiveJob.__init__`` gives the new instance the
class `jobrunner.qiskit.PrimitiveJob`, or one that derives both from its own class and from ours.  That reaches every
package, whenever it was or is imported, and is undone by putting one function back.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from qiskit.primitives.primitive_job import PrimitiveJob as QiskitPrimitiveJob

from jobrunner.qiskit.cost import MIN_SECONDS
from jobrunner.qiskit.jobs import PrimitiveJob, combined
from jobrunner.qiskit.settings import Settings, settings
from jobrunner.qiskit.versions import warn_of_unknown
from jobrunner.role import is_worker

__all__ = ["accelerate", "disable", "enable"]

_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    # A thread that is not in the fork may have it.
    os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.RLock()))
#: What `enable` has put among the settings in force; None: nothing.
_enabled: Settings | None = None
_original: Callable[..., None] | None = None
_warned = False


@contextlib.contextmanager
def accelerate(
    executor: concurrent.futures.Executor | None = None, *, min_seconds: float = MIN_SECONDS
) -> Iterator[None]:
    """Within the ``with`` block, the jobs that Qiskit's packages make run in processes.

    Holds for the whole process, and in the workers for what a job calls there.  Blocks may be nested, and may overlap
    in several threads: the executor of a job is that of the innermost block of its thread, else of the latest.  When
    the last block is left, Qiskit is as it was; jobs that were submitted go on.

    Args:
        executor: where the jobs run; default: the default executor (`jobrunner.get_executor`) at each submit.
        min_seconds: a run of one of Qiskit's primitives whose estimated time is below this many seconds stays in a
            thread of this process, as Qiskit's own does; 0: none does.

    Raises:
        TypeError: `executor` is no executor.
        ValueError: `min_seconds` is negative.

    Example:
        >>> from qiskit.primitives import PrimitiveJob
        >>> with accelerate():
        ...     job = PrimitiveJob(pow, 2, 10)
        ...     job._submit()
        >>> job.result(), type(job).__module__
        (1024, 'jobrunner.qiskit.jobs')
    """
    mine = Settings(executor, min_seconds, asking="accelerate takes")
    _begin(mine)
    token = settings.context.set(mine)
    try:
        yield
    finally:
        _end(mine)
        # A block that is left in another context (a generator that is closed elsewhere): there it was never set.
        with contextlib.suppress(ValueError):
            settings.context.reset(token)


def enable(executor: concurrent.futures.Executor | None = None, *, min_seconds: float = MIN_SECONDS) -> None:
    """As `accelerate`, until `disable` is called.

    Called again, it replaces what the call before has set.

    Args:
        executor: as for `accelerate`.
        min_seconds: as for `accelerate`.

    Raises:
        TypeError: `executor` is no executor.
        ValueError: `min_seconds` is negative.
    """
    global _enabled
    mine = Settings(executor, min_seconds, asking="enable takes")
    with _lock:
        before, _enabled = _enabled, mine
        # The new one first: meanwhile nothing is undone.
        _begin(mine, oldest=True)
        if before is not None:
            _end(before)


def disable() -> None:
    """Undo `enable`; does nothing if it was not called.  Blocks of `accelerate` hold until they are left."""
    global _enabled
    with _lock:
        before, _enabled = _enabled, None
        if before is not None:
            _end(before)


def _begin(mine: Settings, *, oldest: bool = False) -> None:
    global _original, _warned
    with _lock:
        if not _warned and not is_worker():
            _warned = True
            warn_of_unknown()
        settings.add(mine, oldest=oldest)
        if _original is None:
            _original = QiskitPrimitiveJob.__init__
            QiskitPrimitiveJob.__init__ = _begin_instance


def _end(mine: Settings) -> None:
    global _original
    with _lock:
        settings.remove(mine)
        if not settings.any() and _original is not None:
            QiskitPrimitiveJob.__init__, _original = _original, None


def _begin_instance(self: Any, *args: Any, **kwargs: Any) -> None:
    """In the place of ``PrimitiveJob.__init__`` of Qiskit."""
    if not isinstance(self, PrimitiveJob):
        try:
            own: Any = type(self)
            self.__class__ = combined(own)
        except TypeError:  # of another layout, such as slots give
            original = _original
            if original is None:
                original = QiskitPrimitiveJob.__init__
            original(self, *args, **kwargs)
            return
    PrimitiveJob.__init__(self, *args, **kwargs)
