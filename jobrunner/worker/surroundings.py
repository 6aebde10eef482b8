"""What a job finds around it: the state of the process, which no job leaves changed for the next.

Put back between two jobs: working directory, environment, umask, signal handlers, mask and timers, resource limits, CPU
affinity, warning filters, standard streams and descriptors, `sys.path`, `sys.argv`, recursion limit, tracing, garbage
collection, the default time-out of sockets, and how many threads BLAS and OpenMP libraries use; loggers are put back by
the relay, and context variables are each job's own.  What a job has imported stays, and so do module globals.  Where
something can't be put back (another user, a lower priority, descriptors left open by the hundred), the worker is
replaced.

Random numbers are never rewound.  Where a job has seeded Python's or NumPy's global generator, that is seeded afresh
from the system; where it has not, it goes on with its stream, which is this worker's alone.

Python's part of this is looked at after every job, the kernel's after those that took a millisecond or called a
function that sets it (see `worker.touched`); only what has changed is put back.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import random
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from jobrunner.processes import signal_masks
from jobrunner.worker.standard_streams import StandardStreams
from jobrunner.worker.thread_limits import ThreadLimits
from jobrunner.worker.touched import Touched

try:
    # `signal.getsignal` makes an enum of every answer, at ten times the cost.
    import _signal  # type: ignore[import-not-found,unused-ignore]

    _handler_of: Callable[[int], Any] = _signal.getsignal
    _mask: Callable[[int, Any], set[int]] | None = getattr(_signal, "pthread_sigmask", None)
except ImportError:
    _handler_of = signal.getsignal
    _mask = getattr(signal, "pthread_sigmask", None)

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["Surroundings"]

_SIGNALS = sorted(int(number) for number in signal.valid_signals())
_TIMERS = [getattr(signal, name) for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF") if hasattr(signal, name)]
_LIMITS = (
    sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})
    if resource is not None
    else []
)
_close = os.close  # the one that is not watched
_SILENCE_TRIES = 5
# A job that took longer may have changed anything.
_SHORT_NS = 1_000_000
# In less time no file can be opened, in the place of a standard stream's.
_QUICK_NS = 20_000
# A job that took less can have opened only a few files: that is looked at now and then.
_FEW_FILES_NS = 50_000
_JOBS_BETWEEN_LOOKS = 16


class Surroundings:
    """Remembers the state of the process, and puts it back.

    Args:
        threads: threads that BLAS and OpenMP libraries are to use; 0: as many as they are found with.
        touched: notes which functions are called.
        signals_restored: told when signal handlers have been put back, for those that Python knows nothing of.
    """

    def __init__(self, threads: int, touched: Touched, signals_restored: Callable[[], None]) -> None:
        self._signals_restored = signals_restored
        self._touched = touched
        self._jobs = 0
        self._threads = ThreadLimits(threads)
        self.streams = StandardStreams()
        self._numpy = _NumpyState()
        self.take()

    def take(self) -> None:
        """Remember the state of now."""
        self._cwd: str | None = None
        with contextlib.suppress(OSError):  # it was deleted
            self._cwd = os.getcwd()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._environment = dict(_environment())
        self._handlers = list(map(_handler_of, _SIGNALS))
        self._dispositions = _dispositions()
        self._blocked = _mask(signal.SIG_BLOCK, ()) if _mask else set()
        self._limits = list(map(resource.getrlimit, _LIMITS)) if resource is not None else []
        self._affinity = _affinity()
        self._rank = _rank()
        self._wakeup = signal.set_wakeup_fd(-1)
        if self._wakeup >= 0:
            signal.set_wakeup_fd(self._wakeup)
        self._most_descriptors = _next_descriptor() + _descriptor_limit() // 2
        self._filters = list(warnings.filters)
        self._path = list(sys.path)
        self._finders = list(sys.meta_path)
        self._arguments = list(sys.argv)
        tracing = sys.modules.get("tracemalloc")
        self._tracing = tracing is not None and tracing.is_tracing()
        self._interpreter = _interpreter_state()
        self.streams.take()
        self._threads.take()
        self._touched.forget()

    # --- before the outcome of a job is sent ---

    def silence(self, lasted_ns: int = _SHORT_NS) -> None:
        """Put signal handlers, mask and timers back, after a job that took so long.

        First of all, and again while a handler that the job has left raises: it was meant for the job, not for us.
        """
        if lasted_ns < _SHORT_NS and not self._touched.signals:
            return
        for _ in range(_SILENCE_TRIES):
            with contextlib.suppress(BaseException):
                self._silence()
                self._touched.signals = False
                return

    def _silence(self) -> None:
        for timer in _TIMERS:
            if signal.getitimer(timer)[0]:
                signal.setitimer(timer, 0)
        dispositions = _dispositions()
        if list(map(_handler_of, _SIGNALS)) != self._handlers or dispositions != self._dispositions:
            changed = self._changed_signals(dispositions)
            for number, handler in zip(_SIGNALS, self._handlers, strict=True):
                if handler is not None and (_handler_of(number) is not handler or changed >> (number - 1) & 1):
                    with contextlib.suppress(OSError, ValueError):  # not to be changed: KILL, STOP
                        signal.signal(number, handler)
        faulthandler.cancel_dump_traceback_later()
        self._signals_restored()
        if signal.set_wakeup_fd(-1) != self._wakeup:
            signal.set_wakeup_fd(self._wakeup)
        if _mask is not None and _mask(signal.SIG_BLOCK, ()) != self._blocked:
            _mask(signal.SIG_SETMASK, self._blocked)

    def _changed_signals(self, dispositions: tuple[int, int]) -> int:
        """The signals that code in C has caught or ignored, as a mask."""
        ignored, caught = self._dispositions
        return (dispositions[0] ^ ignored) | (dispositions[1] ^ caught)

    # --- after it ---

    def restore(self, lasted_ns: int = _SHORT_NS) -> bool:
        """Put everything else back, after a job that took so long.

        Returns:
            False where something can't be, and this process is of no more use.
        """
        try:
            thorough = lasted_ns >= _SHORT_NS or self._touched.state
            self._restore()
            if thorough:
                self._restore_kernel_state()
            self._touched.forget()
            if thorough:
                if _rank() != self._rank:
                    return False
            elif lasted_ns >= _QUICK_NS:
                self.streams.restore_descriptors()
            self._jobs += 1
            if lasted_ns < _FEW_FILES_NS and self._jobs % _JOBS_BETWEEN_LOOKS:
                return True
            # What a job has opened may be wanted by what it has loaded; so much leaves too little for the next one.
            return _next_descriptor() <= self._most_descriptors
        except Exception:
            return False

    def _restore_kernel_state(self) -> None:
        self._restore_directory()
        os.umask(self._umask)
        if resource is not None and list(map(resource.getrlimit, _LIMITS)) != self._limits:
            for number, limit in zip(_LIMITS, self._limits, strict=True):
                if resource.getrlimit(number) != limit:
                    resource.setrlimit(number, limit)
        if self._affinity is not None and os.sched_getaffinity(0) != self._affinity:
            os.sched_setaffinity(0, self._affinity)
        self.streams.restore_descriptors()

    def _restore(self) -> None:
        if self._touched.variables or _environment() != self._environment:
            self._restore_environment()
        if warnings.filters != self._filters:
            with warnings.catch_warnings():  # for its telling the modules that the filters change
                pass
            warnings.filters[:] = self._filters  # type: ignore[index]
        if sys.path != self._path:
            sys.path[:] = self._path
        if sys.meta_path != self._finders:
            sys.meta_path[:] = self._finders
        if sys.argv != self._arguments:
            sys.argv[:] = self._arguments
        tracing = sys.modules.get("tracemalloc")
        if tracing is not None and tracing.is_tracing() and not self._tracing:
            tracing.stop()
        if _interpreter_state() != self._interpreter:
            _set_interpreter_state(self._interpreter)
        self.streams.restore_streams()
        self._threads.restore()
        if self._touched.random:
            random.seed()
        module = sys.modules.get("numpy.random")
        if module is not None:
            self._numpy.restore(module)

    def _restore_directory(self) -> None:
        if self._cwd is None:
            return
        with contextlib.suppress(OSError):
            if os.getcwd() == self._cwd:
                return
        os.chdir(self._cwd)

    def _restore_environment(self) -> None:
        wanted, found = self._environment, dict(_environment())
        zone = os.environ.get("TZ")
        decode = os.environ.decodevalue, getattr(os.environ, "decodekey", str)
        for name in found.keys() - wanted.keys():
            del os.environ[decode[1](name)]
        for name, value in wanted.items():
            if found.get(name) != value:
                os.environ[decode[1](name)] = decode[0](value)
        # What was set behind the back of `os.environ`.
        for name in [os.fsencode(name) if os.name == "posix" else name for name in self._touched.variables]:
            if name in wanted:
                os.putenv(name, wanted[name])
            else:
                os.unsetenv(name)
        if os.environ.get("TZ") != zone and hasattr(time, "tzset"):
            time.tzset()


def _environment() -> dict[Any, Any]:
    """The environment as Python keeps it: a comparison of it costs nothing."""
    return os.environ._data  # type: ignore[attr-defined,no-any-return]


def _dispositions() -> tuple[int, int]:
    """The signals that are ignored, and those that are caught, whoever has set that, as masks; 0 where not known."""
    masks = signal_masks(os.getpid())
    return masks.get("SigIgn", 0), masks.get("SigCgt", 0)


def _affinity() -> set[int] | None:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _rank() -> tuple[int, ...]:
    """Who the process is, and how urgent: what can't be taken back once it is given away."""
    if not hasattr(os, "getpriority"):
        return ()
    policy = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else 0
    return os.getpriority(os.PRIO_PROCESS, 0), os.geteuid(), os.getegid(), policy


def _next_descriptor() -> int:
    """The number that the next descriptor opened gets."""
    fd = os.dup(0)
    _close(fd)
    return fd


def _descriptor_limit() -> int:
    if resource is None:
        return 8192
    soft: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def _interpreter_state() -> tuple[Any, ...]:
    return (
        sys.getrecursionlimit(),
        sys.gettrace(),
        sys.getprofile(),
        gc.isenabled(),
        gc.get_threshold(),
        sys.getswitchinterval(),
        socket.getdefaulttimeout(),
        threading.gettrace(),
        threading.getprofile(),
    )


def _set_interpreter_state(state: tuple[Any, ...]) -> None:
    recursion, trace, profile, collecting, thresholds, interval, timeout, *of_threads = state
    sys.setrecursionlimit(recursion)
    sys.settrace(trace)
    sys.setprofile(profile)
    (gc.enable if collecting else gc.disable)()
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)
    socket.setdefaulttimeout(timeout)
    threading.settrace(of_threads[0])
    threading.setprofile(of_threads[1])


class _NumpyState:
    """Notes whether a job has seeded NumPy's global generator, and gives the next one a fresh one."""

    # Of its state in memory; drawing changes it too, now and then, and then it may as well be seeded.
    _LOOKED_AT_BYTES = 64

    def __init__(self) -> None:
        # The generator, the beginning of its state in memory, and what stood there.
        self._generator: Any = None
        self._state = memoryview(b"")
        self._seen = b""

    def restore(self, module: Any) -> None:
        """Seed from the system what was seeded; `module` is `numpy.random`."""
        try:
            generator = module.mtrand._rand._bit_generator
        except AttributeError:
            return  # still being imported, or another NumPy than those we know
        if generator is not self._generator:
            # Loaded, or replaced, by this job, which may have seeded it.
            import ctypes

            address = generator.ctypes.state_address
            self._state = memoryview((ctypes.c_char * self._LOOKED_AT_BYTES).from_address(address)).cast("B")
            self._generator = generator
        elif bytes(self._state) == self._seen:
            return
        module.seed()
        self._seen = bytes(self._state)
