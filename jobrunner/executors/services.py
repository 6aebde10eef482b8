"""What a process has once, however many executors it makes: callback threads, the spawner, the guardian.

`services()` makes it when it is first asked for.  It belongs to one process: in a fork it is made afresh, and the
executors that came with the fork are told that they are not its own.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import multiprocessing.process
import os
import sys
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from jobrunner.executors.callbacks import CallbackThreads
from jobrunner.executors.output import OutputWriter, Spool
from jobrunner.streams import occupy_standard_descriptors

if TYPE_CHECKING:
    from jobrunner.executors.spawner import Spawner

__all__ = ["Closable", "Services", "run_callback", "services"]


class Closable(Protocol):
    """What a process must close before it exits."""

    def close_at_exit(self) -> None:
        """Run what was submitted, and end; called at interpreter exit."""

    def forsake(self) -> None:
        """In a fork: let go of what is the parent's."""


class Services:
    """The services of one process.

    Attributes:
        pid: the process they belong to.
        callbacks: threads for the user's code.
    """

    def __init__(self) -> None:
        occupy_standard_descriptors()
        self.pid = os.getpid()
        self.callbacks = CallbackThreads()
        self._lock = threading.Lock()
        self._spawner: Spawner | None = None
        self._writer: OutputWriter | None = None
        #: where captured output goes that is too much for memory
        self.spool = Spool(_new_spool_path())
        self._numbers = itertools.count(1)
        self._closables: weakref.WeakSet[Closable] = weakref.WeakSet()
        self._hooked = False

    @property
    def writer(self) -> OutputWriter:
        """The thread that writes what jobs print."""
        with self._lock:
            if self._writer is None:
                self._writer = OutputWriter()
            return self._writer

    @property
    def spawner(self) -> Spawner:
        """The thread that starts workers."""
        with self._lock:
            if self._spawner is None:
                from jobrunner.executors.spawner import Spawner

                self._spawner = Spawner(self.spool.path)
            return self._spawner

    def new_tag(self) -> str:
        """What the tags of one pool's lanes begin with; no other pool's do."""
        return f"{self.spawner.tag}{next(self._numbers)}."

    def run_on_thread(self, call: Callable[[], None], name: str) -> threading.Thread | None:
        """Have `call` called on a thread of its own.

        Returns:
            The thread; None where the interpreter starts none any more, and it is called on the spawner's.
        """
        thread = threading.Thread(target=call, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # Python 3.12 and later refuse new threads once the interpreter has begun to exit.
            self.spawner.run(call)
            return None
        return thread

    def register(self, closable: Closable) -> None:
        """Have `closable` finished before the interpreter exits."""
        with self._lock:
            self._closables.add(closable)
            if not self._hooked:
                self._hooked = True
                _before_exit(self._finish)

    def _finish(self) -> None:
        if self.pid != os.getpid():
            return  # the hook was inherited by a fork
        with self._lock:
            closables = list(self._closables)
        for closable in closables:
            closable.close_at_exit()
        if self._writer is not None:
            self._writer.drain()
        self.callbacks.drain()
        if self._spawner is not None:
            self._spawner.close()
        self.spool.close()

    def forsake(self) -> None:
        """In a fork of the process: these services are another process's."""
        for closable in list(self._closables):
            closable.forsake()
        if self._spawner is not None:
            self._spawner.forsake()


def _new_spool_path() -> str:
    """A path that nobody can guess; nothing is made there yet."""
    try:
        directory = tempfile.gettempdir()
    except OSError:  # there is no place that can be written to: it will be noticed when it matters
        directory = os.curdir
    return os.path.join(directory, f"jobrunner-{uuid.uuid4().hex}")


def _before_exit(hook: Callable[[], None]) -> None:
    """Call `hook` when the interpreter exits, before loky's own hook joins its threads.

    Hooks are called last registered first.  loky registers its own anew at each first start of an executor, since it
    keeps what ``threading._register_atexit`` returns, None, as the mark of having done so: it is marked here for good.
    """
    from loky import process_executor

    register: Callable[[Callable[[], None]], object] | None = getattr(threading, "_register_atexit", None)
    if register is None:
        atexit.register(hook)
        return
    if process_executor.process_pool_executor_at_exit is None:
        register(process_executor._python_exit)
        process_executor.process_pool_executor_at_exit = True
    register(hook)


#: The services of this process, once there are any.
_CURRENT: list[Services] = []


def services() -> Services:
    """The services of this process."""
    if not _CURRENT:
        _CURRENT.append(Services())
    return _CURRENT[0]


def run_callback(call: Callable[[], object]) -> None:
    """Have the user's code run on a thread of its own, soon."""
    services().callbacks.run(call)


def _renew_after_fork() -> None:
    # A worker that was being started in the moment of the fork stands among multiprocessing's children; it is not ours.
    children = multiprocessing.process._children  # type: ignore[attr-defined]
    for process in [process for process in children if getattr(process, "_parent_pid", None) != os.getpid()]:
        children.discard(process)
    # Another thread of the parent may have been telling a resource tracker of a semaphore.
    for name in ("multiprocessing.resource_tracker", "loky.backend.resource_tracker"):
        tracker = getattr(sys.modules.get(name), "_resource_tracker", None)
        lock = getattr(tracker, "_lock", None)
        if lock is not None:
            try:
                tracker._lock = type(lock)()  # type: ignore[union-attr]
            except TypeError:  # a plain lock, in Python 3.10
                tracker._lock = threading.Lock()  # type: ignore[union-attr]
    if _CURRENT:
        inherited = _CURRENT[0]
        _CURRENT.clear()
        with contextlib.suppress(Exception):
            inherited.forsake()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
