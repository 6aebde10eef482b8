"""What the jobs do, the healthy and the faulty.

Workers of every peer import this module, so it imports little, and nothing of jobrunner.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["ARRIVED", "RELEASE", "STARTED", "healthy", "started"]

#: Files of a cell's directory: a line for each start of a job; the pipe that job A says that it runs through; the pipe
#: that lets it go on.
STARTED, ARRIVED, RELEASE = "started", "arrived", "release"

_LONG_S = 600
_FLOOD_BYTES = 50_000_000
_GARBAGE = b"garbage!" * 8
_HOG_BYTES = 1_000_000_000
_HOG_STEP_BYTES = 50_000_000
#: How long a hog stays when it has all that it wants, so that a limit that is looked at now and then can strike.
_HOG_STAYS_S = 2.0


# --- every job ---


def _append(directory: str, name: str) -> None:
    # One write in append mode, so that lines of several processes don't mix.
    fd = os.open(os.path.join(directory, STARTED), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, f"{name}\n".encode())
    finally:
        os.close(fd)


def started(directory: str, name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Note the start of a job, and run it."""
    _append(directory, name)
    return function(*args)


def healthy(directory: str, name: str, gated: bool = False) -> str:
    """A job that does nothing wrong; if gated, it says that it runs, and waits until it is let go."""
    _append(directory, name)
    if gated:
        fd = os.open(os.path.join(directory, ARRIVED), os.O_WRONLY)
        os.write(fd, b"\n")
        os.close(fd)
        fd = os.open(os.path.join(directory, RELEASE), os.O_RDONLY)
        os.read(fd, 1)
        os.close(fd)
    return f"{name} is done"


def succeed() -> str:
    """Nothing wrong at all."""
    return "done"


def ignore(argument: object) -> str:
    """Take an argument, and do nothing with it."""
    return "done"


def raise_error(kind: type[BaseException]) -> NoReturn:
    """Raise an exception of that type."""
    raise kind("raised by the job")


# --- death ---


def segfault() -> None:
    """Read address 0."""
    ctypes.string_at(0)


def send_signal(number: int) -> str:
    """Send this process a signal."""
    os.kill(os.getpid(), number)
    # Where it is pending on another thread, or stops the process, give it time to strike.
    time.sleep(_LONG_S if number == signal.SIGSTOP else 5)
    return "survived"


# --- recursion ---


def recurse() -> int:
    """Recurse until Python stops it."""
    return recurse() + 1


def overflow_stack() -> None:
    """Recurse through C code, with Python's own limit out of the way."""
    sys.setrecursionlimit(2**31 - 1)
    _dive(0)


def _dive(depth: int) -> list[Any]:
    return list(map(_dive, [depth + 1]))


# --- descriptors ---


def _descriptors() -> list[int]:
    listing = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return [int(name) for name in os.listdir(listing)]


def close_all() -> str:
    """Close every descriptor but the standard ones."""
    os.closerange(3, max(_descriptors()) + 1)
    return "done"


def close_standard() -> str:
    """Close the standard descriptors."""
    for fd in range(3):
        with contextlib.suppress(OSError):
            os.close(fd)
    return "done"


def write_garbage() -> str:
    """Write a little garbage into every descriptor that takes it."""
    for fd in _descriptors():
        with contextlib.suppress(OSError):
            os.write(fd, _GARBAGE)
    return "done"


def use_up_descriptors() -> str:
    """Open files until there are no more descriptors, and keep them."""
    try:
        while True:
            os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return "done"


def can_open() -> bool:
    """Whether a file can be opened."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


# --- floods ---


def flood(fd: int, newlines: bool) -> str:
    """Write 50 MB into a standard stream."""
    block = ((b"x" * 99 + b"\n") if newlines else b"x" * 100) * 1000
    for _ in range(_FLOOD_BYTES // len(block)):
        left = memoryview(block)
        while left:
            left = left[os.write(fd, left) :]
    return "done"


# --- processes and threads ---


def fork_and_exit() -> str:
    """Fork a child that leaves at once."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "done"


def fork_and_return() -> str:
    """Fork a child that comes back from the job as well, and is given the time to."""
    child = os.fork()
    if child == 0:
        return "from the child"
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline and os.waitpid(child, os.WNOHANG) == (0, 0):
        # Python can't wait for a child with a time-out, and a handler of SIGCHLD would be a fault of its own.
        time.sleep(0.01)
    return "done"


def fork_and_stay() -> str:
    """Fork a child that stays in the job, as a copy of the worker."""
    if os.fork() == 0:
        time.sleep(_LONG_S)
        os._exit(0)
    return "done"


def leave_child() -> str:
    """Leave a program running."""
    subprocess.Popen(["sleep", str(_LONG_S)])
    return "done"


def leave_daemon() -> str:
    """Leave a program that is nobody's child any more, in a session of its own."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", str(_LONG_S)])  # noqa: S606
        os._exit(0)
    os.waitpid(child, 0)
    return "done"


def leave_thread(daemon: bool) -> str:
    """Leave a thread that never ends."""
    threading.Thread(target=threading.Event().wait, daemon=daemon).start()
    return "done"


# --- hangs ---


def sleep_for_ever() -> None:
    """Sleep."""
    time.sleep(_LONG_S)


def swallow_everything() -> NoReturn:
    """Catch whatever is raised, and go on."""
    while True:
        try:
            time.sleep(_LONG_S)
        except BaseException:  # noqa: S112
            continue


def ignore_signals() -> None:
    """Ignore all polite requests to end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(_LONG_S)


def match_for_ever() -> None:
    """Match a regular expression that takes ages, holding the interpreter's lock."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def hold_interpreter_lock() -> None:
    """Sleep in C code without letting any other thread of the process run."""
    ctypes.PyDLL(None).sleep(_LONG_S)


def deadlock() -> None:
    """Wait for a lock that this thread holds."""
    lock = threading.Lock()
    with lock, lock:
        pass


# --- memory ---


def hog() -> str:
    """Take memory up to 1 GB, and stay for a moment."""
    held = [b"x" * _HOG_STEP_BYTES for _ in range(_HOG_BYTES // _HOG_STEP_BYTES)]
    time.sleep(_HOG_STAYS_S)
    return f"not stopped at {sum(map(len, held)) // 1_000_000} MB"


def hog_by_children() -> str:
    """Let four children take 200 MB each, and stay for a moment."""
    code = "held = b'x' * 200_000_000; print(flush=True); input()"
    children = [
        subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    time.sleep(_HOG_STAYS_S)
    for child in children:
        child.communicate(b"\n")
    return "not stopped at 800 MB"
