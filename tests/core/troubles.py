"""Jobs that make trouble for the process they run in.

This module is imported by workers, so it imports little itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tests.core.gates import append_line, arrive, arrive_and_stay, await_release, lines, meet
from tests.core.oddities import hold_interpreter_lock, match_for_ever, segfault


def arrive_and_kill(gate: str, number: int) -> None:
    arrive(gate)
    os.kill(os.getpid(), number)


def arrive_and_exit(gate: str, code: int) -> NoReturn:
    arrive(gate)
    os._exit(code)


def arrive_and_segfault(gate: str) -> None:
    arrive(gate)
    segfault()


def hold_lock(gate: str) -> None:
    arrive(gate)
    hold_interpreter_lock()


def match_regex(gate: str) -> None:
    arrive(gate)
    match_for_ever()


def ignore_signals(gate: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            meet(gate)
        except BaseException:  # noqa: S112
            continue


def start_child(gate: str, kind: str) -> None:
    """Start a process that arrives and stays; return at once."""
    stay = f"from tests.core.gates import arrive_and_stay; arrive_and_stay({gate!r})"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    if kind == "forked":
        if os.fork() == 0:
            arrive_and_stay(gate)
    elif kind == "program":
        subprocess.Popen([sys.executable, "-c", stay], env={**os.environ, **environment})
    elif kind == "clean environment":
        subprocess.Popen([sys.executable, "-c", stay], env=environment)
    elif kind == "daemon":
        daemonise(lambda: arrive_and_stay(gate))
    else:
        assert kind == "clean daemon"
        daemonise(lambda: os.execve(sys.executable, [sys.executable, "-c", stay], environment))  # noqa: S606


def daemonise(function: Callable[[], object]) -> None:
    """The classical double fork with a session of its own."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            function()
        os._exit(0)
    os.waitpid(child, 0)


def with_child(gate: str, kind: str, then: Callable[[], object]) -> object:
    """Start a process, and go on when the test lets us, having seen it."""
    start_child(gate, kind)
    await_release(gate)
    arrive(gate)
    return then()


def clean_up(gate: str, path: str) -> None:
    try:
        meet(gate)
    finally:
        append_line(path, "cleaned")


def swallow(gate: str, path: str) -> None:
    try:
        meet(gate)
    except KeyboardInterrupt:
        append_line(path, "swallowed")
    meet(gate)


def die_until(path: str, attempt: int) -> int:
    append_line(path, "started")
    if len(lines(Path(path))) < attempt:
        os._exit(1)
    return len(lines(Path(path)))


def raise_until(path: str, attempt: int, error: BaseException) -> int:
    append_line(path, "started")
    if len(lines(Path(path))) < attempt:
        raise error
    return attempt


def stay() -> None:
    """Stay for ever."""
    threading.Event().wait()


def clean_up_slowly(gate: str) -> None:
    """Meet twice: in the body, and in the `finally` block."""
    try:
        stay_at(gate)
    finally:
        meet(gate)


def stay_at(gate: str) -> None:
    """Arrive, and stay until interrupted."""
    arrive(gate)
    while True:
        signal.pause()
