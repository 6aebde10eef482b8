"""Making a fresh interpreter a worker, and the ways in which it ends.

The caller's side spawns it through loky with `become_worker` as initializer, SIGINT blocked, and a tag of the lane in
its environment.  From here on:

- it is a session leader, so that the terminal's Ctrl-C is never delivered to it, and its standard input is empty;
- on Linux it is a subreaper: whatever a job starts stays below it, also after a double fork;
- a process forked by a job closes the channel, so that nobody but the worker speaks on it;
- it leaves by `os._exit` only: a return into loky would leave it living on loky's own queues.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import importlib
import os
import signal
import sys
from collections.abc import Mapping
from typing import NoReturn

from jobrunner.handover import HandedDescriptor, HandedSocket, ProgressPage, StackFile, TokenCounter
from jobrunner.messages import Kind, pack_frame
from jobrunner.parcel import unpack_parts
from jobrunner.role import mark_as_worker
from jobrunner.serialization import dump_exception, load_call
from jobrunner.streams import occupy_standard_descriptors, restore_missing_streams
from jobrunner.worker.touched import Touched

__all__ = [
    "EXIT_CHANNEL_LOST",
    "EXIT_NOT_STARTED",
    "EXIT_SPOILED",
    "STACK_SIGNAL",
    "WorkerEnd",
    "become_worker",
    "flush_streams",
    "leave",
    "touched",
    "watch_for_crashes",
    "worker_end",
]

#: Exit code of a worker that could no longer speak to its caller.
EXIT_CHANNEL_LOST = 70
#: Exit code of a worker whose preloading or initializer failed.
EXIT_NOT_STARTED = 71
#: Exit code of a worker that a job has left in a state which can't be put back.
EXIT_SPOILED = 72

#: The signal at which a worker writes its Python stack; None where there is no such signal to spare.
STACK_SIGNAL: int | None = int(signal.SIGRTMAX) - 3 if hasattr(signal, "SIGRTMAX") else None

# At which `faulthandler` writes the stack.
_CRASHES = [
    signal.Signals[name] for name in ("SIGSEGV", "SIGFPE", "SIGABRT", "SIGBUS", "SIGILL") if hasattr(signal, name)
]
_PR_SET_CHILD_SUBREAPER = 36
# Added to the score by which the kernel, out of memory, chooses whom to kill (0 to 1000): workers before their caller.
_OOM_SCORE = 300


@dataclasses.dataclass(frozen=True)
class WorkerEnd:
    """All that a worker is handed.

    channel: jobs come in, and word of them goes out.
    control: the sequence number of a job to interrupt comes in, followed by SIGINT.
    page: where the worker says what it is doing.
    tokens: one for each job that it may start.
    output: where what it prints goes, stdout and stderr; None: where the caller's does.
    stack: where its Python stack is written when it crashes or is ended; None: nowhere.
    threads: threads that BLAS and OpenMP libraries are to use; 0: as many as they say.
    log_levels: the levels of the caller's loggers by name; that of the root logger stands under the empty name.
    descriptors: the channel for descriptors of shared memory; None where this system passes none.
    brisk: whether it may look for its next job for a moment before it goes to sleep.
    restore_env: variables to put back (None: to remove), which were needed only for the start.
    preload: modules to import before the first job.
    initializer: a serialised call to make before the first job, as `pack_parts` makes it; empty for none.
    """

    channel: HandedSocket
    control: HandedSocket
    descriptors: HandedSocket | None
    page: ProgressPage
    tokens: TokenCounter
    output: tuple[HandedDescriptor, HandedDescriptor] | None
    stack: HandedDescriptor | StackFile | None
    threads: int
    log_levels: Mapping[str, int]
    brisk: bool
    restore_env: Mapping[str, str | None]
    preload: tuple[str, ...]
    initializer: bytes


_ENDS: list[WorkerEnd] = []
_TOUCHED: list[Touched] = []


def worker_end() -> WorkerEnd:
    """What this worker was handed."""
    return _ENDS[0]


def touched() -> Touched:
    """What notes the functions that are called in this worker."""
    return _TOUCHED[0]


def leave(code: int) -> NoReturn:
    """End this process at once, with what it printed written out."""
    flush_streams()
    os._exit(code)


def flush_streams() -> bool:
    """Write out what was printed; False where a stream can't be flushed, because a job has closed or replaced it."""
    well = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            well = False
    return well


def become_worker(end: WorkerEnd) -> None:
    """Make this process a worker; loky's initializer.

    A failure of the preloaded modules or of the initializer is told to the caller, and ends the process.
    """
    for name, value in end.restore_env.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if hasattr(os, "setsid"):
        with contextlib.suppress(PermissionError):  # it leads a session already
            os.setsid()
    if sys.platform == "linux":
        _become_subreaper()
        _be_taken_first()
    occupy_standard_descriptors()
    restore_missing_streams()
    _empty_stdin()
    _redirect_output(end)
    _own_crash_signals()
    watch_for_crashes(end)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork_in_job)
    end.control.sock.setblocking(False)
    _ENDS.append(end)
    mark_as_worker()
    # Before any code of the user's is imported: it may take functions by name.
    _TOUCHED.append(Touched())
    # A signal that arrives before `serve` is ready to interpret it is nobody's interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        for module in end.preload:
            importlib.import_module(module)
        if end.initializer:
            payload, *buffers = unpack_parts(end.initializer)
            function, args, kwargs = load_call(payload, (), buffers)
            del payload, buffers
            function(*args, **kwargs)
    except BaseException as error:
        with contextlib.suppress(OSError):
            end.channel.sock.sendall(pack_frame(Kind.FAILED, 0, dump_exception(error)))
        leave(EXIT_NOT_STARTED)


def _become_subreaper() -> None:
    """Have orphans among this process's descendants become its children instead of init's."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _be_taken_first() -> None:
    """Have the kernel, out of memory, kill this process before its caller."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        score = int(file.read())
        file.seek(0)
        file.write(str(min(1000, score + _OOM_SCORE)))


def _redirect_output(end: WorkerEnd) -> None:
    """Have what is printed go to the caller's dispatcher, which keeps lines whole."""
    if end.output is not None:
        flush_streams()
        for handed, number in zip(end.output, (1, 2), strict=True):
            os.dup2(handed.fd, number)
            os.close(handed.fd)


def _own_crash_signals() -> None:
    """Have Python know the handlers of the signals at which `faulthandler` writes the stack.

    Where it was switched on before Python looked (``python -X dev``, PYTHONFAULTHANDLER), Python takes them for those
    of another library, and none that a job replaces could be put back.
    """
    if faulthandler.is_enabled():
        faulthandler.disable()
        for number in _CRASHES:
            if signal.getsignal(number) is None:
                signal.signal(number, signal.SIG_DFL)
        faulthandler.enable()


def watch_for_crashes(end: WorkerEnd) -> None:
    """Have the Python stack be written when this process crashes, or is asked for it; also while C code is running."""
    if isinstance(end.stack, HandedDescriptor):
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            # What has taken the place of its signal handlers is replaced only if it is switched off first.
            faulthandler.disable()
            faulthandler.enable(end.stack.fd, all_threads=True)
            if STACK_SIGNAL is not None:
                faulthandler.unregister(STACK_SIGNAL)
                faulthandler.register(STACK_SIGNAL, end.stack.fd, all_threads=True)


def _empty_stdin() -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null != 0:
        os.close(null)
    with contextlib.suppress(OSError, ValueError):
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (it lives as long as the process)


def _after_fork_in_job() -> None:
    """In a process that a job forked: it is no worker, and must not speak as one."""
    faulthandler.disable()
    if STACK_SIGNAL is not None:
        faulthandler.unregister(STACK_SIGNAL)
    for end in _ENDS:
        for handed in (end.channel, end.control, end.descriptors):
            if handed is None:
                continue
            sock = handed.sock
            with contextlib.suppress(OSError):
                sock.close()
        with contextlib.suppress(OSError):
            end.tokens.close()
