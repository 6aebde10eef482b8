"""Memory: how much there is, how much processes use, and whether the kernel ran out of it.

What a tree of processes uses is told in two ways.  Resident memory (RSS) is quick to read, but counts a page once for
each process that maps it; proportional memory (PSS) shares each page out among those that map it, and takes
milliseconds to read.  So RSS is looked at often, and PSS before anybody is ended.

On Linux this reads /proc and the control group's files; elsewhere psutil answers.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from jobrunner.anonymous_memory import SHARED_NAME
from jobrunner.processes import find_descendants

__all__ = [
    "RSS_UNIT",
    "format_bytes",
    "group_memory",
    "machine_memory",
    "oom_kills",
    "parse_bytes",
    "peak_bytes",
    "proportional_bytes",
    "resident_bytes",
    "tree_of",
]

_USE_PROC = sys.platform == "linux" and os.path.exists("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
#: The unit of `ru_maxrss`, in bytes.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
# What the kernel tells where there is no limit is just below 2**63.
_NO_LIMIT = 1 << 60
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*")
_UNITS = {
    **{"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12},
    **{"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40},
    **{"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40},  # as Slurm, systemd and Docker mean them
}


def parse_bytes(text: str) -> int:
    """A number of bytes from text: ``"2GiB"``, ``"500 MB"``, ``"1.5g"``; a single letter means the power of 1024.

    Raises:
        ValueError: it is no such text.

    Example:
        >>> parse_bytes("2GiB"), parse_bytes("1.5 kB")
        (2147483648, 1500)
    """
    match = _AMOUNT.fullmatch(text)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is no amount of memory: write it as 2147483648, '2GiB' or '500MB'")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def format_bytes(count: float) -> str:
    """A number of bytes for people.

    Example:
        >>> format_bytes(3 * 2**29)
        '1.5 GiB'
    """
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.4g} {unit}"
    return f"{count / 1024:.4g} TiB"


# --- how much there is ------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def machine_memory() -> int:
    """The memory that processes here may use, in bytes: the machine's, or its control group's if that is less."""
    import psutil

    return min(int(psutil.virtual_memory().total), group_memory() or sys.maxsize)


def group_memory() -> int | None:
    """The memory that this process's control groups, its own and those above, leave it, in bytes; None: no limit."""
    return min(_group_limits(_group_directories()), default=None)


def _group_limits(directories: Iterable[Path]) -> list[int]:
    limits = []
    for directory in directories:
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # ``max`` where there is none
                limits.append(int((directory / name).read_text()))
    return [limit for limit in limits if 0 < limit < _NO_LIMIT]


def _group_directories(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> list[Path]:
    """The directories of the memory control groups that this process is in, the innermost first."""
    try:
        lines = Path(membership).read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top = Path(root)  # version 2: one hierarchy for all
        elif "memory" in controllers.split(","):
            top = Path(root) / "memory"
        else:
            continue
        inner = top / path.lstrip("/")
        # In a container the path may be that of the host, of which only the top is visible.
        chain = [inner, *inner.parents]
        found += [directory for directory in chain[: chain.index(top) + 1] if directory.is_dir()]
    return found


def oom_kills() -> int | None:
    """How many processes of this control group the kernel has killed for want of memory; None where it doesn't tell."""
    for directory in _group_directories():
        for name in ("memory.events", "memory.oom_control"):
            count = _count_in(directory / name)
            if count is not None:
                return count
    return _count_in(Path("/proc/vmstat"))


def _count_in(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


# --- how much is used -------------------------------------------------------------------------------------------------


def tree_of(pid: int) -> list[int]:
    """`pid` and the processes below it."""
    return [pid, *(process.pid for process in find_descendants(pid))]


def resident_bytes(pids: Iterable[int]) -> int:
    """The resident memory of processes, in bytes; pages that several map are counted for each."""
    return sum(map(_resident, pids))


def _resident(pid: int) -> int:
    if _USE_PROC:
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * _PAGE_BYTES
        except (OSError, IndexError):
            return 0  # it has ended
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def peak_bytes(pid: int) -> int:
    """The highest resident memory that a process has had since it, or the kernel, began to count; 0 if not known."""
    if not _USE_PROC:
        return 0
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def proportional_bytes(pids: Iterable[int]) -> int:
    """The memory of processes, in bytes; a page that several map is shared out among them.

    Objects that are `share`d among jobs are nobody's, as long as they lie as they came.

    Where the system doesn't tell, their own (unique) memory, or the resident memory.
    """
    return sum(map(_proportional, pids))


def _shared_objects(pid: int) -> int:
    """How much of a process's proportional memory is that of objects shared among jobs, in bytes."""
    with open(f"/proc/{pid}/maps", "rb") as file:
        if SHARED_NAME.encode() not in file.read():
            return 0
    found = 0
    ours = False
    with open(f"/proc/{pid}/smaps", "rb") as file:
        for line in file:
            key = line.split(maxsplit=1)[0]
            if not key.endswith(b":"):  # the head of the next map
                ours = SHARED_NAME.encode() in line
            elif ours and key == b"Pss:":
                found += int(line.split()[1]) * 1024
    return found


def _proportional(pid: int) -> int:
    if _USE_PROC:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                for line in file:
                    if line.startswith(b"Pss:"):
                        return max(0, int(line.split()[1]) * 1024 - _shared_objects(pid))
        except OSError:
            pass  # it has ended, or a kernel before 4.14
        return _resident(pid)
    import psutil

    try:
        info = psutil.Process(pid).memory_full_info()
        return int(getattr(info, "pss", 0) or getattr(info, "uss", info.rss))
    except (psutil.Error, OSError):
        return _resident(pid)
