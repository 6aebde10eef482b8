"""Processes: whether they live, what they started, and ending them for certain.

A process is named by its pid only while that can't be mistaken: signals go through pidfds where the system has them,
and a pid read from a process table is checked against the start time read with it.  A zombie counts as dead.

What a worker started is found in three ways: as its descendants (on Linux it is a subreaper, so that an orphan among
them stays below it while it lives), by its session, and by the lane's tag in the environment they inherited.  The last
two are for a worker that is dead already.

On Linux this reads /proc; elsewhere psutil does, more slowly.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

__all__ = [
    "LANE_VARIABLE",
    "ProcessId",
    "cpu_seconds",
    "end_descendants",
    "end_processes",
    "end_with_trackers",
    "find_descendants",
    "find_tagged",
    "give_way",
    "is_resource_tracker",
    "open_pidfd",
    "signal_masks",
    "signal_name",
    "wait_for_exit",
    "wait_readable",
]

#: The environment variable that carries a lane's tag; an inner lane's tag begins with its outer lane's and a slash.
LANE_VARIABLE = "JOBRUNNER_LANE"

_USE_PROC = sys.platform == "linux" and os.path.exists("/proc/self/stat")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)
# How long a resource tracker may take to remove what the dead have left.
_TRACKERS_S = 2.0


class ProcessId(NamedTuple):
    """A process, named so that another with the same pid is not taken for it.

    Attributes:
        pid: the process id.
        started: its start time, in the system's own unit.
    """

    pid: int
    started: float


def signal_name(number: int) -> str:
    """The name of a signal, such as ``SIGKILL``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# --- what lives -------------------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """A line of the process table."""

    pid: int
    parent: int
    session: int
    started: float


def _proc_entry(pid: int) -> _Entry | None:
    """The process's entry; None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in parentheses, may hold anything; what follows the last parenthesis is plain fields.
            fields = file.read().rpartition(b")")[2].split()
    except (OSError, ValueError):
        return None
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return _Entry(pid, int(fields[1]), int(fields[3]), float(fields[19]))


def _psutil_entry(pid: int) -> _Entry | None:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        session = -1
        with contextlib.suppress(OSError, AttributeError):
            session = os.getsid(pid)
        return _Entry(pid, process.ppid(), session, process.create_time())
    except psutil.Error:
        return None


def _entry(pid: int) -> _Entry | None:
    return _proc_entry(pid) if _USE_PROC else _psutil_entry(pid)


def _pids() -> list[int]:
    if _USE_PROC:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    import psutil

    return list(psutil.pids())


def _table() -> list[_Entry]:
    return [entry for pid in _pids() if (entry := _entry(pid)) is not None]


def _children(pid: int) -> list[int]:
    """The pids of a process's children, as the kernel lists them."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it, or one of its threads, is gone
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


_KERNEL_LISTS_CHILDREN = _USE_PROC and os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def find_descendants(pid: int) -> list[ProcessId]:
    """The live processes below `pid`, parents before children, without itself."""
    if not _KERNEL_LISTS_CHILDREN:
        return _below(pid, _table())
    found: list[ProcessId] = []
    waiting = [pid]
    seen = {pid}
    while waiting:
        for child in _children(waiting.pop()):
            if child in seen:
                continue
            seen.add(child)
            entry = _proc_entry(child)
            if entry is not None:
                waiting.append(child)
                found.append(ProcessId(entry.pid, entry.started))
    return found


def _below(pid: int, table: list[_Entry]) -> list[ProcessId]:
    by_parent: dict[int, list[_Entry]] = {}
    for entry in table:
        by_parent.setdefault(entry.parent, []).append(entry)
    found: list[ProcessId] = []
    waiting = [pid]
    seen = {pid}
    while waiting:
        for entry in by_parent.get(waiting.pop(), ()):
            if entry.pid not in seen:
                seen.add(entry.pid)
                found.append(ProcessId(entry.pid, entry.started))
                waiting.append(entry.pid)
    return found


def _environment(pid: int) -> bytes:
    """The environment that a process was started with, as NUL-separated bytes; empty where it can't be read."""
    if _USE_PROC:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return file.read(1 << 20)
        except OSError:
            return b""
    import psutil

    try:
        value = psutil.Process(pid).environ().get(LANE_VARIABLE, "")
    except (psutil.Error, OSError):
        return b""
    return os.fsencode(f"{LANE_VARIABLE}={value}")


def find_tagged(tag: str, sessions: Iterable[int] = ()) -> list[ProcessId]:
    """The live processes that carry `tag` or one that begins with it, or are in one of `sessions`, and all below them.

    Args:
        tag: a lane's tag, or the part that all tags of one caller begin with.
        sessions: session ids, each the pid of a worker.
    """
    mark = os.fsencode(f"{LANE_VARIABLE}={tag}")
    wanted = set(sessions)
    own = os.getpid()
    table = _table()
    found: dict[int, ProcessId] = {}
    for entry in table:
        if entry.pid == own:
            continue
        if entry.session in wanted or any(
            variable.startswith(mark) for variable in _environment(entry.pid).split(b"\0")
        ):
            found[entry.pid] = ProcessId(entry.pid, entry.started)
    for pid in list(found):
        for process in _below(pid, table):
            if process.pid != own:
                found.setdefault(process.pid, process)
    return list(found.values())


# --- ending them ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _handle(process: ProcessId) -> Iterator[int | None]:
    """A pidfd of `process`; None where there are no pidfds; raises ProcessLookupError when it is gone."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    fd = os.pidfd_open(process.pid)
    try:
        # The pid may have been given to another between the scan and the opening.
        entry = _entry(process.pid)
        if entry is None or entry.started != process.started:
            raise ProcessLookupError(process.pid)
        yield fd
    finally:
        os.close(fd)


def _send(process: ProcessId, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError), _handle(process) as fd:
        if fd is not None:
            signal.pidfd_send_signal(fd, number)  # type: ignore[attr-defined,unused-ignore]
            return
        entry = _entry(process.pid)
        if entry is not None and entry.started == process.started:
            os.kill(process.pid, number)


def wait_for_exit(process: ProcessId, deadline: float) -> bool:
    """Wait until `process` is dead.

    Args:
        process: which.
        deadline: `time.monotonic` at which to give up.

    Returns:
        Whether it is dead.
    """
    try:
        with _handle(process) as fd:
            if fd is not None:
                return wait_readable(fd, deadline - time.monotonic())
    except ProcessLookupError:
        return True
    import psutil

    # In short waits: a zombie whose parent doesn't reap it is dead, and would be waited for in vain.
    while _entry(process.pid) is not None and time.monotonic() < deadline:
        with contextlib.suppress(psutil.Error):
            psutil.Process(process.pid).wait(timeout=0.01)
    return _entry(process.pid) is None


def give_way() -> None:
    """Let another process have this core, if one wants it."""
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0)


def wait_readable(fd: int, timeout: float | None) -> bool:
    """Whether a descriptor is readable, waiting for it at most `timeout` seconds (None: as long as it takes)."""
    if not hasattr(select, "poll"):
        return bool(select.select([fd], [], [], timeout)[0])
    # Not select() where it can be avoided: it can't take descriptors above 1023.
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else max(0.0, timeout) * 1000))


def end_processes(find: Callable[[], list[ProcessId]], deadline: float) -> bool:
    """Kill every process that `find` finds, until it finds none.

    All are stopped before the first is killed, so that none can start another meanwhile, and children are killed
    before their parents.

    Args:
        find: lists the live processes to end, parents before children.
        deadline: `time.monotonic` at which to give up.

    Returns:
        Whether a last search found none.
    """
    while True:
        stopped: dict[ProcessId, None] = {}
        while True:
            new = [process for process in find() if process not in stopped]
            if not new:
                break
            for process in new:
                stopped[process] = None
                if hasattr(signal, "SIGSTOP"):
                    _send(process, signal.SIGSTOP)
        if not stopped:
            # A search reads one process after the other: one whose parent died meanwhile may have moved to a place
            # already read.  It is there now.
            if not find():
                return True
            continue
        doomed = list(stopped)[::-1]
        for process in doomed:
            _send(process, _SIGKILL)
        if not all(wait_for_exit(process, deadline) for process in doomed):
            return False


def end_with_trackers(find: Callable[[], list[ProcessId]], deadline: float) -> bool:
    """`end_processes`, but resource trackers come last, and may end by themselves.

    Those of loky and `multiprocessing` remove semaphores and shared memory of the others once these are dead.
    """
    trackers: set[ProcessId] = set()

    def others() -> list[ProcessId]:
        found = find()
        trackers.update(filter(is_resource_tracker, found))
        return [process for process in found if process not in trackers]

    gone = end_processes(others, deadline)
    until = min(deadline, time.monotonic() + _TRACKERS_S)
    for tracker in trackers:
        wait_for_exit(tracker, until)
    return end_processes(find, deadline) and gone


def is_resource_tracker(process: ProcessId) -> bool:
    """Whether it removes what other processes leave behind."""
    return any("resource_tracker import main" in part for part in _command(process.pid))


def _command(pid: int) -> list[str]:
    """A process's command line; empty where it can't be had."""
    if _USE_PROC:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return os.fsdecode(file.read(1 << 16)).split("\0")
        except OSError:
            return []
    import psutil

    try:
        return list(psutil.Process(pid).cmdline())
    except (psutil.Error, OSError):
        return []


def end_descendants(pid: int, timeout: float = 5.0) -> bool:
    """Kill everything below `pid`, but not itself.

    Args:
        pid: the process whose descendants are ended.
        timeout: seconds to wait for the kernel.

    Returns:
        Whether none is alive.
    """
    return end_processes(lambda: find_descendants(pid), time.monotonic() + timeout)


def cpu_seconds(pids: Iterable[int]) -> float:
    """The CPU time of processes, with that of the children that they have waited for; zombies included."""
    total = 0.0
    for pid in pids:
        if _USE_PROC:
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                total += sum(map(int, fields[11:15])) / _TICKS_PER_S
        else:
            import psutil

            with contextlib.suppress(psutil.Error):
                total += sum(psutil.Process(pid).cpu_times()[:4])
    return total


def signal_masks(pid: int) -> dict[str, int]:
    """A process's signals as the kernel keeps them, as bit masks: ShdPnd, SigBlk, SigCgt, …; empty where not known."""
    masks: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/status", "rb", buffering=0) as file:
        for line in file.read(8192).splitlines():
            if line.startswith((b"Sig", b"Shd")) and not line.startswith(b"SigQ"):
                name, _, value = line.partition(b":")
                masks[name.decode()] = int(value, 16)
    return masks


def open_pidfd(pid: int) -> int | None:
    """A pidfd of a child of this process that nobody has reaped; None where the system has none."""
    opener: Any = getattr(os, "pidfd_open", None)
    if opener is None:
        return None
    try:
        return int(opener(pid))
    except OSError:
        return None
