"""Noting that a job has called a function that changes the state of the process.

Asking the kernel for all of its state takes some fifteen microseconds, as much as a tiny job.  So it is asked only
after a job that took longer than that by far, or that has called one of the functions watched here.
"""

from __future__ import annotations

import faulthandler
import functools
import os
import random
import signal
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["Touched"]

_IDENTITY = ("setuid", "seteuid", "setreuid", "setresuid", "setgid", "setegid", "setregid", "setresgid", "setgroups")
_STATE: list[tuple[ModuleType | None, tuple[str, ...]]] = [
    (os, ("chdir", "fchdir", "umask", "nice", "setpriority", *_IDENTITY)),
    (os, ("sched_setaffinity", "sched_setscheduler", "sched_setparam")),
    (os, ("dup2", "closerange", "set_blocking")),
    (resource, ("setrlimit", "prlimit")),
]
_SIGNALS: list[tuple[ModuleType | None, tuple[str, ...]]] = [
    (signal, ("signal", "siginterrupt", "set_wakeup_fd", "setitimer", "alarm", "pthread_sigmask")),
    (faulthandler, ("enable", "disable", "register", "unregister", "dump_traceback_later")),
]
_RANDOM: list[tuple[ModuleType | None, tuple[str, ...]]] = [(random, ("seed", "setstate"))]


class Touched:
    """Watches functions, from when it is made.

    Attributes:
        state: whether one that sets what the kernel keeps of the process was called.
        signals: whether one that sets signal handlers, masks or timers was.
        random: whether one that sets the state of Python's random numbers was.
        variables: names of environment variables that were set, behind the back of `os.environ` or not.
        any: whether any of these.
        on_call: called with each of them, before it is done; None: nothing is.
    """

    def __init__(self) -> None:
        self.on_call: Callable[[], None] | None = None
        self.state = self.signals = self.random = self.any = False
        self.variables: set[Any] = set()
        for attribute, functions in (("state", _STATE), ("signals", _SIGNALS), ("random", _RANDOM)):
            for module, names in functions:
                for name in names:
                    if hasattr(module, name):
                        function = getattr(module, name)
                        _replace(module, name, self._watched(function, name, attribute), function)
        # A method of the global generator is unpickled as that generator's attribute.
        generator: Any = getattr(random, "_inst", None)
        if generator is not None:
            generator.seed, generator.setstate = random.seed, random.setstate
        for name in ("putenv", "unsetenv"):
            if hasattr(os, name):
                _replace(os, name, self._watched_variable(getattr(os, name)), getattr(os, name))
        _replace(os, "close", self._watched_close(os.close), os.close)

    def forget(self) -> None:
        """Whatever was called, it has been seen to."""
        self.state = self.signals = self.random = self.any = False
        self.variables.clear()

    def _note(self) -> None:
        self.any = True
        if self.on_call is not None:
            self.on_call()

    def _watched(self, function: Callable[..., Any], name: str, attribute: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            setattr(self, attribute, True)
            self._note()
            return function(*args, **kwargs)

        watched.__qualname__ = name  # by which it pickles
        return watched

    def _watched_variable(self, function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def watched(name: Any, *value: Any) -> None:
            self.variables.add(name)
            self._note()
            function(name, *value)

        return watched

    def _watched_close(self, close: Callable[[int], None]) -> Callable[[int], None]:
        @functools.wraps(close)
        def watched(fd: int) -> None:
            if fd in (0, 1, 2):
                self.state = True
                self._note()
            close(fd)

        return watched


def _replace(module: ModuleType | None, name: str, watched: Callable[..., Any], function: Callable[..., Any]) -> None:
    """Put a watched function in the place of `function`, also where it comes from: by that name it is unpickled."""
    for place in {module, sys.modules.get(function.__module__)}:
        if getattr(place, name, None) is function:
            setattr(place, name, watched)
