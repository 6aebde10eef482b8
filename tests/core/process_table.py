"""What the process table says: which processes live, and what they belong to.

Read from /proc, by code of its own: what is tested must not be its own witness.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether a process exists that is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in (b"Z", b"X")


def parent_of(pid: int) -> int:
    """The pid of the parent; 0 where the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty where it can't be read."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (variable.partition(b"=") for variable in data.split(b"\0") if variable)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def live_with_variable(name: str, prefix: str) -> list[int]:
    """The live processes, this one excepted, in whose environment `name` begins with `prefix`."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [
        pid
        for pid in pids
        if pid != os.getpid() and environment_of(pid).get(name, "").startswith(prefix) and is_alive(pid)
    ]


def describe(pids: Iterable[int]) -> list[str]:
    """Processes in words, for a failing test."""
    words = []
    for pid in pids:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            command = "(gone)"
        words.append(f"{pid} (parent {parent_of(pid)}): {command[:150]}")
    return words


def await_death(pid: int, timeout_s: float = 10.0) -> bool:
    """Whether a process, of anybody's, is dead (a zombie at most), waiting for it at most so long."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(max(0.0, timeout_s) * 1000)
    finally:
        os.close(fd)
    return not is_alive(pid)


def await_none(find: Callable[[], list[int]], timeout_s: float) -> list[int]:
    """What `find` still finds after so long; returns at once when it finds nothing."""
    deadline = time.monotonic() + timeout_s
    while found := find():
        left = deadline - time.monotonic()
        if left <= 0:
            return found
        # Woken by its end; found may change by other processes' doing, so it is looked at again soon.
        await_death(found[0], min(left, 0.1))
    return []
